"""How B problems hang together: not at all, through unknowns shared by a group, or through a graph between neighbours.

A coupling answers three questions of the solver: the step that solves the damped normal equations of all problems together, which
problems must be accepted or refused together, and what the coupling itself adds to cost and gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from .linear import inverse_spd, solve_spd


class Coupling(Protocol):
    """See the module's text; A is (B, P, P) with the damping in it, g the gradient (B, P)."""

    def solve(self, normal: Tensor, gradient: Tensor) -> Tensor:
        """(B, P) the x of (normal + coupling) x = gradient."""
        ...

    def pool(self, amount: Tensor) -> Tensor:
        """(B,) each problem's total over all the problems that move together with it."""
        ...

    def energy(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """What the coupling adds: cost per problem (B,) and gradient (B, P)."""
        ...


@dataclass(frozen=True)
class Independent:
    """No coupling: every problem has its own damping, acceptance and end."""

    def solve(self, normal: Tensor, gradient: Tensor) -> Tensor:
        return solve_spd(normal, gradient)

    def pool(self, amount: Tensor) -> Tensor:
        return amount

    def energy(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return theta.new_zeros(theta.shape[0]), torch.zeros_like(theta)


@dataclass(frozen=True)
class Shared:
    """The unknowns in `columns` have one value per group; `group` (B,) numbers the groups from 0. Solved by Schur complement.

    theta keeps a copy of a shared unknown in every member; equal starts stay equal because members receive the same step.
    """

    columns: tuple[int, ...]
    group: Tensor

    @cached_property
    def count(self) -> int:
        """Number of groups; read from the device once, not in every step."""
        return int(self.group.max()) + 1

    def solve(self, normal: Tensor, gradient: Tensor) -> Tensor:
        common = list(self.columns)
        own = [k for k in range(gradient.shape[1]) if k not in self.columns]
        a_cc, g_c = normal[:, common][:, :, common], gradient[:, common]
        step = torch.empty_like(gradient)
        if own:
            a_oo, a_oc = normal[:, own][:, :, own], normal[:, own][:, :, common]
            own_inverse_c, own_inverse_g = solve_spd(a_oo, a_oc), solve_spd(a_oo, gradient[:, own])
            a_cc = a_cc - a_oc.transpose(1, 2) @ own_inverse_c
            g_c = g_c - (a_oc.transpose(1, 2) @ own_inverse_g.unsqueeze(-1)).squeeze(-1)
        common_step = solve_spd(self._sum(a_cc), self._sum(g_c))[self.group]
        step[:, common] = common_step
        if own:
            step[:, own] = own_inverse_g - (own_inverse_c @ common_step.unsqueeze(-1)).squeeze(-1)
        return step

    def covariance(self, normal: Tensor, offset: int = 0) -> Tensor:
        """(B, P, P) marginal covariance of each problem's unknowns when the shared ones are fitted from the whole group.

        `normal` may have further unknowns in front, `offset` of them: amplitudes that the search had eliminated.
        """
        common = [k + offset for k in self.columns]
        own = [k for k in range(normal.shape[1]) if k not in common]
        a_cc = normal[:, common][:, :, common]
        if not own:
            return inverse_spd(self._sum(a_cc))[self.group]
        a_oc = normal[:, own][:, :, common]
        own_inverse = inverse_spd(normal[:, own][:, :, own])
        gain = own_inverse @ a_oc
        common_cov = inverse_spd(self._sum(a_cc - a_oc.transpose(1, 2) @ gain))[self.group]
        order = torch.tensor(own + common, device=normal.device).argsort()
        cross = -gain @ common_cov
        top = torch.cat([own_inverse + gain @ common_cov @ gain.transpose(1, 2), cross], dim=2)
        covariance = torch.cat([top, torch.cat([cross.transpose(1, 2), common_cov], dim=2)], dim=1)
        return covariance[:, order][:, :, order]

    def pool(self, amount: Tensor) -> Tensor:
        return self._sum(amount)[self.group]

    def energy(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return theta.new_zeros(theta.shape[0]), torch.zeros_like(theta)

    def _sum(self, per_problem: Tensor) -> Tensor:
        """Sum over the members of each group: (groups, ...); members that are not finite do not take part."""
        finite = per_problem.reshape(per_problem.shape[0], -1).isfinite().all(dim=1)
        kept = torch.where(finite.reshape(-1, *[1] * (per_problem.ndim - 1)), per_problem, 0.0)
        return per_problem.new_zeros(self.count, *per_problem.shape[1:]).index_add_(0, self.group, kept)


@dataclass(frozen=True)
class Graph:
    """A Gaussian prior between problems: cost 1/2 sum_k (theta_k - mean_k)^T Q_k (theta_k - mean_k), one sparse Q_k (B, B) a column.

    The step comes from conjugate gradients preconditioned by each problem's own block; nothing larger than Q is ever formed.
    """

    precision: tuple[Tensor, ...]  # P sparse (B, B) symmetric positive semi-definite matrices
    mean: Tensor | float = 0.0
    tolerance: float = 1e-6
    max_iterations: int = 200

    def product(self, x: Tensor) -> Tensor:
        """(B, P) Q x, column by column."""
        return torch.stack([torch.mv(q, x[:, k].contiguous()) for k, q in enumerate(self.precision)], dim=1)

    def solve(self, normal: Tensor, gradient: Tensor) -> Tensor:
        diagonal = torch.stack([_sparse_diagonal(q) for q in self.precision], dim=1)
        block = inverse_spd(normal + torch.diag_embed(diagonal))

        def apply(x: Tensor) -> Tensor:
            return (normal @ x.unsqueeze(-1)).squeeze(-1) + self.product(x)

        return conjugate_gradients(apply, gradient, block, self.tolerance, self.max_iterations)

    def pool(self, amount: Tensor) -> Tensor:
        return torch.where(amount.isfinite(), amount, 0.0).sum().expand_as(amount)

    def energy(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        away = theta - self.mean
        pull = self.product(away)
        return 0.5 * (away * pull).sum(dim=1), pull


def conjugate_gradients(apply, rhs: Tensor, block_inverse: Tensor, tolerance: float, max_iterations: int, check_every: int = 10) -> Tensor:
    """x of apply(x) = rhs for a symmetric positive definite operator on (B, P), block-Jacobi preconditioned.

    The end is looked for every `check_every` iterations only, so that a GPU is not stopped at each of them.
    """
    x = torch.zeros_like(rhs)
    r = rhs.clone()
    z = (block_inverse @ r.unsqueeze(-1)).squeeze(-1)
    p, rz = z, (r * z).sum()
    stop = tolerance**2 * (rhs * rhs).sum()
    for iteration in range(max_iterations):
        if iteration % check_every == 0 and bool((r * r).sum() <= stop):
            break
        q = apply(p)
        alpha = rz / (p * q).sum().clamp_min(torch.finfo(rhs.dtype).tiny)
        x, r = x + alpha * p, r - alpha * q
        z = (block_inverse @ r.unsqueeze(-1)).squeeze(-1)
        rz, previous = (r * z).sum(), rz
        p = z + rz / previous.clamp_min(torch.finfo(rhs.dtype).tiny) * p
    return x


def _sparse_diagonal(matrix: Tensor) -> Tensor:
    coo = matrix.to_sparse_coo().coalesce()
    row, column = coo.indices()
    on = row == column
    return torch.zeros(matrix.shape[0], dtype=matrix.dtype, device=matrix.device).index_add_(0, row[on], coo.values()[on])
