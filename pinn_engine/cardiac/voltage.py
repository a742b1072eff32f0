"""D and activation maps from samples of V: a matched filter finds the activation times, then travelling beat and equation together.

Stage 1 fits T, log D (and a, b where they are unknown) to the whole record; stage 2 fits T and log D to what was seen up to 10 TU after
activation, chosen once by stage 1's T, since the repolarisation is not a pure translate of one beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..core.sparse import Huber, SparseGaussNewton
from ..core.sparse_linear import SparseSolver
from ..errors import InputError
from .beat import Beat, beats
from .eikonal import EikonalDiffusion
from .lat import MapSolution, with_draws
from .mapfit import MapProblem, Samples, at_nodes
from .model import AlievPanfilov
from .path import USUAL, Choice, choose
from .starts import matched_filter, spline, typical_D

SCAN_A = (0.005, 0.03, 0.08, 0.15)
SCAN_B = (0.05, 0.1, 0.15, 0.2, 0.3)
LEAST_SEEN = 4  # nodes where a front is told: a plane needs three
UPSTROKE = 10.0  # TU after activation that stage 2 looks at
STRENGTHS = (1.1, 0.4, 0.13)
Progress = Callable[[float], None]


def fit_voltage(
    equation: EikonalDiffusion,
    data: Samples,
    model: AlievPanfilov,
    *,
    free: bool = False,
    even: bool = False,
    sd: float | None = None,
    strength: float | None = None,
    seed: int = 0,
    draws: int = 96,
    progress: Progress | None = None,
) -> tuple[MapSolution, AlievPanfilov]:
    """T and log D from samples of V (no unit) at times (TU); with `free` also a and b; `even`: one D for all the tissue."""
    tell = progress or (lambda done: None)
    element = equation.element
    if free:
        model = scan(element, data, model)
    tell(0.15)
    beat = beats([model], slopes=free)[0]
    T, sharp, _ = matched_filter(element, data, beat)
    told = (sharp > 0.2 * sharp.median()).numpy()
    if told.sum() < LEAST_SEEN:
        raise InputError("the samples of V", "show no activation", found="a front nowhere", fix="give a record in which V rises from rest")
    T = spline(element, at_nodes(np.flatnonzero(told), T.numpy()[told], 0.2), stiffness=0.3)
    level = sd if sd is not None else _noise(data, beat, T)
    data = data.with_sd(level)
    D0 = typical_D(equation, T, model)
    theta = torch.cat([T, torch.full_like(T, float(np.log(D0)))])
    if free:
        theta = torch.cat([theta, torch.tensor([np.log(model.a), model.b], dtype=torch.float64)])
    linear = SparseSolver()

    def build(samples: Samples, strength: float, free: bool = free, mask: torch.Tensor | None = None) -> MapProblem:
        return MapProblem(equation, samples, model, D0, strength, loss=Huber(3.0), beat=beat, free=free, even=even, mask=mask)

    choice = Choice(strength or 0.4, widening=USUAL)
    if strength is None and not even:
        choice = choose(
            build, data, theta, linear, strengths=STRENGTHS, slack=0.0, seed=seed, progress=lambda done: tell(0.15 + 0.5 * done)
        )
        assert choice.theta is not None
        theta = choice.theta
    first = build(data, choice.strength)
    solution = SparseGaussNewton(steps=12 if even else 25, relative=1e-3 if even else 1e-4).solve(first, theta, linear)
    tell(0.8)
    model = first.parameters(solution.theta)
    if sd is None:
        level = _noise(data, first.beat or beat, first.split(solution.theta)[0])
        data = data.with_sd(level)
    if even:
        return with_draws(first, solution, choice, level, draws, seed), model
    stage1 = with_draws(first, solution, choice, level, 2 if not free else draws, seed)
    beat = beats([model])[0]
    assert data.time is not None
    early = (data.time - data.at(torch.from_numpy(stage1.T)) < UPSTROKE).numpy()
    second = build(data.take(early), choice.strength, False, first.active)
    second.rounding = second.tuning.rounding[1]
    theta = solution.theta[: 2 * element.nodes]
    solution = SparseGaussNewton(steps=15, relative=1e-4).solve(second, theta, linear)
    tell(0.95)
    return replace(with_draws(second, solution, choice, level, draws, seed), draws_ab=stage1.draws_ab), model


def scan(element, data: Samples, model: AlievPanfilov) -> AlievPanfilov:
    """The pair (a, b) whose beat, moved to its best time everywhere, misses the data least: a start from nothing."""
    for pairs in (lambda m: [replace(m, a=SCAN_A[1], b=b) for b in SCAN_B], lambda m: [replace(m, a=a) for a in SCAN_A]):
        tried = pairs(model)
        model = tried[int(np.argmin([matched_filter(element, data, beat, step=1.0)[2] for beat in beats(tried)]))]
    return model


def _noise(data: Samples, beat: Beat, T: torch.Tensor) -> float:
    """Robust sd of V about the beat."""
    assert data.time is not None
    off = (beat.V_and_slope(data.time - data.at(T))[0] - data.value).abs()
    return max(1.4826 * float(off.median()), 1e-3)
