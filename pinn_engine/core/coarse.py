"""The preconditioner of H = A + d R^2: two solves with R + S, S = sqrt(A / d), each by one two-level multigrid cycle.

(R + S)^2 lies between R^2 + S^2 and twice that wherever R and S commute, so conjugate gradients need about ten iterations. By
block-Jacobi they need hundreds: what is slow are the smooth modes, and samples stopped early give intervals that are too narrow.
The coarse space of the cycle is hat functions on a wide grid, one set for each kind of node, since kinds are nearly independent.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

MOST, NODES_EACH = 1200, 30  # broad functions at most, and nodes to each: their dense matrix is the only one here, and stays small
LEAST_PITCH = 3.0  # nodes
CHEBYSHEV, DEGREE = (0.25, 2.0), 3  # part of the spectrum that smoothing is for


def hats(position: np.ndarray, kind: np.ndarray) -> sparse.csr_matrix:
    """(V, J) trilinear hats at nodes `position` (V, 3), in units of the shortest edge, one set a `kind` (V,); J <= MOST."""
    pitch, most = LEAST_PITCH, max(min(MOST, len(kind) // NODES_EACH), 1)
    for _ in range(60):
        made = _hats(position, kind, pitch)
        if made.shape[1] <= most:
            break
        pitch *= max((made.shape[1] / most) ** (1 / 3), 1.05)
    return made


def _hats(position: np.ndarray, kind: np.ndarray, pitch: float) -> sparse.csr_matrix:
    place = (position - position.min(axis=0)) / pitch
    low = np.floor(place).astype(np.int64)
    part = place - low
    size = low.max(axis=0) + 2
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        columns.append(((at[:, 0] * size[1] + at[:, 1]) * size[2] + at[:, 2]) * (int(kind.max()) + 1) + kind)
        values.append(weight)
        rows.append(np.arange(len(place)))
    row, value = np.concatenate(rows), np.concatenate(values)
    _, column = np.unique(np.concatenate(columns), return_inverse=True)
    full = sparse.csr_matrix((value.astype(np.float32), (row, column.reshape(-1))), shape=(len(place), int(column.max()) + 1))
    weighty = np.asarray(full.power(2).sum(axis=0)).ravel() > 1e-3  # functions that no node lies under have no matrix entry
    return full[:, np.flatnonzero(weighty)].tocsr()


class CoarseSpace:
    """P (V, J), hats on a wide grid."""

    def __init__(self, basis: sparse.csr_matrix):
        self.basis = basis
        self.down, self.up = _torch(basis.T.tocsr()), _torch(basis)


class TwoLevel:
    """One symmetric cycle for (R + S) x = r: Chebyshev smoothing, correction on the coarse space, Chebyshev smoothing."""

    def __init__(self, matrix: Tensor, shift: Tensor, coarse: CoarseSpace):
        self.matrix, self.shift, self.coarse = matrix, shift.unsqueeze(1), coarse
        size = (matrix.shape[0], matrix.shape[1])
        indices, starts = matrix.col_indices().numpy(), matrix.crow_indices().numpy()
        r = sparse.csr_matrix((matrix.values().numpy(), indices, starts), shape=size) + sparse.diags(shift.numpy())
        self.root = torch.as_tensor(1 / r.diagonal().astype(np.float32)).unsqueeze(1)
        small = torch.as_tensor((coarse.basis.T @ (r @ coarse.basis)).toarray()).float()
        small.diagonal().add_(1e-6 * small.diagonal().mean())
        self.small = torch.cholesky_inverse(torch.linalg.cholesky(small))

    def solve(self, rhs: Tensor) -> Tensor:
        """(V, S)"""
        x = self._smooth(rhs)
        x = x + self.coarse.up @ (self.small @ (self.coarse.down @ (rhs - self._apply(x))))
        return x + self._smooth(rhs - self._apply(x))

    def _apply(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.matrix @ x, self.shift, x)

    def _smooth(self, r: Tensor) -> Tensor:
        """Chebyshev iteration from zero on the upper part of the spectrum; D^-1 (R + S) has no eigenvalue above 2."""
        low, high = CHEBYSHEV
        centre, half = 0.5 * (high + low), 0.5 * (high - low)
        rho = half / centre
        step = (self.root * r) / centre
        x = step
        for _ in range(DEGREE - 1):
            new = 1 / (2 * centre / half - rho)
            step = new * rho * step + (2 * new / half) * (self.root * (r - self._apply(x)))
            x, rho = x + step, new
        return x


def _torch(matrix: sparse.csr_matrix) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sparse CSR is announced as beta
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr.astype(np.int64)),
            torch.as_tensor(matrix.indices.astype(np.int64)),
            torch.as_tensor(matrix.data.astype(np.float32)),
            matrix.shape,
        )
