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
from ..core.sparse_linear import SparseSolver, factorise
from ..errors import InputError
from .beat import Beat, beats
from .eikonal import EikonalDiffusion
from .fem import Elements
from .lat import MapSolution, with_draws
from .mapfit import MapProblem, Samples, at_nodes
from .model import AlievPanfilov
from .path import USUAL, Choice, choose, doubted
from .starts import laplacian, matched_filter, spline, typical_D

SCAN_A = (0.005, 0.03, 0.08, 0.15)
SCAN_B = (0.05, 0.1, 0.15, 0.2, 0.3)
LEAST_SEEN = 4  # nodes where a front is told: a plane needs three
UPSTROKE = 10.0  # TU after activation that stage 2 looks at
BEFORE = 5.0  # TU before activation that are looked at beside
SEEN, SURE = 30.0, 4.0  # samples over which misfit is averaged, and standard deviations beyond the noise's own from which it counts
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
            build, data, theta, linear, strengths=STRENGTHS, slack=None, seed=seed, progress=lambda done: tell(0.15 + 0.5 * done)
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
        solved = with_draws(first, solution, choice, level, draws, seed)
        return replace(solved, facts=solved.facts | {"T_misfit": missed(element, data, beats([model])[0], solved.T)[1]}), model
    stage1 = with_draws(first, solution, choice, level, 2 if not free else draws, seed)
    beat = beats([model])[0]
    assert data.time is not None
    early = (data.time - data.at(torch.from_numpy(stage1.T)) < UPSTROKE).numpy()
    excess, _ = missed(element, data, beat, stage1.T)
    data = replace(data, sd=(data.sd**2 + data.at(torch.from_numpy(excess))).sqrt())  # the beat is no better known than it fits
    second = build(data.take(early), choice.strength, False, first.active)
    second.rounding = second.tuning.rounding[1]
    theta = solution.theta[: 2 * element.nodes]
    solution = SparseGaussNewton(steps=15, relative=1e-4).solve(second, theta, linear)
    tell(0.95)
    if choice.best != choice.strength:
        solution = doubted(second, solution, choice.best)
    solved = with_draws(second, solution, choice, level, draws, seed)
    T_misfit = missed(element, data.with_sd(level), beat, solved.T)[1]
    return replace(solved, draws_ab=stage1.draws_ab, facts=solved.facts | {"T_misfit": T_misfit}), model


def scan(element, data: Samples, model: AlievPanfilov) -> AlievPanfilov:
    """The pair (a, b) whose beat, moved to its best time everywhere, misses the data least: a start from nothing."""
    for pairs in (lambda m: [replace(m, a=SCAN_A[1], b=b) for b in SCAN_B], lambda m: [replace(m, a=a) for a in SCAN_A]):
        tried = pairs(model)
        model = tried[int(np.argmin([matched_filter(element, data, beat, step=1.0)[2] for beat in beats(tried)]))]
    return model


def missed(element: Elements, data: Samples, beat: Beat, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) mean square of V round each node, near activation, beyond its noise: what no travelling beat explains; and (N,) TU the error of
    T that would make it.

    At a wall the front arrives at once, where a stimulus was given it has another shape, a coarse grid bends T. Beyond the noise is what
    chance would show at one node in many thousands.
    """
    from scipy.sparse import diags

    assert data.time is not None
    s = data.time - data.at(torch.from_numpy(T))
    near = ((s > -BEFORE) & (s < UPSTROKE)).numpy()
    some = data.take(near)
    phi, slope = beat.V_and_slope(s[torch.from_numpy(near)])
    level = float(data.sd.median())
    terms = torch.stack([torch.ones_like(phi), (phi - some.value) ** 2, slope**2], dim=1)
    sums = phi.new_zeros(element.nodes, 3).index_add(0, some.column, some.weight[:, None] * terms[some.row]).numpy()
    K, mass = laplacian(element)
    dimension = element.cells.shape[1] - 1
    reach = SEEN / max(float(sums[:, 0].sum()), 1.0) * mass.sum()  # mm^2 (or mm^3) that hold SEEN samples
    tau = reach ** (2.0 / dimension) / 12.0
    smoother = factorise(diags(mass) + tau * K)
    count, squares, slopes = (mass[:, None] * smoother.solve(sums)).T  # sums over about SEEN samples or a node's, whichever is more
    count, slopes = np.maximum(count, 1e-9), np.maximum(slopes, 1e-9)
    n = np.maximum(count, SEEN)
    excess = np.maximum(squares / count - level**2 * (1.0 + SURE * np.sqrt(2.0 / n)), 0.0)
    return excess, np.sqrt(excess * count / slopes)


def _noise(data: Samples, beat: Beat, T: torch.Tensor) -> float:
    """Robust sd of V about the beat."""
    assert data.time is not None
    off = (beat.V_and_slope(data.time - data.at(T))[0] - data.value).abs()
    return max(1.4826 * float(off.median()), 1e-3)
