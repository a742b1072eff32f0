"""The table of maps that the perfusion organ writes: name, unit, range and colours, in one place for every door."""

from __future__ import annotations

from dataclasses import dataclass


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


CBF = MapKind("cbf", "cbf", "desc-std_cbf", "Cerebral blood flow", "mL/100 g/min", (0.0, 100.0), "inferno")
RELATIVE_CBF = MapKind("cbf", "desc-relative_cbf", "desc-std_cbf", "Relative perfusion (no M0)", "arbitrary", None, "inferno")
ATT = MapKind("att", "att", "desc-std_att", "Arterial transit time", "s", (0.0, 2.5), "viridis")
T1B = MapKind("t1b", "t1b", "desc-std_t1b", "T1 of arterial blood", "s", (1.2, 2.4), "cividis")
