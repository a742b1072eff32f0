"""The maps of a heart fit: arrays and files, titles, codes, colours, ranges. docs/cardiac.md says what each is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PINNCommonLib.specs import MILLISECONDS, NO_UNIT, OWN, RANDOM, VIRIDIS, MapSpec, ucum

TINY = 1e-6  # below is background, shown transparent
PLASMA = ("vtkMRMLColorTableNodeFilePlasma.txt", "vtkMRMLColorTableNodeIron")
EARLY_RED = ("vtkMRMLColorTableNodeRainbow",)  # red to violet, as mapping systems show activation; the background is hidden, not red

_MS = (
    MapSpec("CV", "Conduction velocity", ("CV", OWN, "Conduction velocity"), ucum("m/s", "meter per second"), "m/s", PLASMA, None, TINY, 2),
    MapSpec(
        "D",
        "Diffusivity D",
        ("D", OWN, "Diffusivity"),
        ucum("mm2/ms", "square millimeter per millisecond"),
        "mm²/ms",
        VIRIDIS,
        None,
        TINY,
        3,
    ),
    MapSpec("LAT", "Activation time", ("LAT", OWN, "Local activation time"), MILLISECONDS, "ms", EARLY_RED, None, TINY, 0),
)
_TU = {  # 1 TU = 12.9 ms; UCUM writes units of one's own in braces
    "CV": {"ucum": ucum("mm/{TU}", "millimeter per time unit of 12.9 ms"), "unit": "mm/TU"},
    "D": {"ucum": ucum("mm2/{TU}", "square millimeter per time unit of 12.9 ms"), "unit": "mm²/TU"},
    "LAT": {"ucum": ucum("{TU}", "time unit of 12.9 ms"), "unit": "TU", "decimals": 1},
}
_STATUS = MapSpec("status", "How the fit ended", ("STATUS", OWN, "Status of the fit"), NO_UNIT, "", RANDOM, (0.0, 4.0), TINY, 0)
KEYS = tuple(spec.key for spec in _MS)


def specs(time_unit: str) -> dict[str, MapSpec]:
    """By array name: CV, D, LAT and their standard deviations, in `ms` or `tu`."""
    bases = [spec if time_unit == "ms" else replace(spec, **_TU[spec.key]) for spec in _MS]
    return {one.key: one for base in bases for one in (base, base.std())} | {_STATUS.key: _STATUS}


def manual_range(values: np.ndarray, tissue: np.ndarray, spec: MapSpec) -> tuple[float, float]:
    """2nd to 98th percentile over the fitted tissue, opened a little where all is one value; times from end to end."""
    if spec.window is not None:
        return spec.window
    inside = values[tissue & np.isfinite(values)]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside, [2, 98]) if spec.key != "LAT" else (inside.min(), inside.max())
    low = 0.0 if spec.key != "LAT" and not spec.key.startswith("D") else float(low)
    high = float(high)
    return (low, high) if high - low > 1e-6 * max(abs(high), 1e-9) else (low - 0.05 * abs(low) - 1e-9, high + 0.05 * abs(high) + 1e-9)
