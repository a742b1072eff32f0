"""One perfusion scan in memory: differences, calibration, mask, geometry, acquisition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..files.grid import Grid
from .acquisition import Acquisition


@dataclass(frozen=True)
class Scan:
    """A perfusion scan ready to be fitted.

    `difference` (X, Y, Z, N) float32 is control - label, one volume a pair (or deltam volume), in scanner units, NaN kept.
    `m0` is equilibrium M0 of *blood* per voxel, (X, Y, Z) float32: tissue M0 (TR-corrected, scaled) / lambda, or the sidecar's M0Estimate;
    None = no usable M0, so that perfusion is relative. `mask` (X, Y, Z) bool. `t1_tissue` (X, Y, Z) s where a map was given.
    """

    difference: np.ndarray
    acquisition: Acquisition
    mask: np.ndarray
    grid: Grid
    prefix: str
    source: str  # file name of the input
    m0: np.ndarray | None = None
    t1_tissue: np.ndarray | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)  # plain sentences for the log and the report
