"""What the panel asks for, and the engine's options for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from PINNCommonLib.explain import Problem

UNKNOWNS = {  # what the panel shows: options of `pinn-engine cardiac fit`
    "maps of CV and D": ("--map", "D"),
    "maps; a and b as numbers": ("--map", "D", "--unknown", "D,a,b"),
    "D as one number": ("--unknown", "D"),
    "D, a and b as numbers": ("--unknown", "D,a,b"),
}
METHODS = {"chosen by the data": (), "travelling beat": ("--method", "travelling"), "field networks": ("--method", "network")}
TIME_UNITS = ("ms", "tu")
DEVICES = ("auto", "cpu")
MAPS = {  # what the panel shows: array of the output model
    "conduction velocity": "CV",
    "conduction velocity, std": "CV_std",
    "diffusivity": "D",
    "diffusivity, std": "D_std",
    "activation time": "LAT",
    "activation time, std": "LAT_std",
    "how the fit ended": "status",
}
AUTOMATIC = ""  # of `array`: measured points where the file has them, else LAT, else V


@dataclass(frozen=True)
class Settings:
    """All choices but the nodes. 0 in `across` and `noise`: as the engine chooses. `times`: of the frames of V, in the time unit."""

    array: str = AUTOMATIC
    unknowns: str = "maps of CV and D"
    timeUnit: str = "ms"
    spacing: float = 1.0
    method: str = "chosen by the data"
    across: float = 0.0
    noise: float = 0.0
    times: str = ""
    given: str = ""
    device: str = "auto"
    outputFolder: str = ""  # empty: nothing but nodes is kept

    @classmethod
    def of(cls, parameters) -> Settings:
        """From anything that has these attributes, such as the wrapped parameter node."""
        return cls(**{one.name: getattr(parameters, one.name) for one in fields(cls)})


def arguments(settings: Settings) -> list[str]:
    """Options without files and device. Raises Problem."""
    for value, allowed, what in (
        (settings.unknowns, UNKNOWNS, "unknowns"),
        (settings.method, METHODS, "method"),
        (settings.timeUnit, TIME_UNITS, "time unit"),
        (settings.device, DEVICES, "device"),
    ):
        if value not in allowed:
            raise Problem(f"{what}: {value!r} is not one of {', '.join(allowed)}.")
    made = [*UNKNOWNS[settings.unknowns], *METHODS[settings.method], "--time-unit", settings.timeUnit]
    for name in ("across", "noise"):
        if getattr(settings, name) > 0:
            made += [f"--{name}", repr(getattr(settings, name))]
    given = re.sub(r"\s+", "", settings.given)
    return [*made, *(["--parameters", given] if given else [])]


def frame_times(text: str) -> list[float]:
    """Numbers parted by spaces, commas or lines; `begin:end:step` for even ones. Raises Problem."""
    try:
        if ":" in text:
            begin, end, step = (float(part) for part in text.split(":"))
            if step <= 0 or end <= begin or (end - begin) / step > 1e5:
                raise ValueError(text)
            return [begin + index * step for index in range(math.floor((end - begin) / step + 1e-9) + 1)]
        return [float(part) for part in re.split(r"[\s,;]+", text.strip()) if part]
    except ValueError:
        raise Problem("Times of the frames: give numbers such as 0 2 4 6, or begin:end:step such as 0:200:2.") from None
