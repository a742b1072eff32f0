"""One problem with some thousand unknowns and any number of rows: Gauss-Newton whose normal equations are summed over chunks of rows.

`LevenbergMarquardt` keeps the Jacobians of many small problems; here J (R, P) is never held whole: a problem hands over blocks of rows, and
J^T J (P, P) is all that stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from .solution import Status


@dataclass(frozen=True)
class Block:
    """Residuals (R,), and their Jacobian (R, Q) by the unknowns `columns` (Q,), the only ones that they depend on."""

    row: Tensor
    jacobian: Tensor | None = None
    columns: Tensor | None = None


class StreamedProblem:
    """Subclass with `blocks`: theta is (P,), rows are in units of their standard deviation.

    `chain`: sizes of consecutive groups of unknowns that share rows with their neighbours in the chain only (time windows); what follows
    them in theta (numbers) may share rows with all. Solving then costs as much as the groups one by one.
    """

    chain: tuple[int, ...] = ()

    def blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        """Some thousand rows at a time; without `slopes` the Jacobians are left away."""
        raise NotImplementedError

    def cost(self, theta: Tensor) -> float:
        """0.5 |r|^2."""
        with torch.no_grad():
            return sum(0.5 * float((block.row.double() ** 2).sum()) for block in self.blocks(theta, False))

    def normal(self, theta: Tensor) -> tuple[float, Tensor, Tensor]:
        """Cost, J^T r (P,) and J^T J (P, P), float64."""
        cost, gradient, matrix = 0.0, theta.new_zeros(len(theta)), theta.new_zeros(len(theta), len(theta))
        with torch.no_grad():
            for block in self.blocks(theta, True):
                assert block.jacobian is not None
                cost += 0.5 * float((block.row.double() ** 2).sum())
                slope, square = block.jacobian.T @ block.row, gram(block.jacobian)
                if block.columns is None:
                    gradient += slope
                    matrix += square
                else:
                    gradient[block.columns] += slope.to(gradient.dtype)
                    matrix[block.columns[:, None], block.columns] += square.to(matrix.dtype)
        return cost, gradient, matrix

    def slope(self, theta: Tensor) -> Tensor:
        """J^T r (P,) alone."""
        gradient = theta.new_zeros(len(theta))
        with torch.no_grad():
            for block in self.blocks(theta, True):
                assert block.jacobian is not None
                at = slice(None) if block.columns is None else block.columns
                gradient[at] += (block.jacobian.T @ block.row).to(gradient.dtype)
        return gradient

    def limit(self, theta: Tensor, step: Tensor) -> Tensor:
        """The step, cut to what the model stands."""
        return step


def gram(J: Tensor, parts: int = 3) -> Tensor:
    """J^T J (Q, Q) of J (R, Q); what lies below the diagonal blocks is copied, not computed."""
    edges = torch.linspace(0, J.shape[1], parts + 1).long().tolist()
    out = J.new_empty(J.shape[1], J.shape[1])
    for low, high in pairwise(edges):
        out[low:high, low:] = J[:, low:high].T @ J[:, low:]
        out[high:, low:high] = out[low:high, high:].T
    return out


@dataclass(frozen=True)
class StreamedSolution:
    """theta (P,), how it ended, and the cost per step."""

    theta: Tensor
    status: Status
    steps: int
    history: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StreamedGaussNewton:
    """Levenberg-Marquardt with Nielsen's damping, relative to the diagonal of J^T J; `floor`: of that diagonal, as a share of its mean."""

    steps: int = 30
    damping: float = 1e-2
    relative: float = 1e-4
    absolute: float = 1e-12
    floor: float = 1e-6
    tries: int = 6

    def solve(self, problem: StreamedProblem, theta: Tensor, tell: Callable[[int, float], None] | None = None) -> StreamedSolution:
        """Minimise from theta (P,) float64; never raises for a fit that fails, its status says so."""
        theta, mu, status, done = theta.clone(), self.damping, Status.STEP_LIMIT, 0
        history: list[float] = []
        for _ in range(self.steps):
            cost, gradient, matrix = problem.normal(theta)
            if not math.isfinite(cost):
                return StreamedSolution(theta, Status.NOT_FINITE, done, history)
            history.append(cost)
            diagonal = matrix.diagonal()
            scale = diagonal.clamp_min(self.floor * float(diagonal.mean()))
            growth, new, promised = 4.0, math.inf, 0.0
            for _ in range(self.tries):
                solved = solve_chain(matrix, mu * scale, -gradient[:, None], problem.chain)
                if solved is not None:
                    step = problem.limit(theta, solved[:, 0])
                    promised = -float(step @ gradient) - 0.5 * float(step @ (matrix @ step))
                    new = problem.cost(theta + step)
                    if new < cost:
                        break
                mu, growth = max(mu * growth, 1e-8), 2.0 * growth
            if not new < cost:
                status = Status.CONVERGED if promised <= self.relative * cost + self.absolute else Status.STALLED
                break
            gain = (cost - new) / max(promised, 1e-300)
            theta, done = theta + step, done + 1
            mu = max(mu * max(0.1, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3), 1e-10)
            if tell:
                tell(done, new)
            if cost - new <= self.relative * cost + self.absolute and gain > 0.25:
                status = Status.CONVERGED
                history.append(new)
                break
        return StreamedSolution(theta, status, done, history)


def solve_chain(matrix: Tensor, extra: Tensor, rhs: Tensor, chain: tuple[int, ...] = ()) -> Tensor | None:
    """x (P, K) of (matrix + diag(extra)) x = rhs; None where that is not positive definite. Only the chain's own blocks are looked at."""
    size, sizes = len(matrix), chain or (len(matrix),)
    edges = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    inner = edges[-1]
    wide = torch.cat([rhs[:inner], matrix[:inner, inner:]], dim=1)  # right-hand sides, then the border's columns
    factors: list[Tensor] = []
    links: list[Tensor] = []
    forth: list[Tensor] = []
    for k, (low, high) in enumerate(pairwise(edges)):
        block, right = matrix[low:high, low:high] + torch.diag(extra[low:high]), wide[low:high]
        if k:
            before = slice(edges[k - 1], low)
            link = torch.linalg.solve_triangular(factors[-1], matrix[before, low:high], upper=False)
            block, right = block - link.T @ link, right - link.T @ forth[-1]
            links.append(link)
        factor, info = torch.linalg.cholesky_ex(block)
        if int(info):
            return None
        factors.append(factor)
        forth.append(torch.linalg.solve_triangular(factor, right, upper=False))
    half = torch.cat(forth)
    count, back = rhs.shape[1], half
    border = None
    if size > inner:
        corner = matrix[inner:, inner:] + torch.diag(extra[inner:]) - half[:, count:].T @ half[:, count:]
        factor, info = torch.linalg.cholesky_ex(corner)
        if int(info):
            return None
        border = torch.cholesky_solve(rhs[inner:] - half[:, count:].T @ half[:, :count], factor)
        back = half[:, :count] - half[:, count:] @ border
    parts: list[Tensor] = []
    for k in reversed(range(len(sizes))):
        right = back[edges[k] : edges[k + 1]]
        if parts:
            right = right - links[k] @ parts[0]
        parts.insert(0, torch.linalg.solve_triangular(factors[k].T, right, upper=True))
    return torch.cat(parts if border is None else [*parts, border])


@dataclass(frozen=True)
class StreamedAdam:
    """First-order warm-up (Kingma & Ba 2015, arXiv:1412.6980): every step sees another small part of the rows; rate falling to a tenth."""

    steps: int = 300
    rate: float = 1e-2

    def solve(self, part: Callable[[int], StreamedProblem], theta: Tensor) -> Tensor:
        """theta (P,) after `steps` on the problems part(0), part(1), ..."""
        theta, mean, square = theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta)
        for step in range(self.steps):
            problem = part(step)
            gradient = torch.nan_to_num(problem.slope(theta))
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            rate = self.rate * (1.0 - 0.9 * step / self.steps)
            theta = theta - rate * (mean / (1.0 - 0.9 ** (step + 1))) / ((square / (1.0 - 0.999 ** (step + 1))).sqrt() + 1e-12)
        return theta
