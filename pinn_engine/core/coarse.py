"""The preconditioner of H = A + d R^2: two solves with R + S, S = sqrt(A / d), each by one two-level multigrid cycle.

(R + S)^2 lies between R^2 + S^2 and twice that wherever R and S commute, so conjugate gradients need about ten iterations. By
block-Jacobi they need hundreds: what is slow are the smooth modes, and samples stopped early give intervals that are too narrow.
The coarse space of the cycle is hat functions on a wide grid, one set for each kind of node, since kinds are nearly independent.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .roughness import csr

MOST, NODES_EACH = 1200, 30  # broad functions at most, and nodes to each: their dense matrix is the only one here, and stays small
LEAST_PITCH = 3.0  # nodes
CHEBYSHEV, DEGREE = (0.25, 2.0), 3  # part of the spectrum that smoothing is for


def hats(position: Tensor, kind: Tensor) -> Tensor:
    """(V, J) sparse: trilinear hats at nodes `position` (V, 3), in units of the shortest edge, one set a `kind` (V,); J <= MOST."""
    pitch, most = LEAST_PITCH, max(min(MOST, len(kind) // NODES_EACH), 1)
    for _ in range(60):
        node, column, weight = _hats(position, kind, pitch)
        count = int(column.max()) + 1
        if count <= most:
            break
        pitch *= max((count / most) ** (1 / 3), 1.05)
    order = torch.argsort(node * count + column)
    return csr(node[order], column[order], weight[order].float(), (len(kind), count))


def _hats(position: Tensor, kind: Tensor, pitch: float) -> tuple[Tensor, Tensor, Tensor]:
    """Node, column and value of every entry; hats that no node lies well under are left out."""
    place = (position - position.amin(dim=0)) / pitch
    low = place.floor().long()
    part, size = place - low, low.amax(dim=0) + 2
    columns, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        at, up = low + torch.tensor(corner), torch.tensor(corner, dtype=torch.bool)
        weights.append(torch.where(up, part, 1 - part).prod(dim=1))
        columns.append(((at[:, 0] * size[1] + at[:, 1]) * size[2] + at[:, 2]) * (int(kind.max()) + 1) + kind)
    node, weight = torch.arange(len(place)).repeat(8), torch.cat(weights)
    column = torch.unique(torch.cat(columns), return_inverse=True)[1]
    mass = torch.zeros(int(column.max()) + 1, dtype=weight.dtype).index_add_(0, column, weight**2)
    kept = mass[column] > 1e-3
    return node[kept], torch.unique(column[kept], return_inverse=True)[1], weight[kept]


class CoarseSpace:
    """P (V, J), hats on a wide grid, and its transpose."""

    def __init__(self, basis: Tensor):
        self.up = basis
        rows = torch.repeat_interleave(torch.arange(basis.shape[0]), basis.crow_indices().diff())
        order = torch.argsort(basis.col_indices() * basis.shape[0] + rows)
        self.down = csr(basis.col_indices()[order], rows[order], basis.values()[order], (basis.shape[1], basis.shape[0]))


class TwoLevel:
    """One symmetric cycle for (R + S) x = r: Chebyshev smoothing, correction on the coarse space, Chebyshev smoothing."""

    def __init__(self, matrix: Tensor, shift: Tensor, coarse: CoarseSpace):
        self.matrix, self.shift, self.coarse = matrix, shift.unsqueeze(1), coarse
        rows = torch.repeat_interleave(torch.arange(matrix.shape[0]), matrix.crow_indices().diff())
        on = rows == matrix.col_indices()
        values = matrix.values() + torch.where(on, shift[rows], 0.0)
        shifted = csr(rows, matrix.col_indices(), values, (matrix.shape[0], matrix.shape[1]))
        self.root = (1 / values[on]).unsqueeze(1)
        small = (coarse.down @ (shifted @ coarse.up)).to_dense()
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
