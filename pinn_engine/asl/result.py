"""What a perfusion fit returns: maps with standard deviations, status per voxel, curves, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from .maps import MapKind
from .scan import Scan


@dataclass(frozen=True, repr=False)
class ParameterMap:
    """One fitted quantity: `value` and `std`, both (X, Y, Z) float32, finite, 0 outside the mask."""

    kind: MapKind
    value: np.ndarray
    std: np.ndarray

    def __repr__(self) -> str:
        known = self.std > 0
        middle = f"median {np.median(self.value[known]):.4g}" if known.any() else "nothing fitted"
        return f"<{self.kind.symbol}, {self.kind.unit}: {middle} of {known.sum():,} voxels>"


@dataclass(frozen=True)
class ExtraVolume:
    """A further volume that a fit writes, (X, Y, Z): not a fitted quantity but about the fit."""

    suffix: str  # PREFIX_<suffix>.nii.gz
    data: np.ndarray
    about: str
    unit: str
    labels: bool = False


@dataclass(frozen=True, repr=False)
class PerfusionFit:
    """The result of `asl.fit`; K = number of distinct (delay, label duration) pairs."""

    scan: Scan
    maps: dict[str, ParameterMap]  # "cbf", "att", "t1b"
    status: np.ndarray  # (X, Y, Z) uint8, 0 outside the mask
    status_meaning: dict[int, str]
    misfit: np.ndarray  # (X, Y, Z) float32: root mean square of the weighted data residual, 1 = as the noise predicts
    pld: np.ndarray  # (K,) s
    label_duration: np.ndarray  # (K,) s
    repeats: np.ndarray  # (K,) averages behind each data point
    data: np.ndarray  # (X, Y, Z, K) float32: averaged differences, scanner units
    fitted: np.ndarray  # (X, Y, Z, K) float32
    fitted_std: np.ndarray  # (X, Y, Z, K) float32
    convergence: dict[str, list[float]] = field(default_factory=dict)  # "cost" per step (mean over voxels), "active" share per step
    settings: dict[str, object] = field(default_factory=dict)  # method, network, model error, noise, seed, device, …

    extras: dict[str, ExtraVolume] = field(default_factory=dict)
    tables: dict[str, tuple[tuple[str, ...], list[dict[str, object]]]] = field(default_factory=dict)  # suffix of a .tsv: columns, rows

    def __repr__(self) -> str:
        return f"<PerfusionFit of {self.scan.source}: {', '.join(map(repr, self.maps.values()))}>"

    @property
    def usable(self) -> np.ndarray:
        """(X, Y, Z) bool: a voxel that could not be fitted has no standard deviation."""
        return self.scan.mask & (self.maps["cbf"].std > 0)

    def save(self, folder: str | PathLike[str]) -> list[Path]:
        """Write maps, sidecars, curves and quality figures; returns the files. Raises InputError where the folder cannot be written."""
        from ..files.output import OutputFolder
        from .save import save

        return save(self, OutputFolder(folder))
