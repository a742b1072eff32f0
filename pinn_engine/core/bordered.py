"""Normal equations of many unknowns that each see few others, and a few (tens) that see all: coefficients of smooth functions beside the
values on nodes. The few are eliminated last, by the Schur complement, so that the sparse factorisation stays what it was.

    J^T J = [[A, B], [B^T, C]]     A (N, N) sparse, B (N, K), C (K, K) dense; unknowns in this order
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .sparse_linear import Normal, factorise


@dataclass(frozen=True)
class Blocks:
    """A symmetric matrix in four blocks."""

    A: Any
    B: np.ndarray
    C: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return (sum(self.B.shape),) * 2

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        many, few = x[: len(self.B)], x[len(self.B) :]
        return np.concatenate([self.A @ many + self.B @ few, self.B.T @ many + self.C @ few])


class BlockFactor:
    """Solves with `Blocks`; `schur` (K, K) is C - B^T A^-1 B, the information about the few unknowns with the many eliminated."""

    def __init__(self, blocks: Blocks):
        from scipy.linalg import cho_factor

        self.blocks, self.shape = blocks, blocks.shape
        self._factor = factorise(blocks.A)
        self._solved = self._factor.solve(np.ascontiguousarray(blocks.B))
        self.schur = blocks.C - blocks.B.T @ self._solved
        self._small = cho_factor(self.schur)

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """x (N + K,) or (N + K, R)."""
        from scipy.linalg import cho_solve

        n = len(self._solved)
        many = self._factor.solve(np.ascontiguousarray(rhs[:n]))
        few = cho_solve(self._small, rhs[n:] - self.blocks.B.T @ many)
        return np.concatenate([many - self._solved @ few, few])


@dataclass(frozen=True)
class BorderedNormal(Normal):
    """`jacobian` (R, N) of the many unknowns; `dense`: of the few, (first row, (r, K)) for each run of rows that sees them."""

    dense: tuple[tuple[int, np.ndarray], ...] = ()

    @cached_property
    def blocks(self) -> Blocks:
        B = sum(self.jacobian[first : first + len(rows)].T @ rows for first, rows in self.dense)
        return Blocks((self.jacobian.T @ self.jacobian).tocsr(), np.asarray(B), np.asarray(sum(rows.T @ rows for _, rows in self.dense)))

    def diagonal(self) -> np.ndarray:
        return np.concatenate([self.blocks.A.diagonal(), np.diag(self.blocks.C)])

    def shifted(self, extra: np.ndarray) -> Blocks:
        from scipy.sparse import diags

        n = len(self.blocks.B)
        return Blocks(self.blocks.A + diags(extra[:n]), self.blocks.B, self.blocks.C + np.diag(extra[n:]))

    @staticmethod
    def factorise(matrix: Blocks) -> BlockFactor:
        return BlockFactor(matrix)

    @property
    def schur(self) -> np.ndarray:
        """(K, K) information about the few unknowns, the many eliminated."""
        return self._factor.schur

    def draw(self, count: int, seed: int = 0) -> torch.Tensor:
        z = np.random.default_rng(seed).standard_normal((self.jacobian.shape[0], count))
        few = sum(rows.T @ z[first : first + len(rows)] for first, rows in self.dense)
        return torch.from_numpy(self.solve(np.concatenate([self.jacobian.T @ z, few])))
