"""One large least-squares problem whose residuals each see few unknowns: fields on the nodes of a mesh, and a few numbers beside them.

The residual vector stays the primary object; its Jacobian is kept as coordinates. Gauss-Newton then costs one sparse factorisation a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .solution import Status
from .sparse_linear import BorderedNormal, Normal, SparseSolver


@dataclass(frozen=True)
class Rows:
    """R residuals in units of their standard deviation, and d residual[row] / d theta[column] = value, K coordinates (duplicates add up).

    Robust and edge-preserving terms give the rows of their quadratic majoriser at theta (so that J^T r is their exact gradient) and their
    exact `cost`; plain ones leave it away: 0.5 |r|^2. `dense` (R, C): slopes by the last C unknowns, where each row sees them all.
    """

    residual: Tensor
    row: Tensor
    column: Tensor
    value: Tensor
    exact: Tensor | None = None
    dense: Tensor | None = None

    @property
    def cost(self) -> float:
        return float(0.5 * (self.residual**2).sum() if self.exact is None else self.exact)


class SparseProblem:
    """Subclass with `terms`; theta is (P,)."""

    def terms(self, theta: Tensor) -> dict[str, Rows]:
        """Blocks of rows by name."""
        raise NotImplementedError

    def limit(self, theta: Tensor, step: Tensor) -> Tensor:
        """The step, cut to what the model stands."""
        return step

    def advance(self, theta: Tensor) -> bool:
        """Called before each step, where continuation (rounding, masks) may move on; True while it does: the fit has not ended yet."""
        return False


@dataclass(frozen=True)
class Gaussian:
    """rho(z) = z^2 / 2."""

    def weight(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)

    def rho(self, z: Tensor) -> Tensor:
        return 0.5 * z * z


@dataclass(frozen=True)
class Huber:
    """Quadratic up to `knee` standard deviations, linear beyond (Huber 1964, doi:10.1214/aoms/1177703732)."""

    knee: float = 2.0

    def weight(self, z: Tensor) -> Tensor:
        return self.knee / z.abs().clamp_min(self.knee)

    def rho(self, z: Tensor) -> Tensor:
        far = z.abs()
        return torch.where(far <= self.knee, 0.5 * z * z, self.knee * far - 0.5 * self.knee**2)


@dataclass(frozen=True)
class Contaminated:
    """A share of the data is wrong and says nothing: -log of normal density plus a flat one. The weight is the probability of being right.

    `level`: flat density over the normal's peak, share / (1 - share) * sqrt(2 pi) sd / range.
    """

    level: float = 1e-3

    def weight(self, z: Tensor) -> Tensor:
        good = torch.exp(-0.5 * z * z)
        return good / (good + self.level)

    def rho(self, z: Tensor) -> Tensor:
        return -torch.log((torch.exp(-0.5 * z * z) + self.level) / (1.0 + self.level))


Loss = Gaussian | Huber | Contaminated


def weighted_rows(z: Tensor, row: Tensor, column: Tensor, value: Tensor, loss: Loss, scale: Tensor | None = None) -> Rows:
    """Rows of the majoriser of sum(scale^2 rho(z)) for residuals `z` (R,) with Jacobian coordinates; `scale` (R,) default 1."""
    scale = torch.ones_like(z) if scale is None else scale
    root = scale * loss.weight(z).sqrt()
    return Rows(root * z, row, column, root[row] * value, (scale**2 * loss.rho(z)).sum())


@dataclass(frozen=True)
class SparseSolution:
    """theta (P,), one status, cost per step; `normal` is the undamped information matrix at theta, ready to solve and to draw from."""

    theta: Tensor
    status: Status
    steps: int
    cost: dict[str, float]
    normal: Normal
    history: list[float] = field(default_factory=list)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """(P, count) deviations from theta with covariance (J^T J)^-1: the Laplace approximation."""
        return self.normal.draw(count, seed)


@dataclass(frozen=True)
class SparseGaussNewton:
    """Damped Gauss-Newton (Marquardt's scaling): damping x5 where a step fails, x0.2 where it succeeds.

    Converged: a full step lowered the cost by less than `relative` of it, or promises less than `absolute` (standard deviations squared).
    """

    steps: int = 40
    damping: float = 1e-2
    relative: float = 1e-4
    absolute: float = 1e-2
    tries: int = 8

    def solve(self, problem: SparseProblem, theta: Tensor, linear: SparseSolver | None = None) -> SparseSolution:
        """Minimise the sum of all terms' costs from theta; never raises for a fit that fails, its status says so."""
        linear = linear or SparseSolver()
        mu, history, status, done = self.damping, [], Status.STEP_LIMIT, 0
        theta = theta.clone()
        for _ in range(self.steps):
            moving = problem.advance(theta)
            terms = problem.terms(theta)
            cost = total(terms)
            if not math.isfinite(cost):
                status = Status.NOT_FINITE
                break
            history.append(cost)
            normal = assemble(terms, len(theta))
            for _ in range(self.tries):
                step = linear.solve(normal, -normal.gradient, mu).to(theta)
                candidate = theta + problem.limit(theta, step)
                new = total(problem.terms(candidate))
                if new < cost:
                    break
                mu *= 5.0
            promised = 0.5 * float(-normal.gradient @ step.cpu())
            if not new < cost:
                status = Status.CONVERGED if promised < max(self.absolute, self.relative * cost) else Status.STALLED
                if moving and status == Status.CONVERGED:
                    mu = self.damping
                    continue
                break
            theta, mu, done = candidate, max(0.2 * mu, 1e-6), done + 1
            if not moving and (cost - new < self.relative * cost or promised < self.absolute):
                status = Status.CONVERGED
                break
        terms = problem.terms(theta)
        history.append(total(terms))
        return SparseSolution(theta, status, done, {k: rows.cost for k, rows in terms.items()}, assemble(terms, len(theta)), history)


def total(terms: dict[str, Rows]) -> float:
    return sum(rows.cost for rows in terms.values())


def assemble(terms: dict[str, Rows], columns: int) -> Normal:
    """J and J^T r of all blocks, one above the other."""
    blocks, shift, row = list(terms.values()), 0, []
    for block in blocks:
        row.append(block.row + shift)
        shift += len(block.residual)
    column, value = torch.cat([b.column for b in blocks]), torch.cat([b.value.detach() for b in blocks])
    residual = torch.cat([b.residual.detach() for b in blocks])
    if all(b.dense is None for b in blocks):
        return Normal.of(torch.cat(row), column, value, residual, columns)
    first, dense, slope = 0, [], []
    for block in blocks:
        if block.dense is not None:
            dense.append((first, block.dense.numpy()))
            slope.append(block.dense.T @ block.residual.detach())
        first += len(block.residual)
    many = Normal.of(torch.cat(row), column, value, residual, columns - len(slope[0]))
    return BorderedNormal(many.jacobian, torch.cat([many.gradient, torch.stack(slope).sum(dim=0)]), tuple(dense))
