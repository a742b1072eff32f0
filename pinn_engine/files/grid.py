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
