"""D (and a, b) from samples of V when the wave's state at the first frame is not known: spirals, re-entry, break-up.

    minimise  1/2 sum ((V(t; V0, W0, D) - v) / sd)^2 + 1/2 |x|^2 ,   V0 = V* + S_V x_V,  W0 = W* + S_W x_W,  log D, a, b free
V is the simulator's, so the equations hold exactly; W is never observed. S: smooth random fields (Matern) about the state V*, W* of
`cycles.guess`. Gauss-Newton, its steps by conjugate gradients over tangent and adjoint runs, on windows that grow from the first frame
(Pires, Vautard & Talagrand 1996, Tellus A 48, 96-121), so that no front starts far from the data's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.solution import Solution, Status, identifiability
from ..core.sparse_linear import factorise
from ..errors import InputError
from ..files.mesh import Mesh
from .cycles import Guess, guess
from .fem import Diffusion, Elements, Stiffness, elements, stiffness, tensors
from .mapfit import Samples
from .model import AlievPanfilov
from .numbers import Numbers
from .propagate import Frames, Propagator, Run, grid_slowing
from .starts import laplacian

STEP = 0.1  # TU
FIRST_WINDOW = 8.0  # TU; each next one is GROWTH times as long
GROWTH = 2.5
STEPS = (4, 30)  # of Gauss-Newton at most: in the windows that only prepare the next, in the last (break-up takes 25)
HEADROOM = 6.0  # the largest D tried, over the first guess: it sets the stages of a stable step
PRIOR = {"D": 0.5, "a": 0.02, "b": 0.05}  # sd of log D, a, b about where the fit starts: wide
FIELDS = ((0.3, 2.5), (0.5, 6.0))  # sd of V0 and W0 about the guess, and range in front scales sqrt(2 D / k)
SOFT = 0.02  # W at which it is bent to stay positive
BROKEN = 1.3  # chi-squared a sample, over the windows' before: a wave came in that the first frame does not explain
Progress = Callable[[float], None]


@dataclass(frozen=True)
class StateFit(Numbers):
    """`V`, `W` (N, F') are of the F' frames that one state explains.

    `guess_D` where the fit began; `chi2`: mean square of residual over sd; `slowing`: D's correction for the grid.
    """

    guess_D: float
    chi2: float
    slowing: float
    frames: int


class Smooth:
    """Fields of sd `sd` and range `length` mm from white noise x (N, C): S x = sd sqrt(v) (M + length^2 K)^-1 M^(1/2) x."""

    def __init__(self, K: Any, mass: np.ndarray, dimension: int, sd: float, length: float):
        from scipy.sparse import diags

        volume = {2: 4.0 * np.pi * length**2, 3: 8.0 * np.pi * length**3}[dimension]
        self.root = sd * np.sqrt(volume * mass)[:, None]
        self.factor = factorise(diags(mass) + length**2 * K)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.factor.solve(self.root * x.numpy()))

    def transpose(self, y: Tensor) -> Tensor:
        return torch.from_numpy(self.root * self.factor.solve(np.ascontiguousarray(y.numpy())))


@dataclass(frozen=True)
class Window:
    """The observations of the first frames: `data.column` = frame * N + node."""

    frames: Frames
    data: Samples
    nodes: int

    @classmethod
    def first(cls, data: Samples, times: np.ndarray, count: int, nodes: int) -> Window:
        """The samples of the first `count` of `times` (F,)."""
        assert data.time is not None
        frame = torch.from_numpy(np.abs(times[:, None] - data.time.numpy()[None, :]).argmin(axis=0))
        kept = data.take((frame < count).numpy())
        frame = frame[frame < count]
        return cls(Frames.over(times[:count], STEP), replace(kept, column=frame[kept.row] * nodes + kept.column), nodes)

    def seen(self, V: Tensor) -> Tensor:
        """Frames (F, N, C) -> (R, C)."""
        flat = V.reshape(self.frames.count * self.nodes, -1)
        picked = self.data.weight[:, None] * flat[self.data.column]
        return flat.new_zeros(len(self.data.value), flat.shape[1]).index_add(0, self.data.row, picked)

    def spread(self, r: Tensor) -> Tensor:
        """(R, C) -> (F, N, C): the transpose of `seen`."""
        flat = r.new_zeros(self.frames.count * self.nodes, r.shape[1])
        flat = flat.index_add(0, self.data.column, self.data.weight[:, None] * r[self.data.row])
        return flat.reshape(self.frames.count, self.nodes, -1)


@dataclass(frozen=True)
class Prior:
    """What the unknowns mean: theta = (x_V (N,), x_W (N,), (log D - log D0, a - a0, b - b0) over PRIOR)."""

    start: Tensor  # (2, N)
    fields: tuple[Smooth, Smooth]
    D0: float
    model: AlievPanfilov
    names: tuple[str, ...]

    @property
    def nodes(self) -> int:
        return self.start.shape[1]

    def change(self, x: Tensor) -> Tensor:
        """(P, C) -> (2, N, C): what it changes in V0, W0."""
        return torch.stack([self.fields[0](x[: self.nodes]), self.fields[1](x[self.nodes : 2 * self.nodes])])

    def transpose(self, change: Tensor, numbers: Tensor) -> Tensor:
        return torch.cat([self.fields[0].transpose(change[0]), self.fields[1].transpose(change[1]), numbers])

    def state(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """V0, W0 (2, N), and dW0 / d(its field) (N,): W stays positive, below 0 the equations run away."""
        V, W = self.start + self.change(theta[:, None])[..., 0]
        root = torch.sqrt(W**2 + SOFT**2)
        return torch.stack([V, 0.5 * (W + root)]), 0.5 * (1.0 + W / root)

    def numbers(self, theta: Tensor) -> tuple[float, AlievPanfilov]:
        move = {name: PRIOR[name] * value for name, value in zip(self.names, theta[2 * self.nodes :].tolist(), strict=True)}
        D = self.D0 * float(np.exp(np.clip(move.pop("D", 0.0), -20.0, 20.0)))
        model = replace(self.model, **{name: float(getattr(self.model, name)) + by for name, by in move.items()})
        return D, replace(model, a=float(np.clip(model.a, 1e-4, 0.4)))


class StateProblem:
    """One window: the residual, rows (data / sd); the prior's rows are theta itself."""

    def __init__(self, operator: Stiffness, window: Window, prior: Prior):
        self.window, self.prior = window, prior
        self.propagator = Propagator(operator, window.frames, HEADROOM * prior.D0)

    def run(self, theta: Tensor, slopes: bool = False) -> Run | None:
        """None where the unknowns left the model's range."""
        D, model = self.prior.numbers(theta)
        state, _ = self.prior.state(theta)
        if not (0.0 < D <= self.propagator.largest_D and float(state.abs().max()) < 20.0):
            return None
        run = self.propagator.run(state, D, model, self.prior.names if slopes else None)
        return run if bool(torch.isfinite(run.V[-1]).all()) else None

    def residual(self, run: Run) -> Tensor:
        return (self.window.seen(run.V[..., None])[:, 0] - self.window.data.value) / self.window.data.sd

    def linearise(self, theta: Tensor) -> Linearised:
        run = self.run(theta, True)
        if run is None:
            raise InputError("V", "the state at the first frame is outside the model's range", fix="check that V lies between 0 and 1")
        scale = torch.tensor([PRIOR[name] for name in self.prior.names], dtype=torch.float64)
        by = self.window.seen(run.by_numbers()) * scale / self.window.data.sd[:, None]
        return Linearised(self, run, by, self.prior.state(theta)[1][:, None])


@dataclass(frozen=True)
class Linearised:
    """Products of the Jacobian at one theta. `by` (R, P): its columns of the numbers; `W_slope` (N, 1): see Prior.state."""

    problem: StateProblem
    run: Run
    by: Tensor
    W_slope: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """J x: (P, C) -> (R, C)."""
        prior, window = self.problem.prior, self.problem.window
        V, W = prior.change(x)
        seen = window.seen(self.run.tangent(torch.stack([V, self.W_slope * W])))
        return seen / window.data.sd[:, None] + self.by @ x[2 * prior.nodes :]

    def backward(self, r: Tensor) -> Tensor:
        """J^T r: (R, C) -> (P, C)."""
        prior, window = self.problem.prior, self.problem.window
        V, W = self.run.adjoint(window.spread(r / window.data.sd[:, None]))
        return prior.transpose(torch.stack([V, self.W_slope * W]), self.by.T @ r)

    def information(self, x: Tensor) -> Tensor:
        """(J^T J + 1) x"""
        return self.backward(self.forward(x)) + x


@dataclass(frozen=True)
class Minimum:
    theta: Tensor
    at: Linearised
    residual: Tensor
    cost: float
    status: Status
    steps: int
    history: list[float]


def gauss_newton(problem: StateProblem, theta: Tensor, steps: int, iterations: int = 25, relative: float = 1e-3) -> Minimum:
    """Damped by halving the step; ends where the cost falls by less than `relative` of itself."""
    at = problem.linearise(theta)
    r = problem.residual(at.run)
    cost, history, status, done = 0.5 * float(r @ r + theta @ theta), [], Status.STEP_LIMIT, 0
    history.append(cost)
    for done in range(1, steps + 1):  # noqa: B007
        gradient = at.backward(r[:, None])[:, 0] + theta
        move = conjugate(at.information, -gradient[:, None], iterations, 0.03)[:, 0]
        for share in (1.0, 0.5, 0.25, 0.1, 0.03):
            trial = theta + share * move
            new = problem.run(trial)
            if new is not None:
                rn = problem.residual(new)
                lower = 0.5 * float(rn @ rn + trial @ trial)
                if lower < cost:
                    break
        else:
            status = Status.STALLED if len(history) < 2 else Status.CONVERGED
            break
        gained, theta, r, cost = cost - lower, trial, rn, lower
        history.append(cost)
        at = problem.linearise(theta)
        if gained < relative * cost and share == 1.0:
            status = Status.CONVERGED
            break
    return Minimum(theta, at, r, cost, status, done, history)


def conjugate(apply: Callable[[Tensor], Tensor], rhs: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Conjugate gradients on C right sides (P, C) at once; the last x where `iterations` are not enough."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    p, rr = r.clone(), (r * r).sum(0)
    goal = tolerance**2 * rr
    for _ in range(iterations):
        q = apply(p)
        alpha = rr / (p * q).sum(0).clamp_min(1e-300)
        x, r = x + alpha * p, r - alpha * q
        before, rr = rr, (r * r).sum(0)
        if bool((rr <= goal).all()):
            break
        p = r + (rr / before.clamp_min(1e-300)) * p
    return x


def fit_state(
    mesh: Mesh,
    data: Samples,
    times: np.ndarray,
    model: AlievPanfilov,
    names: tuple[str, ...] = ("D",),
    *,
    shape: Diffusion | None = None,
    sd: float | None = None,
    begin: Guess | None = None,
    progress: Progress | None = None,
) -> StateFit:
    """Samples of V at even `times` (F,) TU on `mesh`. `shape`: fibres with D = 1 along them; `sd` of V, None = estimated.

    `begin`: the state and D to start from, None = by the phases of the best cycle.
    """
    tell = progress or (lambda done: None)
    element = elements(mesh)
    operator = stiffness(element, tensors(element, shape or Diffusion(1.0), mesh.fibres))
    first = begin or guess(element, data, times[times - times[0] <= 20.0], mesh.points, model)
    prior = Prior(torch.from_numpy(np.stack([first.V, first.W])), _fields(element, first.D, model), first.D, model, names)
    theta = torch.zeros(2 * prior.nodes + len(names), dtype=torch.float64)
    level = sd if sd is not None else first.misfit**0.5
    sizes = window_sizes(times)
    kept: tuple[StateProblem, Minimum, int] | None = None
    for number, count in enumerate(sizes):
        last = number == len(sizes) - 1
        problem = StateProblem(operator, Window.first(data.with_sd(level), times, count, prior.nodes), prior)
        found = gauss_newton(problem, theta, STEPS[last], relative=1e-3 if last else 5e-3)
        chi2 = float(found.residual.square().mean())
        if kept is not None and chi2 > BROKEN * max(1.0, float(kept[1].residual.square().mean())):
            break
        kept, theta = (problem, found, count), found.theta
        if sd is None:
            level *= chi2**0.5
        tell(0.9 * (number + 1) / len(sizes))
    assert kept is not None
    return _report(mesh, kept, prior, element, first.D)


def window_sizes(times: np.ndarray) -> list[int]:
    """Frames of the windows: FIRST_WINDOW TU, growing to the whole record."""
    step, sizes, length = float(np.diff(times).mean()), [], FIRST_WINDOW
    while length < 0.8 * (times[-1] - times[0]):
        sizes.append(max(3, 1 + int(length / step)))
        length *= GROWTH
    return [*dict.fromkeys(sizes), len(times)]


def _fields(element: Elements, D: float, model: AlievPanfilov) -> tuple[Smooth, Smooth]:
    K, mass = laplacian(element)
    s, dimension = float(model.front_scale(D)), element.cells.shape[1] - 1
    V, W = (Smooth(K, mass, dimension, sd, scales * s) for sd, scales in FIELDS)
    return V, W


def _report(mesh: Mesh, kept: tuple[StateProblem, Minimum, int], prior: Prior, element: Elements, first_D: float) -> StateFit:
    problem, found, count = kept
    names, n = prior.names, len(prior.names)
    run, chi2 = found.at.run, float(found.residual.square().mean())
    D_grid, model = prior.numbers(found.theta)
    slowing = grid_slowing(element, mesh, D_grid, model, problem.window.frames.step)
    D = D_grid * slowing
    unit = torch.zeros(len(found.theta), n, dtype=torch.float64)
    unit[-n:] = torch.eye(n, dtype=torch.float64)
    inverse = conjugate(found.at.information, unit, 60, 0.02)[-n:]
    size = torch.tensor([PRIOR[name] * (D if name == "D" else 1.0) for name in names], dtype=torch.float64)
    covariance = 0.5 * (inverse + inverse.T) * size[:, None] * size * max(chi2, 1.0)
    condition, weakest = identifiability(covariance[None])
    status = Status.AT_BOUND if D_grid > 0.98 * problem.propagator.largest_D else found.status
    values = {name: torch.tensor([D if name == "D" else float(getattr(model, name))]) for name in names}
    one = torch.ones(1)
    solution = Solution(
        names,
        found.theta[None, -n:],
        values,
        torch.tensor([int(status)], dtype=torch.uint8),
        found.cost * one,
        found.steps * one,
        covariance[None],
        condition,
        weakest,
        {"cost": found.history},
    )
    noise = float(problem.window.data.sd[0]) * chi2**0.5
    return StateFit(solution, model, D, run.V.T.numpy(), run.W.T.numpy(), noise, first_D, chi2, slowing, count)
