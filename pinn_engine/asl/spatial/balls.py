"""Sums over balls around every voxel at once, by Fourier transform."""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d
from torch import Tensor


class Balls:
    """Balls of `radii` mm on the voxels of a scan: `total` sums values (V, N) over each ball, `spread` is its adjoint (a ball is even)."""

    def __init__(self, voxels: tuple[np.ndarray, ...], spacing: np.ndarray, radii: tuple[float, ...], device: torch.device | str = "cpu"):
        index = [v - v.min() for v in voxels]
        self.size = [int(v.max()) + 1 for v in index]
        self.radii = radii
        reach = [int(max(radii) / h) + 1 for h in spacing]
        self.shape = [next_fast_len(n + r, real=True) for n, r in zip(self.size, reach, strict=True)]
        self.place = torch.as_tensor(np.ravel_multi_index(index, self.shape), device=device)  # of each voxel in the padded volume
        self.in_mask = torch.as_tensor(np.ravel_multi_index(index, self.size), device=device)  # and in the tightest
        self.kernels = [torch.as_tensor(self._kernel(radius, spacing), device=device) for radius in radii]

    def _kernel(self, radius: float, spacing: np.ndarray) -> np.ndarray:
        """Transform of a ball centred on the first voxel, wrapped around; real, for a ball is even."""
        axes = [np.minimum(np.arange(n), n - np.arange(n)) * h for n, h in zip(self.shape, spacing, strict=True)]
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        return np.fft.rfftn((x**2 + y**2 + z**2 <= radius**2 + 1e-6).astype(float)).real

    def forward(self, values: Tensor) -> Tensor:
        """Transforms (N, …) of values (V, N)."""
        volume = values.new_zeros(values.shape[1], int(np.prod(self.shape)))
        volume[:, self.place] = values.T
        return torch.fft.rfftn(volume.unflatten(1, self.shape), dim=(1, 2, 3))

    def total(self, transformed: Tensor, ball: int) -> Tensor:
        """(V, N) sums over ball number `ball`, from `forward`; as precise as the values that were transformed."""
        kernel = self.kernels[ball].to(transformed.real.dtype)
        volume = torch.fft.irfftn(transformed * kernel, self.shape, dim=(1, 2, 3))
        return volume.flatten(1)[:, self.place].T

    def spread(self, values: Tensor, ball: int) -> Tensor:
        """(V, N): each voxel's value laid over the ball around it."""
        return self.total(self.forward(values), ball)

    def even(self, values: Tensor, weight: Tensor, width: float | np.ndarray) -> Tensor:
        """(V, N) weighted mean over a Gaussian of sd `width` voxels inside the mask."""
        volume = values.new_zeros(2 * values.shape[1], int(np.prod(self.size)))
        volume[:, self.in_mask] = torch.cat([values * weight, weight], dim=1).T
        volume = volume.unflatten(1, self.size)
        for axis, sd in enumerate(np.broadcast_to(width, 3)):
            along = torch.as_tensor(gaussian_filter1d(np.eye(self.size[axis]), sd, axis=0)).to(values)  # (n, n)
            volume = torch.tensordot(volume, along, dims=([1], [1]))  # the axis goes last, the next comes first
        top, bottom = volume.flatten(1)[:, self.in_mask].T.chunk(2, dim=1)
        return top / bottom.clamp_min(1e-12)
