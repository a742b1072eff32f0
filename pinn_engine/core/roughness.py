"""How rough fields over a neighbourhood graph are: R = epsilon I + L with L the weighted graph Laplacian, and the prior precision d R^2.

R^2 penalises curvature and leaves slopes nearly free; epsilon keeps it invertible (a Matern field of range 1/sqrt(epsilon) voxels,
Lindgren 2011, doi:10.1111/j.1467-9868.2011.00777.x). One sparse matrix a field, whose values alone change when edges are re-weighted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .coarse import CoarseSpace

NEIGHBOURS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0))
EPSILON = 1e-3  # range of 30 voxels: the mean of a tissue is free, a smaller value costs iterations only


@dataclass(frozen=True)
class Neighbours:
    """Edges between V nodes: `first`, `second` (E,) node numbers and `factor` (E,), the weight an edge has by its length alone."""

    first: Tensor
    second: Tensor
    factor: Tensor
    count: int

    @cached_property
    def layout(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and the order that sorts (edges, edges reversed, diagonal) into CSR."""
        nodes = torch.arange(self.count, device=self.first.device)
        row, column = torch.cat([self.first, self.second, nodes]), torch.cat([self.second, self.first, nodes])
        order = torch.argsort(row * self.count + column)
        return row[order], column[order], order

    def degree(self, weight: Tensor) -> Tensor:
        """(V,) the sum of the weights (E,) of each node's edges."""
        return weight.new_zeros(self.count).index_add_(0, self.first, weight).index_add_(0, self.second, weight)


def grid_neighbours(mask: Tensor, spacing: Tensor) -> Neighbours:
    """Face and edge neighbours inside `mask` (X, Y, Z), 18 a node; nodes in C order. An edge of length h weighs (shortest / h)^2.

    The cortex is about one voxel thick: by face neighbours alone it falls apart into steps, and a fold is far from the next.
    """
    number = torch.full([n + 2 for n in mask.shape], -1, dtype=torch.long, device=mask.device)
    number[1:-1, 1:-1, 1:-1][mask] = torch.arange(int(mask.sum()), device=mask.device)
    place = torch.nonzero(mask) + 1
    ends, factors = [], []
    for way in NEIGHBOURS:
        other = number[tuple((place + place.new_tensor(way)).T)]
        inside = torch.nonzero(other >= 0).squeeze(1)
        ends.append(torch.stack([inside, other[inside]]))
        square = float((torch.tensor(way) * spacing).square().sum())
        factors.append(torch.full((len(inside),), float(spacing.min()) ** 2 / square, device=mask.device))
    first, second = torch.cat(ends, dim=1)
    return Neighbours(first, second, torch.cat(factors), int(mask.sum()))


def csr(row: Tensor, column: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse matrix from entries sorted by row and column; indices of 32 bits, with which products take a sixth less time."""
    starts = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=size[0]).cumsum(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sparse CSR is announced as beta
        return torch.sparse_csr_tensor(starts.int(), column.int(), values, size, check_invariants=False)


@dataclass(frozen=True)
class Roughness:
    """R of Q families of fields on one graph; `weight` (Q, E) are the edges' weights, their length factor included.

    Fields (F, V, S) of a family follow each other, F / Q of them, and share its R.
    """

    graph: Neighbours
    weight: Tensor
    epsilon: float = EPSILON
    coarse: CoarseSpace | None = None  # for preconditioning

    @cached_property
    def on_coarse(self) -> list[Tensor]:
        """(J, J) of each family."""
        return [] if self.coarse is None else [self.coarse.of(matrix) for matrix in self.matrices]

    @cached_property
    def matrices(self) -> list[Tensor]:
        """R of each family, (V, V) sparse CSR."""
        row, column, order = self.graph.layout
        size = (self.graph.count, self.graph.count)
        return [csr(row, column, torch.cat([-w, -w, self.graph.degree(w) + self.epsilon])[order], size) for w in self.weight]

    def families(self, x: Tensor) -> Tensor:
        """(Q, V, F / Q, S) of fields (F, V, S): what one matrix is multiplied with, side by side in memory."""
        return x.unflatten(0, (len(self.weight), -1)).transpose(1, 2).contiguous()

    def apply(self, x: Tensor, times: int = 1) -> Tensor:
        """(F, V, S) R x of every field, `times` times."""
        out = []
        for matrix, y in zip(self.matrices, self.families(x), strict=True):
            flat = y.flatten(1)
            for _ in range(times):
                flat = matrix @ flat
            out.append(flat.view_as(y).transpose(0, 1))
        return torch.cat(out)

    def diagonal(self, strength: Tensor) -> Tensor:
        """(F, V) the diagonal of d R^2, d = `strength` (F,)."""
        square = self.weight**2
        own = [(self.graph.degree(w) + self.epsilon) ** 2 + self.graph.degree(s) for w, s in zip(self.weight, square, strict=True)]
        return strength.unsqueeze(1) * torch.stack(own).repeat_interleave(len(strength) // len(own), dim=0)

    def smooth(self, x: Tensor, steps: int) -> Tensor:
        """(V, S) weighted averages over neighbours, `steps` times, by the first family's weights; a constant stays as it is."""
        matrix, w = self.matrices[0], self.weight[0]
        largest = self.graph.degree(w).max().clamp_min(self.epsilon)
        for _ in range(steps):
            x = x - (matrix @ x - self.epsilon * x) / largest
        return x
