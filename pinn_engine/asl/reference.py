"""M0 of blood from a reference region: the mean of M0 in fluid, white or grey matter instead of each voxel's own (oxford_asl's asl_calib).

M0b = M_ref / (1 - exp(-TR / T1r)) * exp(TE / T2r) * exp(-TE / T2b) / lambda_r; lambda_r is water of the region per water of blood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .constants import Sourced

T2_BLOOD = 0.150  # s


@dataclass(frozen=True)
class Region:
    """T1 and T2 in s, and the partition coefficient: values of asl_calib (FSL) at 3 T."""

    t1: float
    t2: float
    partition: float


REGIONS = {"csf": Region(4.3, 0.750, 1.15), "wm": Region(1.0, 0.050, 0.82), "gm": Region(1.3, 0.100, 0.98)}
FEWEST = 10  # voxels


def blood_from_region(
    image: np.ndarray, inside: np.ndarray, kind: str, repetition_time: float | None, echo_time: float | None, where: str, notes: list[str]
) -> tuple[float, dict[str, Sourced]]:
    """One M0 of blood from `image` (X, Y, Z), tissue M0 as acquired, and how; `repetition_time`, `echo_time` in s, None = not known."""
    if kind not in REGIONS:
        raise InputError("--m0-tissue", "is unknown", found=kind, fix=f"give {', '.join(REGIONS)}")
    region = REGIONS[kind]
    values = image[inside & np.isfinite(image) & (image > 0)]
    if values.size < FEWEST:
        raise InputError(where, f"the M0 region must hold {FEWEST} voxels with M0", found=f"{values.size}", fix="give a larger region")
    mean = float(np.median(values))
    recovered = 1.0 if repetition_time is None else 1 - np.exp(-repetition_time / region.t1)
    echo = 1.0 if echo_time is None else float(np.exp(echo_time / region.t2 - echo_time / T2_BLOOD))
    if repetition_time is None:
        notes.append("The repetition time of M0 is not known: the M0 region is assumed to be fully relaxed.")
    if echo_time is None:
        notes.append("EchoTime is not known: the M0 region is not corrected for T2.")
    source = "asl_calib (FSL), 3 T"
    return mean / recovered * echo / region.partition, {
        "m0": Sourced(mean, f"median of {values.size} voxels of {kind.upper()} in the M0 region, then T1, T2 and lambda of the region"),
        "m0_region_t1": Sourced(region.t1, source, "s"),
        "m0_region_t2": Sourced(region.t2, source, "s"),
        "m0_region_partition": Sourced(region.partition, source),
        "m0_echo_time": Sourced(echo_time, "EchoTime of the series" if echo_time is not None else "not known: no correction", "s"),
    }
