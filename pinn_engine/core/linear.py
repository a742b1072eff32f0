"""Small symmetric positive definite systems, many at once: written out up to 4 x 4, Cholesky beyond.

Batched LAPACK pays a call per matrix on the CPU and loops over the batch on some GPUs; for the 1 to 4 unknowns of a voxel
the same LDL^T written out elementwise is one short kernel over all problems.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNROLLED = 4


def solve_spd(matrix: Tensor, rhs: Tensor) -> Tensor:
    """x of `matrix @ x = rhs` for `matrix` (B, P, P) symmetric positive definite and `rhs` (B, P) or (B, P, K).

    A problem whose matrix is not positive definite comes back as NaN; its neighbours are untouched.
    """
    vector = rhs.ndim == matrix.ndim - 1
    columns = rhs.unsqueeze(-1) if vector else rhs
    x = _solve_unrolled(matrix, columns) if matrix.shape[-1] <= UNROLLED else _solve_cholesky(matrix, columns)
    return x.squeeze(-1) if vector else x


def solve_cholesky_reference(matrix: Tensor, rhs: Tensor) -> Tensor:
    """The plain path that `solve_spd` is tested against; shapes as there."""
    vector = rhs.ndim == matrix.ndim - 1
    x = _solve_cholesky(matrix, rhs.unsqueeze(-1) if vector else rhs)
    return x.squeeze(-1) if vector else x


def inverse_spd(matrix: Tensor) -> Tensor:
    """Inverse of (B, P, P) symmetric positive definite matrices; NaN where one is not."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    return solve_spd(matrix, identity)


def _solve_cholesky(matrix: Tensor, rhs: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    x = torch.cholesky_solve(rhs, factor)
    return torch.where((info == 0)[:, None, None], x, torch.nan)


def _solve_unrolled(matrix: Tensor, rhs: Tensor) -> Tensor:
    """LDL^T with the loops over P written in Python: every line is elementwise over the batch."""
    size = matrix.shape[-1]
    pivot: list[Tensor] = []
    lower: dict[tuple[int, int], Tensor] = {}
    for j in range(size):
        d = matrix[:, j, j]
        for k in range(j):
            d = d - lower[j, k] ** 2 * pivot[k]
        pivot.append(torch.where(d > 0, d, torch.nan))
        for i in range(j + 1, size):
            entry = matrix[:, i, j]
            for k in range(j):
                entry = entry - lower[i, k] * lower[j, k] * pivot[k]
            lower[i, j] = entry / pivot[j]
    x = [rhs[:, i] for i in range(size)]  # each (B, K)
    for i in range(size):
        for k in range(i):
            x[i] = x[i] - lower[i, k].unsqueeze(-1) * x[k]
    x = [x[i] / pivot[i].unsqueeze(-1) for i in range(size)]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            x[i] = x[i] - lower[k, i].unsqueeze(-1) * x[k]
    return torch.stack(x, dim=1)
