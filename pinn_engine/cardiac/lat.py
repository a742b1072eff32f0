"""D and activation maps from activation times: a few hundred points with noise, gaps and outliers, or one on every node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import Huber, Loss, SparseGaussNewton, SparseSolution
from ..core.sparse_linear import SparseSolver
from .background import modes
from .basins import Landscape
from .beat import Beat
from .borders import drawn
from .eikonal import EikonalDiffusion
from .mapfit import MapProblem, Samples, Tuning, contaminated
from .model import AlievPanfilov
from .path import PIECES, WARM, Choice, choose, noise_sd, over_background, rounded
from .starts import spline, typical_D

Progress = Callable[[float], None]
SMALLEST_SD = 0.02  # TU (0.26 ms): below it the equation's own error is what is left
DRAWS = 96


@dataclass(frozen=True)
class MapSolution:
    """A fitted map on the solver's nodes: `T` TU, `u` = log D; `draws_T`, `draws_u` (N, K) Laplace deviations, not calibrated."""

    problem: MapProblem
    solution: SparseSolution
    choice: Choice
    noise: float
    draws_T: np.ndarray
    draws_u: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    beat: Beat | None = None
    draws_ab: np.ndarray | None = None  # (2, K) of log a and b, where they were fitted

    @property
    def T(self) -> np.ndarray:
        return self.problem.split(self.solution.theta)[0].numpy()

    @property
    def u(self) -> np.ndarray:
        return self.problem.split(self.solution.theta)[1].numpy()


def fit_lat(
    equation: EikonalDiffusion,
    data: Samples,
    model: AlievPanfilov,
    *,
    sd: float | None = None,
    strength: float | None = None,
    tuning: Tuning | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    progress: Progress | None = None,
) -> MapSolution:
    """T and log D from activation times (TU). `sd` TU of the noise, None = estimated; `strength` of the prior, None = by hold-out."""
    tell = progress or (lambda done: None)
    data = data.with_sd(sd if sd is not None else 0.2)
    T = spline(equation.element, data)
    D0 = typical_D(equation, T, model)
    theta = torch.cat([T, torch.full_like(T, float(np.log(D0)))])
    linear = SparseSolver()
    landscape, starts, begin = _starts(equation, data, T, tuning or Tuning())
    tell(0.05)

    def build(samples: Samples, strength: float, loss: Loss | None = None) -> MapProblem:
        problem = MapProblem(equation, samples, model, D0, strength, loss=loss or Huber(2.0), tuning=tuning)
        problem.landscape, problem.starts, problem.begin = landscape, starts, begin
        return problem

    if sd is None:  # a first fit with a middling prior tells the noise
        for steps in (12, 5):
            problem = build(data, 0.4)
            if steps < 12:
                problem.rounding = problem.tuning.rounding[1]
            rough = SparseGaussNewton(steps=steps, relative=1e-2).solve(problem, theta, linear)
            theta = rough.theta
            data = data.with_sd(max(noise_sd(rough, problem, data), SMALLEST_SD))
        tell(0.25)
    choice = Choice(strength or 0.0)
    if strength is None:
        choice = choose(
            lambda s, k: build(s, k),
            data,
            theta,
            linear,
            seed=seed,
            pieces=PIECES,
            modes=modes(equation, (D0 / model.k) ** 0.5),
            progress=lambda done: tell(0.25 + 0.4 * done),
        )
        assert choice.theta is not None
        theta = choice.theta
    problem = build(data, choice.strength)
    if strength is None:
        problem.rounding = problem.tuning.rounding[1]
    settled = SparseGaussNewton(steps=8, relative=2e-3, damping=WARM).solve(problem, theta, linear)
    tell(0.8)
    level = float(data.sd.median())
    if sd is None:
        level = max(noise_sd(settled, problem, data), SMALLEST_SD)
        data = data.with_sd(level)
    problem = build(data, choice.last, contaminated(level, float(np.ptp(data.value.numpy()))))
    problem.rounding = problem.tuning.rounding[1]
    theta = settled.theta
    if choice.background is not None:
        theta = over_background(problem, choice.background, theta, linear).theta
    if choice.background is not None or choice.spares:
        problem.spare(theta)
    solution = SparseGaussNewton(steps=12, relative=1e-3, damping=WARM).solve(problem, theta, linear)
    lines = drawn(problem, solution.theta, linear) if choice.lines else None
    choice = replace(choice, lines=lines is not None)
    if lines is not None:
        solution = lines
        problem.spare(lines.theta)
    if choice.background is not None:
        solution = rounded(problem, solution)
    tell(0.9)
    return with_draws(problem, solution, choice, level, draws, seed)


def _starts(equation: EikonalDiffusion, data: Samples, T: Tensor, tuning: Tuning) -> tuple[Landscape, Tensor, float]:
    """The mesh as a landscape; by the smoothed times T (N,) TU, (N,) bool where further waves start, and the first one's time.

    Told by the fitted T alone, a start that is a line, or two places, would lose its other nodes to one that falls: the equation would be
    asked to hold there.
    """
    landscape, sd, reach = Landscape.of(equation.element), float(data.sd.median()), tuning.start_time
    found = landscape.starts(T.numpy(), data.nearest().numpy(), data.value.numpy(), sd, reach)
    return landscape, torch.from_numpy(found), float(T.min())


def with_draws(problem: MapProblem, solution: SparseSolution, choice: Choice, noise: float, draws: int, seed: int) -> MapSolution:
    deviations = solution.draw(draws, seed).numpy()
    n = problem.nodes
    return MapSolution(
        problem,
        solution,
        choice,
        noise,
        deviations[:n],
        deviations[n : 2 * n],
        {"D0": problem.D0},
        problem.beat,
        deviations[2 * n :] if problem.free else None,
    )


def outlier_share(fit: MapSolution) -> Tensor:
    """(R,) probability of each observation to be wrong."""
    p = fit.problem
    return 1.0 - p.loss.weight((p.data.at(torch.from_numpy(fit.T)) - p.data.value) / p.data.sd)
