"""How strong the prior on log D is: chosen by the data it did not see. And how large the noise is, where nobody said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import SparseGaussNewton, SparseSolution, assemble
from ..core.sparse_linear import BorderedNormal, SparseSolver
from .background import Background, Modes
from .borders import drawn
from .mapfit import MapProblem, Samples

STRENGTHS = (1.1, 0.4, 0.13, 0.04)  # in 1/l0, see mapfit
HELD_OUT = 0.25
WORSE = 1.05  # the path ends where a weaker prior predicts this much worse than the best so far
SLACK = 0.02  # how much worse than the best a stronger prior may predict and still be taken
USUAL = 0.8  # width of intervals that cover as they say over Laplace's: between 0.45 (one sharp scar) and 1.1 (uneven everywhere)
WARM = 1e-5  # damping of a fit that starts near its end: with more, a scar moves up or down as a whole in dozens of small steps
PIECES = 0.3  # 1/l0: where no weaker prior predicts as well, a map is of pieces; uneven ones lose cover by sparing their steep places
GUARD = 0.15  # how much worse a background, or lines, may predict: the evidence, and what the map gains by them, tell more
UNDER = 0.4  # 1/l0: strength over a smooth background, which takes the waves that else ask for a weaker one
DRAWN = 0.03  # rounding of |grad u| l0 with which intervals over a background are drawn
SURE = 2.0  # standard errors of a mean difference on the same held-out data from which it is no chance
CAP = 9.0  # of a squared standardised error: one outlier must not choose the prior

Build = Callable[[Samples, float], MapProblem]  # data, strength -> problem


@dataclass(frozen=True)
class Choice:
    """The strength chosen and every one tried: mean capped squared prediction error over its expected value."""

    strength: float
    scores: dict[float, float] = field(default_factory=dict)
    theta: Tensor | None = None
    widening: float = 1.0  # calibration of the Laplace intervals by the held-out data, see `widening`
    spared: float | None = None  # score with steep places spared (`MapProblem.spare`), where that was tried
    spares: bool = False  # and whether it was taken
    under: float | None = None  # score with a smooth background under the pieces, where the evidence asked for one
    background: Background | None = None  # and that, where it was taken
    lined: float | None = None  # score with borders of scars as lines (`borders.py`) over that background, where there are scars
    lines: bool = False  # and whether they were taken

    @property
    def best(self) -> float:
        """Strength that predicts best; the one given where none was tried."""
        return min(self.scores, key=lambda strength: self.scores[strength]) if self.scores else self.strength

    @property
    def last(self) -> float:
        """Strength of the last fit."""
        return self.strength if self.background is None else UNDER


def choose(
    build: Build,
    data: Samples,
    theta: Tensor,
    linear: SparseSolver,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    steps: int = 5,
    slack: float | None = SLACK,
    pieces: float = np.inf,
    modes: Modes | None = None,
    progress: Callable[[float], None] | None = None,
) -> Choice:
    """Fit three quarters of the data along a path from strong to weak, each from the last, and score the rest.

    Taken is the strongest that predicts at most `slack` worse than the best; None: no worse than chance makes it on these data.
    Where no strength below `pieces` predicts as well, steep places are spared if that predicts at most `slack` worse. Else a smooth
    background of these `modes` is laid under the pieces, if the evidence asks for one and it does not predict much worse. Where it asks
    for none, steep places are spared after all unless that is shown to predict worse.
    """
    kept, held = parted(data, seed)
    scores: dict[float, float] = {}
    losses: dict[float, Tensor] = {}
    states: dict[float, Tensor] = {}
    best: Tensor = theta
    width = 1.0
    for number, strength in enumerate(strengths):
        problem = build(kept, strength)
        if number:
            problem.rounding = problem.tuning.rounding[1]
        newton = SparseGaussNewton(steps, relative=2e-3, damping=WARM) if number else SparseGaussNewton(steps + 7, relative=2e-3)
        solution = newton.solve(problem, theta, linear)
        theta = states[strength] = solution.theta
        losses[strength] = prediction_losses(problem, held, theta)
        scores[strength] = float(losses[strength].mean())
        if scores[strength] <= min(scores.values()):
            best, width = theta, widening(problem, solution, held)
        if progress:
            progress((number + 1) / len(strengths))
        if scores[strength] > WORSE * min(scores.values()):
            break
    if slack is None:
        return Choice(strongest_by_chance(losses), scores, best, width)
    choice = Choice(strongest(scores, slack), scores, best, width)
    at = choice.best
    spared: Spared | None = None
    if weakest(scores, slack) >= pieces:
        spared = Spared.of(build(kept, at), held, best, linear, steps)
        choice = spared.told(choice, taken=spared.score <= (1.0 + slack) * scores[at])
    if modes is None or choice.spares:
        return choice
    near = min(states, key=lambda tried: abs(np.log(tried / choice.strength)))  # borders as they will be found at that strength
    choice = _with_background(choice, build(kept, UNDER), held, states[near], linear, modes, (1.0 + GUARD) * scores[at])
    if choice.under is not None or spared is None:  # the evidence asked for a background, or borders are not to be spared at all
        return choice
    return spared.told(choice, taken=not shown(spared.losses - losses[at], SURE))


def shown(worse: Tensor, errors: float) -> bool:
    """Whether one fit is shown to predict worse than another: paired differences of loss (R,) on the same held-out data.

    Their noise is the same for both and drops out; the mean must exceed so many of its standard `errors`.
    """
    return float(worse.mean()) > errors * float(worse.std()) / len(worse) ** 0.5


@dataclass(frozen=True)
class Spared:
    """A fit that spares the steep places of another, and its losses (R,) on the held-out data."""

    problem: MapProblem
    solution: SparseSolution
    held: Samples
    losses: Tensor

    @classmethod
    def of(cls, problem: MapProblem, held: Samples, theta: Tensor, linear: SparseSolver, steps: int) -> Spared:
        solution = sparing(problem, theta, linear, steps)
        return cls(problem, solution, held, prediction_losses(problem, held, solution.theta))

    @property
    def score(self) -> float:
        return float(self.losses.mean())

    def told(self, choice: Choice, taken: bool) -> Choice:
        if not taken:
            return replace(choice, spared=self.score)
        return replace(choice, spared=self.score, spares=True, widening=widening(self.problem, self.solution, self.held))


def _with_background(
    choice: Choice, problem: MapProblem, held: Samples, theta: Tensor, linear: SparseSolver, modes: Modes, allowed: float
) -> Choice:
    solution = over_background(problem, modes.background(), theta, linear)
    assert isinstance(solution.normal, BorderedNormal)
    assert problem.background is not None
    reach = modes.asked_reach(solution.normal, problem.background, solution.theta[2 * problem.nodes :].numpy())
    if reach is None:
        return choice
    problem.background = modes.background(reach)
    solution = sparing(problem, solution.theta, linear)
    score = prediction_error(problem, held, solution.theta)
    if score > allowed:
        return replace(choice, under=score)
    width = widening(problem, rounded(problem, solution), held)
    choice = replace(choice, widening=width, under=score, background=problem.background)
    return _with_lines(choice, problem, held, drawn(problem, solution.theta, linear), (1.0 + GUARD) * score)


def _with_lines(choice: Choice, problem: MapProblem, held: Samples, lines: SparseSolution | None, allowed: float) -> Choice:
    if lines is None:
        return choice
    score = prediction_error(problem, held, lines.theta)
    if score > allowed:
        return replace(choice, lined=score)
    problem.spare(lines.theta)
    return replace(choice, lined=score, lines=True, widening=widening(problem, rounded(problem, lines), held))


def over_background(problem: MapProblem, background: Background, theta: Tensor, linear: SparseSolver) -> SparseSolution:
    """A fit of few steps with this background laid under the pieces of `theta` = T, u, their borders spared."""
    problem.background = background
    return sparing(problem, torch.cat([theta, torch.zeros_like(background.sd)]), linear)


def sparing(problem: MapProblem, theta: Tensor, linear: SparseSolver, steps: int = 6) -> SparseSolution:
    """A fit of few steps from theta that spares the steep places it has there."""
    problem.rounding = problem.tuning.rounding[1]
    problem.spare(theta)
    return SparseGaussNewton(steps, relative=2e-3, damping=WARM).solve(problem, theta, linear)


def rounded(problem: MapProblem, solution: SparseSolution) -> SparseSolution:
    """With the information of a total variation that is rounded more: the sharp one takes the borders of pieces for known."""
    problem.rounding = DRAWN
    return informed(problem, solution)


def doubted(problem: MapProblem, solution: SparseSolution, strength: float) -> SparseSolution:
    """With the information of another prior: a stronger one than predicts best, which nothing spoke against, knows no more than that."""
    own, problem.strength = problem.strength, strength
    solution = informed(problem, solution)
    problem.strength = own
    return solution


def informed(problem: MapProblem, solution: SparseSolution) -> SparseSolution:
    """The solution with the information of the problem as it is now."""
    return replace(solution, normal=assemble(problem.terms(solution.theta), len(solution.theta)))


def parted(data: Samples, seed: int) -> tuple[Samples, Samples]:
    """What is fitted and what is held out."""
    test = np.zeros(len(data.value), bool)
    test[np.random.default_rng(seed).permutation(len(test))[: max(2, round(HELD_OUT * len(test)))]] = True
    return data.take(~test), data.take(test)


def strongest(scores: dict[float, float], slack: float) -> float:
    """The strongest prior that predicts at most `slack` (a share) worse than the best, scores interpolated over log strength.

    Held-out times judge T, and T forgives a weak prior longer than D does.
    """
    tried = sorted(scores)
    at = min(range(len(tried)), key=lambda i: scores[tried[i]])
    allowed = (1.0 + slack) * scores[tried[at]]
    while at + 1 < len(tried) and scores[tried[at + 1]] <= allowed:
        at += 1
    if at + 1 == len(tried):
        return tried[at]
    share = (allowed - scores[tried[at]]) / (scores[tried[at + 1]] - scores[tried[at]])
    return float(tried[at] * (tried[at + 1] / tried[at]) ** share)


def strongest_by_chance(losses: dict[float, Tensor]) -> float:
    """The strongest prior whose losses (R,) on the held-out data are, in the mean, within one standard error of the best one's.

    The one-standard-error rule of Breiman et al. 1984, paired: held-out V judges T first, and D by little.
    """
    tried = sorted(losses)
    at = best = min(range(len(tried)), key=lambda i: float(losses[tried[i]].mean()))
    while at + 1 < len(tried) and not shown(losses[tried[at + 1]] - losses[tried[best]], 1.0):
        at += 1
    return tried[at]


def weakest(scores: dict[float, float], slack: float) -> float:
    """The weakest prior tried that predicts at most `slack` (a share) worse than the best, with every one between them."""
    tried = sorted(scores, reverse=True)
    at = min(range(len(tried)), key=lambda i: scores[tried[i]])
    while at + 1 < len(tried) and scores[tried[at + 1]] <= (1.0 + slack) * min(scores.values()):
        at += 1
    return tried[at]


def widening(problem: MapProblem, solution: SparseSolution, held: Samples, draws: int = 32) -> float:
    """How much wider (> 1) or narrower the Laplace intervals must be to explain the errors of prediction at held-out data.

    Errors of prediction are noise (variance 1 in units of sd) plus the error of T. The excess over 1, capped like the error itself, is
    compared with what Laplace's draws predict. A few dozen points tell it to some tens of per cent only: the figure is drawn half way (in
    logarithm) to `USUAL`, what phantoms that no fit was tuned on needed, and kept within a factor of two of it.
    """
    if held.time is not None:
        return USUAL
    deviations = solution.draw(draws)[: problem.nodes]
    at = torch.stack([held.at(deviations[:, k]) for k in range(draws)], dim=1) / held.sd[:, None]
    predicted = float((at**2).mean(dim=1).clamp_max(CAP).mean())
    excess = max(prediction_error(problem, held, solution.theta) - 1.0, 0.0)
    own = (excess / max(predicted, 1e-9)) ** 0.5
    return float(np.clip((max(own, 1e-3) * USUAL) ** 0.5, 0.5 * USUAL, 2.0 * USUAL))


def prediction_error(problem: MapProblem, held: Samples, theta: Tensor) -> float:
    """Mean over held-out observations of min(z^2, 9)."""
    return float(prediction_losses(problem, held, theta).mean())


def prediction_losses(problem: MapProblem, held: Samples, theta: Tensor) -> Tensor:
    """(R,) min(z^2, 9) of every held-out observation."""
    where = held.at(problem.split(theta)[0])
    if held.time is None:
        z = (where - held.value) / held.sd
    else:
        assert problem.beat is not None
        z = (problem.beat.V_and_slope(held.time - where)[0] - held.value) / held.sd
    return (z**2).clamp_max(CAP)


def noise_sd(solution: SparseSolution, problem: MapProblem, data: Samples, draws: int = 16) -> float:
    """Robust sd of the data about the fit, enlarged for the degrees of freedom that the fit used (found by random draws)."""
    T = problem.split(solution.theta)[0]
    off = (data.at(T) - data.value).numpy()
    deviations = solution.draw(draws)[: problem.nodes]
    at = torch.stack([data.at(deviations[:, k]) for k in range(draws)], dim=1)
    weight = problem.loss.weight((torch.from_numpy(off)) / data.sd).numpy()
    used = float(np.mean(((at / data.sd[:, None]) ** 2).mean(dim=1).numpy() * weight))
    raw = 1.4826 * float(np.median(np.abs(off)))
    return raw / max(1.0 - used, 0.1) ** 0.5
