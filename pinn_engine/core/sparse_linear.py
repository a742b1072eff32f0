"""Sparse normal equations, factorised once and solved again by conjugate gradients while the old factor resembles the matrix.

The one module of the core that leans on scipy.sparse: torch has no sparse factorisation.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch


def factorise(matrix: Any) -> Any:
    """Sparse LU of a symmetric positive definite matrix in symmetric mode (no pivoting): minimum degree on A + A^T."""
    from scipy.sparse.linalg import splu

    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


@dataclass(frozen=True)
class Normal:
    """J (R, P) and J^T r; the information matrix J^T J with its factor, each made when first asked for."""

    jacobian: Any
    gradient: torch.Tensor

    @classmethod
    def of(cls, row: torch.Tensor, column: torch.Tensor, value: torch.Tensor, residual: torch.Tensor, columns: int) -> Normal:
        """From J's coordinates (duplicates add up) and r."""
        from scipy.sparse import csr_matrix

        place = (row.cpu().numpy(), column.cpu().numpy())
        jacobian = csr_matrix((value.cpu().numpy(), place), shape=(len(residual), columns))
        return cls(jacobian, torch.from_numpy(jacobian.T @ residual.cpu().numpy()))

    def draw(self, count: int, seed: int = 0) -> torch.Tensor:
        """(P, count) with covariance (J^T J)^-1: J^T z solved for standard normal z."""
        random = np.random.default_rng(seed)
        return torch.from_numpy(self.solve(self.jacobian.T @ random.standard_normal((self.jacobian.shape[0], count))))

    @cached_property
    def matrix(self) -> Any:
        return (self.jacobian.T @ self.jacobian).tocsr()

    def diagonal(self) -> np.ndarray:
        return self.matrix.diagonal()

    def shifted(self, extra: np.ndarray) -> Any:
        """J^T J + diag(extra), to multiply with."""
        from scipy.sparse import diags

        return self.matrix + diags(extra)

    @staticmethod
    def factorise(matrix: Any) -> Any:
        """What solves with a matrix that `shifted` gave."""
        return factorise(matrix)

    @cached_property
    def _factor(self) -> Any:
        diagonal = self.diagonal()
        return self.factorise(self.shifted(1e-10 * diagonal + 1e-12 * diagonal.max()))

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """(J^T J)^-1 rhs, rhs (P,) or (P, K)."""
        return self._factor.solve(np.ascontiguousarray(rhs))


@dataclass(frozen=True)
class Blocks:
    """The symmetric matrix [[A, B], [B^T, C]]: A (N, N) sparse, B (N, K) and C (K, K) dense."""

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
    """Of many unknowns that each see few others, and last a few (tens) that see all: smooth functions' coefficients beside values on nodes.

    `jacobian` (R, N) of the many; `dense`: of the few, (first row, (r, K)) for each run of rows that sees them. The few are eliminated last
    (Schur complement), so that the sparse factorisation stays what it was.
    """

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


class SparseSolver:
    """x of (J^T J + mu diag) x = rhs. The last factor serves as preconditioner as long as `patience` iterations are enough."""

    def __init__(self, patience: int = 8, tolerance: float = 1e-4):
        self.patience, self.tolerance = patience, tolerance
        self._factor: Any = None
        self._failures = 0

    def solve(self, normal: Normal, rhs: torch.Tensor, mu: float) -> torch.Tensor:
        return torch.from_numpy(self._solve(normal, rhs.cpu().numpy(), mu))

    def _solve(self, normal: Normal, rhs: np.ndarray, mu: float) -> np.ndarray:
        diagonal = normal.diagonal()
        matrix = normal.shifted(mu * diagonal + 1e-12 * diagonal.max())
        if self._factor is not None and self._factor.shape == matrix.shape and self._failures < 3:
            x = preconditioned(lambda v: matrix @ v, rhs, self._factor.solve, self.tolerance, self.patience)
            if x is not None:
                return x
            self._failures += 1  # the matrix moves too fast here: do not try for ever
        self._factor = normal.factorise(matrix)
        return self._factor.solve(rhs)


class DeviceSolver:
    """The same by conjugate gradients alone, on any device torch knows (nothing is factorised): for GPUs and for very large meshes."""

    def __init__(self, device: str | torch.device = "cpu", tolerance: float = 1e-6, iterations: int = 5000):
        self.device, self.tolerance, self.iterations = device, tolerance, iterations

    def solve(self, normal: Normal, rhs: torch.Tensor, mu: float) -> torch.Tensor:
        matrix = normal.matrix
        diagonal = matrix.diagonal()
        extra = torch.as_tensor(mu * diagonal + 1e-12 * diagonal.max(), device=self.device)
        inverse = 1.0 / (torch.as_tensor(diagonal, device=self.device) + extra)
        crow, column, value = (torch.as_tensor(x, device=self.device) for x in (matrix.indptr, matrix.indices, matrix.data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls CSR a beta feature
            a = torch.sparse_csr_tensor(crow.long(), column.long(), value, matrix.shape, check_invariants=False)
        b = rhs.to(self.device)
        x = preconditioned(lambda v: a @ v + extra * v, b, lambda r: inverse * r, self.tolerance, self.iterations, keep=True)
        return x


def preconditioned(apply: Any, rhs: Any, precondition: Any, tolerance: float, iterations: int, keep: bool = False) -> Any:
    """Conjugate gradients, arrays or tensors; None where `iterations` do not reach |r| <= tolerance |rhs| (the last x if `keep`)."""
    x, r = 0.0 * rhs, 1.0 * rhs
    z = precondition(r)
    p, rz, goal = z, r @ z, tolerance**2 * float(rhs @ rhs)
    for _ in range(iterations):
        q = apply(p)
        curvature = p @ q
        if not curvature > 0:
            break
        alpha = rz / curvature
        x, r = x + alpha * p, r - alpha * q
        if float(r @ r) <= goal:
            return x
        z = precondition(r)
        rz, before = r @ z, rz
        p = z + (rz / before) * p
    return x if keep else None
