"""The preconditioner of H = A + d R^2: two solves with R + S, S = sqrt(A / d), each by one two-level multigrid cycle.

(R + S)^2 lies between R^2 + S^2 and twice that wherever R and S commute, so conjugate gradients need about six iterations, S averaged
over neighbours (eleven by each node's own S: the information on a tissue's field ends where the tissue does). By
block-Jacobi they need hundreds: what is slow are the smooth modes, and samples stopped early give intervals that are too narrow.
The coarse space of the cycle is hat functions on a wide grid.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .roughness import csr

MOST, NODES_EACH = 500, 30  # broad functions at most, and nodes to each: their dense matrix is the only one here, and stays small
LEAST_PITCH = 3.0  # nodes
CHEBYSHEV, DEGREE = (0.25, 2.0), 2  # part of the spectrum that smoothing is for


def hats(position: Tensor) -> Tensor:
    """(V, J) sparse: trilinear hats at nodes `position` (V, 3), in units of the shortest edge; J <= MOST."""
    pitch, most = LEAST_PITCH, max(min(MOST, len(position) // NODES_EACH), 1)
    for _ in range(60):
        node, column, weight = _hats(position, pitch)
        count = int(column.max()) + 1
        if count <= most:
            break
        pitch *= max((count / most) ** (1 / 3), 1.05)
    order = torch.argsort(node * count + column)
    return csr(node[order], column[order], weight[order].float(), (len(position), count))


def _hats(position: Tensor, pitch: float) -> tuple[Tensor, Tensor, Tensor]:
    """Node, column and value of every entry; hats that no node lies well under are left out."""
    place = (position - position.amin(dim=0)) / pitch
    low = place.floor().long()
    part, size = place - low, low.amax(dim=0) + 2
    columns, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        up = torch.tensor(corner, dtype=torch.bool, device=position.device)
        at = low + up.long()
        weights.append(torch.where(up, part, 1 - part).prod(dim=1))
        columns.append((at[:, 0] * size[1] + at[:, 1]) * size[2] + at[:, 2])
    node, weight = torch.arange(len(place), device=position.device).repeat(8), torch.cat(weights)
    column = torch.unique(torch.cat(columns), return_inverse=True)[1]
    mass = weight.new_zeros(int(column.max()) + 1).index_add_(0, column, weight**2)
    kept = mass[column] > 1e-3
    return node[kept], torch.unique(column[kept], return_inverse=True)[1], weight[kept]


class CoarseSpace:
    """P (V, J), hats on a wide grid, and its transpose."""

    def __init__(self, basis: Tensor):
        self.up = basis
        rows = _rows(basis)
        order = torch.argsort(basis.col_indices().long() * basis.shape[0] + rows)
        self.down = csr(basis.col_indices()[order], rows[order], basis.values()[order], (basis.shape[1], basis.shape[0]))
        self._rows = rows

    def of(self, matrix: Tensor) -> Tensor:
        """(J, J) P' M P of a sparse M (V, V)."""
        return (self.down @ (matrix @ self.up)).to_dense()

    def of_diagonal(self, diagonal: Tensor) -> Tensor:
        """(J, J) P' diag P of a diagonal (V,)."""
        scaled = csr(self._rows, self.up.col_indices(), self.up.values() * diagonal[self._rows], (self.up.shape[0], self.up.shape[1]))
        return (self.down @ scaled).to_dense()


class TwoLevel:
    """One symmetric cycle for (R + S) x = r: Chebyshev smoothing, correction on the coarse space, Chebyshev smoothing.

    T fields of one R side by side, each with its own S = diag(`shift`), (V, T): products cost hardly more for many columns than for one.
    """

    def __init__(self, matrix: Tensor, on_coarse: Tensor, shift: Tensor, coarse: CoarseSpace):
        """`on_coarse` (J, J): `coarse.of(matrix)`."""
        self.matrix, self.shift, self.coarse = matrix, shift.unsqueeze(2), coarse
        self.root = 1 / (matrix.values()[_rows(matrix) == matrix.col_indices()].unsqueeze(1) + shift).unsqueeze(2)
        self.small = torch.stack([_inverse(on_coarse + coarse.of_diagonal(one)) for one in shift.T])

    def solve(self, rhs: Tensor) -> Tensor:
        """(V, T, S)"""
        x = self._smooth(rhs)
        left = self.coarse.down @ self._apply(x).neg_().add_(rhs).flatten(1)
        right = torch.bmm(self.small, left.unflatten(1, rhs.shape[1:]).transpose(0, 1)).transpose(0, 1)
        x = x + (self.coarse.up @ right.flatten(1)).view_as(x)
        return x + self._smooth(self._apply(x).neg_().add_(rhs))

    def _apply(self, x: Tensor) -> Tensor:
        return (self.matrix @ x.flatten(1)).view_as(x).addcmul_(self.shift, x)

    def _smooth(self, r: Tensor) -> Tensor:
        """Chebyshev iteration from zero on the upper part of the spectrum; D^-1 (R + S) has no eigenvalue above 2."""
        low, high = CHEBYSHEV
        centre, half = 0.5 * (high + low), 0.5 * (high - low)
        rho = half / centre
        step = self.root * r / centre
        x = step.clone()
        for _ in range(DEGREE - 1):
            new = 1 / (2 * centre / half - rho)
            left = self._apply(x).neg_().add_(r)
            step.mul_(new * rho).addcmul_(left, self.root, value=2 * new / half)
            x.add_(step)
            rho = new
        return x


def _rows(matrix: Tensor) -> Tensor:
    """Row of every entry of a sparse CSR matrix."""
    return torch.arange(matrix.shape[0], device=matrix.device).repeat_interleave(matrix.crow_indices().long().diff())


def _inverse(matrix: Tensor) -> Tensor:
    matrix.diagonal().add_(1e-6 * matrix.diagonal().mean())
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
