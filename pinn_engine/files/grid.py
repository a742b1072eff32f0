"""Where an image's voxels are: shape, RAS+ affine and the header codes that outputs must carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """A voxel grid: `shape` (X, Y, Z), `affine` (4, 4) RAS+ in mm, NIfTI q/sform codes."""

    shape: tuple[int, int, int]
    affine: np.ndarray
    qform_code: int = 1
    sform_code: int = 1

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def matches(self, other: Grid) -> bool:
        """True when both grids put every voxel in the same place, to within a tenth of a voxel at the corners."""
        if self.shape != other.shape:
            return False
        last = np.array(self.shape) - 1
        corners = np.array([[*(last * which), 1] for which in np.ndindex(2, 2, 2)], dtype=float)
        moved = corners @ (self.affine - other.affine).T
        return float(np.linalg.norm(moved[:, :3], axis=1).max()) <= 0.1 * float(self.spacing.min())

    def difference(self, other: Grid) -> str:
        """What differs, for an error message: the shapes, or the placement."""
        if self.shape != other.shape:
            return " x ".join(map(str, other.shape))
        return "the same shape but another position, orientation or voxel size"
