"""The table of maps that the perfusion organ writes: name, unit, range and colours, in one place for every door."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..core.solution import Status

ARBITRARY = "arbitrary"  # the unit of a map without scale, in files


@dataclass(frozen=True)
class MapKind:
    """How one map is named in files and shown to people. `window` is the display range, `plausible` the range of healthy adult values."""

    key: str
    suffix: str  # PREFIX_<suffix>.nii.gz
    std_suffix: str
    title: str
    unit: str
    window: tuple[float, float] | None  # None: from the data's percentiles
    colormap: str

    @property
    def symbol(self) -> str:
        """As people write it: CBF, ATT, T1b, aCBV, aBAT."""
        if self.unit == ARBITRARY:
            return "relative CBF"
        return {"t1b": "T1b", "abv": "aCBV", "abat": "aBAT"}.get(self.key, self.key.upper())

    @property
    def shown_unit(self) -> str:
        """The unit beside a number; nothing where the name says that it is relative."""
        return "" if self.unit == ARBITRARY else self.unit


CBF = MapKind("cbf", "cbf", "desc-std_cbf", "Cerebral blood flow", "mL/100 g/min", (0.0, 100.0), "inferno")
RELATIVE_CBF = MapKind("cbf", "desc-relative_cbf", "desc-std_cbf", "Relative perfusion (no M0)", ARBITRARY, None, "inferno")
ATT = MapKind("att", "att", "desc-std_att", "Arterial transit time", "s", (0.0, 2.5), "viridis")
T1B = MapKind("t1b", "t1b", "desc-std_t1b", "T1 of arterial blood", "s", (1.2, 2.4), "cividis")

ABV = MapKind("abv", "abv", "desc-std_abv", "Arterial blood volume", "fraction", (0.0, 0.02), "magma")
ABAT = MapKind("abat", "abat", "desc-std_abat", "Arrival time in arteries", "s", (0.0, 2.0), "viridis")
KINDS = (CBF, RELATIVE_CBF, ATT, T1B, ABV, ABAT)


class VoxelStatus(IntEnum):
    """Status of a voxel beyond the solver's own (`core.Status`, 1 to 6)."""

    OUTSIDE = 0
    NOT_FINITE = Status.NOT_FINITE
    NO_M0 = 7
    PRIOR_DOMINATED = 8


STATUS_MEANING: dict[int, str] = {
    VoxelStatus.OUTSIDE: "Outside the mask.",
    **{int(status): status.sentence for status in Status},
    VoxelStatus.NO_M0: "M0 is zero or not usable here; nothing was fitted.",
    VoxelStatus.PRIOR_DOMINATED: "The data here say (almost) nothing about arrival time, or about flow either: the value is the prior's.",
}
