"""Batched Levenberg-Marquardt, and Adam as the plain alternative.

Every problem has its own damping, acceptance and end; nothing is read back from the device inside a burst of steps. Between bursts finished
problems are set aside, so that the work follows the hard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .couplings import Coupling, Independent, Shared
from .problem import Problem
from .solution import WEAK_DIRECTION, Solution, Status, identifiability, merge, uncertainty

Progress = Callable[[float], None]

LEAST_DAMPING, LEAST_REFUSED, MOST_DAMPING = 1e-7, 0.3, 1e12  # below 0.3 more damping hardly shortens a step


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton (Marquardt 1963, doi:10.1137/0111030) with the gain-ratio damping of Nielsen (1999).

    A problem has converged when the next step promises to lower its cost by less than `relative` of it plus `absolute` (with residuals
    in units of their standard deviation, 1e-6 means: to move by about a thousandth of the standard deviation), or when no coordinate
    would move by more than `smallest_step`: a minimum at a kink of the model is found by the second rule only.
    """

    steps: int = 60
    damping: float = 1e-2
    relative: float = 1e-6
    absolute: float = 0.0
    smallest_step: float = 1e-6
    burst: int = 3

    def solve(self, problem: Problem, theta: Tensor, coupling: Coupling | None = None) -> Solution:
        """Minimise 0.5 |r(theta)|^2 from `theta` (B, P); never raises for a problem that fails, its status says so."""
        coupling = coupling or Independent()
        state = self._start(problem, theta, coupling)
        if theta.shape[1] == 0:  # everything was linear: there is nothing to search for
            state.status = torch.where(state.status == 0, int(Status.CONVERGED), state.status).to(torch.uint8)
            return _finish(problem, state, coupling, {"cost": [float(_mean_finite(state.cost))], "active": [0.0]})
        history: dict[str, list[Tensor]] = {"cost": [_mean_finite(state.cost)], "active": [theta.new_ones(())]}
        rows = torch.arange(theta.shape[0], device=theta.device)
        active, part = problem, state
        for begin in range(0, self.steps, self.burst):
            for _ in range(min(self.burst, self.steps - begin)):
                part = self._step(active, part, coupling)
            state = state.put(rows, part)
            history["cost"].append(_mean_finite(state.cost))
            history["active"].append((state.status == 0).float().mean())
            if isinstance(coupling, Independent):
                keep = (part.status == 0).nonzero().squeeze(1)  # the one read-back a burst
                if len(keep) == 0:
                    break
                if len(keep) < 0.7 * len(rows):
                    rows, part = rows[keep], part.take(keep)
                    active = problem.take(rows)
            elif not bool((part.status == 0).any()):
                break
        state.status = torch.where(state.status == 0, Status.STEP_LIMIT, state.status)
        return _finish(problem, state, coupling, {key: [float(v) for v in values] for key, values in history.items()})

    def _start(self, problem: Problem, theta: Tensor, coupling: Coupling) -> _State:
        residual, jacobian = problem.linearise(theta)
        energy, _ = coupling.energy(theta)
        own = 0.5 * (residual * residual).sum(dim=1) + energy
        broken = ~(own + 0 * jacobian.sum(dim=(1, 2))).isfinite()
        residual = residual.masked_fill(broken[:, None], 0.0)  # so that they move nobody whom they are coupled to
        jacobian = jacobian.masked_fill(broken[:, None, None], 0.0)
        cost = coupling.pool(own)
        status = torch.where(broken, int(Status.NOT_FINITE), 0).to(torch.uint8)
        damping, growth = torch.full_like(cost, self.damping), torch.full_like(cost, 4.0)
        return _State(theta, residual, jacobian, cost, damping, growth, status, torch.zeros_like(status, dtype=torch.int16))

    def _step(self, problem: Problem, s: _State, coupling: Coupling) -> _State:
        _, pull = coupling.energy(s.theta)
        gradient = (s.jacobian * s.residual.unsqueeze(-1)).sum(dim=1) + pull
        normal = s.jacobian.transpose(1, 2) @ s.jacobian if s.theta.shape[1] > 4 else _small_gram(s.jacobian)
        diagonal = normal.diagonal(dim1=1, dim2=2)
        scale = torch.maximum(diagonal, 1e-6 * diagonal.amax(dim=1, keepdim=True)) + torch.finfo(normal.dtype).tiny ** 0.5
        step = -coupling.solve(normal + torch.diag_embed(s.damping.unsqueeze(1) * scale), gradient)
        trial = s.theta + step
        residual, jacobian = problem.linearise(trial)
        own = 0.5 * (residual * residual).sum(dim=1) + coupling.energy(trial)[0]
        cost = coupling.pool(own)
        promised = coupling.pool(-0.5 * (step * gradient).sum(dim=1) + 0.5 * s.damping * (step * scale * step).sum(dim=1))
        gain = (s.cost - cost) / promised.clamp_min(torch.finfo(cost.dtype).tiny)
        live = s.status == 0
        better = (cost + 0 * jacobian.sum(dim=(1, 2)) <= s.cost) & live  # False where trial or derivative is not finite
        flat = (promised <= self.relative * s.cost + self.absolute) & (s.damping <= 1.0)
        still = (step.abs() <= self.smallest_step * (1 + s.theta.abs())).all(dim=1)
        still = still if isinstance(coupling, Independent) else coupling.pool((live & ~still).to(cost.dtype)) == 0
        take = better.to(cost.dtype)
        eased = s.damping * (1 - (2 * gain - 1).clamp(-1, 1) ** 3).clamp_min(0.1)
        damping = _choose(take, eased, (s.damping * s.growth).clamp_min(LEAST_REFUSED)).clamp(LEAST_DAMPING, MOST_DAMPING)
        ended = flat | still
        status = s.status + (live & ended) * int(Status.CONVERGED) + (live & ~ended & (damping >= MOST_DAMPING)) * int(Status.STALLED)
        return _State(
            _choose(take, trial, s.theta),
            _choose(take, residual, s.residual),
            _choose(take, jacobian, s.jacobian),
            _choose(take, cost, s.cost),
            damping,
            4.0 * (1 + (1 - take) * (s.growth - 1)),
            status.to(torch.uint8),
            s.steps + live.to(torch.int16),
        )


@dataclass(frozen=True)
class Adam:
    """First-order descent on the same 0.5 |r|^2 (Kingma & Ba 2015, arXiv:1412.6980), learning rate decayed to `rate * final` by a cosine.

    Converged means that a full Gauss-Newton step from the end would lower the cost by less than `relative` of it.
    """

    steps: int = 2000
    rate: float = 1e-2
    final: float = 0.01
    relative: float = 1e-3

    def solve(
        self, problem: Problem, theta: Tensor, coupling: Coupling | None = None, part: Callable[[int], Problem] | None = None
    ) -> Solution:
        """As `LevenbergMarquardt.solve`; problems do not influence each other since Adam works elementwise.

        `part(step)`: what that step sees instead of the whole problem, a share of its rows that stands for all (mini-batches).
        """
        coupling = coupling or Independent()
        x = theta.detach().clone().requires_grad_(True)
        optimiser = torch.optim.Adam([x], lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps, eta_min=self.rate * self.final)
        costs = []
        for step in range(self.steps):
            optimiser.zero_grad()
            seen = part(step) if part else problem
            cost = 0.5 * (seen.residual(x) ** 2).sum(dim=1) + coupling.energy(x)[0]
            usable = torch.where(cost.isfinite(), cost, 0.0)
            usable.sum().backward()
            x.grad = torch.nan_to_num(x.grad) if x.grad is not None else None
            if isinstance(coupling, Shared) and x.grad is not None:
                for k in coupling.columns:
                    x.grad[:, k] = coupling.pool(x.grad[:, k])
            if step % max(1, self.steps // 50) == 0:
                costs.append(_mean_finite(cost.detach()))
            optimiser.step()
            schedule.step()
        steps = torch.full((len(x),), self.steps, dtype=torch.int16, device=x.device)
        return judged(
            problem, x.detach(), coupling, self.relative, steps, {"cost": [float(c) for c in costs], "active": [1.0] * len(costs)}
        )


@torch.no_grad()
def judged(
    problem: Problem, theta: Tensor, coupling: Coupling, relative: float, steps: Tensor, history: dict[str, list[float]]
) -> Solution:
    """The solution of a search without second derivatives: converged where a full Gauss-Newton step would gain less than `relative`."""
    residual, jacobian = problem.linearise(theta)
    energy, pull = coupling.energy(theta)
    own = 0.5 * (residual * residual).sum(dim=1) + energy
    gradient = (jacobian * residual.unsqueeze(-1)).sum(dim=1) + pull
    normal = jacobian.transpose(1, 2) @ jacobian
    ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True) + torch.finfo(own.dtype).tiny
    step_on = coupling.solve(normal + torch.diag_embed(ridge.expand_as(gradient)), gradient)
    settled = coupling.pool(0.5 * (step_on * gradient).sum(dim=1)) <= relative * coupling.pool(own)
    status = torch.where(settled, int(Status.CONVERGED), int(Status.STEP_LIMIT))
    status = torch.where(own.isfinite(), status, int(Status.NOT_FINITE)).to(torch.uint8)
    state = _State(theta, residual, jacobian, coupling.pool(own), own, own, status, steps)
    return _finish(problem, state, coupling, history)


Solver = LevenbergMarquardt | Adam


def solve_in_chunks(
    solver: Solver,
    build: Callable[[Tensor], tuple[Problem, Tensor]],
    chunks: Iterable[Tensor],
    progress: Progress | None = None,
) -> Solution:
    """Solve any number of independent problems in bounded memory: `build(rows)` makes the problem and its start for one chunk of rows."""
    parts = []
    for k, rows in enumerate(pieces := list(chunks)):
        problem, theta = build(rows)
        parts.append(solver.solve(problem, theta))
        if progress:
            progress((k + 1) / len(pieces))
    return merge(parts)


@dataclass
class _State:
    theta: Tensor
    residual: Tensor
    jacobian: Tensor
    cost: Tensor
    damping: Tensor
    growth: Tensor  # factor by which the damping grows at the next refusal
    status: Tensor
    steps: Tensor

    def take(self, rows: Tensor) -> _State:
        return _State(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def put(self, rows: Tensor, part: _State) -> _State:
        if part.theta.shape[0] == self.theta.shape[0]:
            return part
        for name in self.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(part, name)
        return self


def _mean_finite(cost: Tensor) -> Tensor:
    return torch.where(cost.isfinite(), cost, torch.nan).nanmean().nan_to_num()


def _choose(take: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` where `take` (B,) is 1, `old` where it is 0: by multiplication, for `where` takes ten times as long on a CPU."""
    share = take.reshape(-1, *[1] * (new.ndim - 1))
    return torch.nan_to_num(new) * share + old * (1 - share)


def _small_gram(jacobian: Tensor) -> Tensor:
    """J^T J for a handful of columns, elementwise: faster than a batched matrix product of such small matrices."""
    return (jacobian.unsqueeze(-1) * jacobian.unsqueeze(-2)).sum(dim=1)


def _finish(problem: Problem, state: _State, coupling: Coupling, history: dict[str, list[float]]) -> Solution:
    """Values, covariance and the final word on each problem: a bound or an undetermined combination overrules "converged"."""
    names = problem.names
    values = problem.values(state.theta)
    fitted = (state.status != Status.NOT_FINITE).to(state.theta.dtype)
    jacobian = torch.nan_to_num(problem.sensitivities(state.theta)) * fitted[:, None, None]  # what was not fitted informs nobody
    covariance, condition, weakest = uncertainty(jacobian, len(names))
    if isinstance(coupling, Shared):
        information = jacobian.double().transpose(1, 2) @ jacobian.double()
        covariance = coupling.covariance(information, jacobian.shape[2] - state.theta.shape[1])[:, : len(names), : len(names)]
        condition, weakest = identifiability(covariance)
    status = state.status
    if names:
        ended = (status == Status.CONVERGED) | (status == Status.STALLED) | (status == Status.STEP_LIMIT)
        status = torch.where(ended & (condition > WEAK_DIRECTION), int(Status.UNDETERMINED), status)
        status = torch.where(ended & problem.at_bound(state.theta), int(Status.AT_BOUND), status).to(torch.uint8)
    return Solution(names, state.theta, values, status, state.cost, state.steps, covariance, condition, weakest, history)
