"""Sums over balls around every voxel at once, by Fourier transform."""

from __future__ import annotations

import numpy as np
from scipy import fft


class Balls:
    """Balls of `radii` mm on the voxels of a scan: `total` sums values (V, N) over each ball, `spread` is its adjoint (a ball is even)."""

    def __init__(self, voxels: tuple[np.ndarray, ...], spacing: np.ndarray, radii: tuple[float, ...]):
        self.low = [int(v.min()) for v in voxels]
        self.index = tuple(v - low for v, low in zip(voxels, self.low, strict=True))
        size = [int(v.max()) + 1 for v in self.index]
        self.radii = radii
        reach = [int(max(radii) / h) + 1 for h in spacing]
        self.shape = [fft.next_fast_len(n + r, real=True) for n, r in zip(size, reach, strict=True)]
        self.kernels = [self._kernel(radius, spacing) for radius in radii]

    def _kernel(self, radius: float, spacing: np.ndarray) -> np.ndarray:
        """Transform of a ball centred on the first voxel, wrapped around."""
        axes = [np.minimum(np.arange(n), n - np.arange(n)) * h for n, h in zip(self.shape, spacing, strict=True)]
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        return fft.rfftn((x**2 + y**2 + z**2 <= radius**2 + 1e-6).astype(float))

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Transforms (N, …) of values (V, N)."""
        volume = np.zeros((values.shape[1], *self.shape), values.dtype)
        i, j, k = self.index
        volume[:, i, j, k] = values.T
        return fft.rfftn(volume, axes=(1, 2, 3))

    def total(self, transformed: np.ndarray, ball: int) -> np.ndarray:
        """(V, N) sums over ball number `ball`, from `forward`; as precise as the values that were transformed."""
        volume = fft.irfftn(transformed * self.kernels[ball].astype(transformed.dtype), self.shape, axes=(1, 2, 3))
        i, j, k = self.index
        return volume[:, i, j, k].T

    def spread(self, values: np.ndarray, ball: int) -> np.ndarray:
        """(V, N): each voxel's value laid over the ball around it."""
        return self.total(self.forward(values), ball)
