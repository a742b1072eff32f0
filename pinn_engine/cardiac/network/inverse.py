"""D (and a, b), V and the hidden W from samples of V, where tissue fires more than once: a chain of networks, one a time window.

First the data alone by Adam, then Gauss-Newton on data, equations and seams, the equations' strength raised tenfold from stage to stage:
weak equations let a network follow the noise and D falls (zero D suits a noisy field best); so the last strengths are the ones to trust,
and the misfit of held-out samples says whether the network can still carry them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ...core import MLP
from ...core.gauss_newton import Block, StreamedAdam, StreamedGaussNewton, solve_chain
from ..model import AlievPanfilov
from .places import Places
from .windows import InverseProblem, Observed, Points, Windows, pieces

NUMBER_FLOOR = {"D": 0.15, "a": 0.006, "b": 0.004}  # sd by the networks' own error (D relative: three spirals, 13 to 18 % low)


@dataclass(frozen=True)
class Settings:
    """How an inverse fit is made."""

    width: int = 24
    depth: int = 2
    window: float = 2.5  # TU
    most_windows: int = 10  # J^T J of all windows is kept whole
    warm_up: int = 300
    strengths: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0, 1000.0)
    steps: int = 12  # of Gauss-Newton on one set of points
    points: int = 8000
    front: float = 0.6  # share of the points drawn where V moves
    held_out: float = 0.1
    worse: float = 1.05  # a stage whose held-out misfit is this much above the best is not taken
    seed: int = 0


@dataclass(frozen=True)
class FieldFit:
    """`values` and `std` of the numbers (inner units), fields at will by `fields`, and how it went stage by stage."""

    windows: Windows
    theta: Tensor
    names: tuple[str, ...]
    values: dict[str, float]
    std: dict[str, float]
    correlation: np.ndarray
    noise: float
    model: AlievPanfilov
    stages: list[dict[str, float]] = field(default_factory=list)

    def fields(self, times: np.ndarray, nodes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """V, W (N, F) float32 at `times` TU, at all nodes or some."""
        chosen = torch.arange(self.windows.places.nodes) if nodes is None else torch.as_tensor(nodes)
        dtype = self.windows.places.jets.dtype
        V, W = self.windows.fields(self.theta, chosen, torch.as_tensor(times, dtype=dtype), self.model)
        return V.float().numpy(), W.clamp_min(0.0).float().numpy()

    @property
    def status(self) -> str:
        last = self.stages[-1]
        if last["residual_V"] > 0.1:
            return f"The networks miss V's equation by {last['residual_V']:.2g} per TU (rms): read D with care."
        return (
            f"Fitted: V's equation is met to {last['residual_V']:.2g} per TU (rms), data to {last['chi2']:.2f} of what the noise predicts."
        )


def fit_fields(
    places: Places,
    data: Observed,
    model: AlievPanfilov,
    D: float,
    *,
    names: tuple[str, ...] = ("D",),
    sd: float | None = None,
    settings: Settings | None = None,
    tell: Callable[[float, dict[str, float]], None] | None = None,
) -> FieldFit:
    """From samples of V at nodes and times and a first guess of D (mm^2/TU); a, b start at the model's. `sd`: of V, None = estimated."""
    s = settings or Settings()
    generator = torch.Generator().manual_seed(s.seed)
    low, high = float(data.time.min()), float(data.time.max())
    count = int(np.clip(round((high - low) / s.window), 1, s.most_windows))
    network = MLP((places.features + 1, *[s.width] * s.depth, 2))
    windows = Windows(places, network, tuple(np.linspace(low, high, count + 1).tolist()))
    held = torch.rand(len(data.value), generator=generator) < s.held_out
    test, data = data.take(held), replace(data.take(~held), sd=sd or data.sd)
    numbers = [float(np.log(D)), *(float(getattr(model, n)) for n in names[1:])]
    weights = network.glorot(count, generator, same=True, dtype=torch.float64).reshape(-1)
    theta = torch.cat([weights, torch.tensor(numbers, dtype=torch.float64)])
    theta = StreamedAdam(s.warm_up).solve(lambda step: _DataOnly(windows, model, _some(data, 1000, generator), names), theta)
    stages: list[dict[str, float]] = []
    best = np.inf
    for k, strength in enumerate(s.strengths):
        points = draw_points(windows, theta, s.points, s.front, generator)
        problem = InverseProblem(windows, model, data, points, strength, names)
        trial = StreamedGaussNewton(steps=s.steps, damping=1e-3, relative=1e-3).solve(problem, theta).theta
        about = _judge(problem, trial, test)
        stages.append(about)
        if sd is None:
            data = replace(data, sd=max(about["held_out"], 1e-3))
        if tell:
            tell((k + 1) / len(s.strengths), about)
        if k > 1 and about["held_out"] > s.worse * best:
            stages.pop()
            break
        theta, best = trial, min(best, about["held_out"])
    return _finish(windows, problem, theta, data, names, stages)


class _DataOnly(InverseProblem):
    """The data rows alone, in units of their share, for the warm-up."""

    def __init__(self, windows: Windows, model: AlievPanfilov, data: Observed, names: tuple[str, ...]):
        nothing = Points(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        super().__init__(windows, model, data, nothing, 0.0, names)

    def blocks(self, theta: Tensor, slopes: bool):
        yield from self.data_blocks(theta, slopes)


def draw_points(windows: Windows, theta: Tensor, count: int, front: float, generator: torch.Generator) -> Points:
    """Nodes and times, a share `front` of them with a density like V (1 - V): where V moves."""
    low, high, nodes = windows.edges[0], windows.edges[-1], windows.places.nodes
    dtype = windows.places.jets.dtype
    many = count + 4 * count
    node = torch.randint(0, nodes, (many,), generator=generator)
    time = low + (high - low) * torch.rand(many, generator=generator, dtype=dtype)
    moved = int(front * count)
    spare = slice(count, None)
    V = torch.zeros(4 * count, dtype=dtype)
    for window, rows in pieces(windows.which(time[spare]), windows.count):
        inputs = windows.inputs(window, node[spare][rows], time[spare][rows])[:1]
        V[rows] = torch.sigmoid(windows.network(theta[None, windows.columns(window)].to(dtype), inputs)[0, :, 0])
    chosen = count + torch.multinomial(V * (1.0 - V) + 1e-4, moved, generator=generator)
    keep = torch.cat([torch.arange(count - moved), chosen])
    return Points(node[keep], time[keep])


def _some(data: Observed, count: int, generator: torch.Generator) -> Observed:
    return data.take(torch.randint(0, len(data.value), (min(count, len(data.value)),), generator=generator))


def _rms(blocks: list[Block]) -> float:
    rows = torch.cat([b.row for b in blocks]).double()
    return float((rows**2).mean().sqrt())


def _judge(problem: InverseProblem, theta: Tensor, test: Observed) -> dict[str, float]:
    """Misfits of one stage: data in units of the noise, held-out samples (V), both equations, 1/TU."""
    with torch.no_grad():
        data = _rms(list(problem.data_blocks(theta, False))) ** 2
        held = InverseProblem(problem.windows, problem.model, replace(test, sd=1.0), problem.points, 0.0, problem.names)
        found = list(problem.equation_blocks(theta, False))
        D, _ = problem.numbers(theta)
        return {
            "D": float(D),
            "chi2": data,
            "held_out": _rms(list(held.data_blocks(theta, False))),
            "residual_V": _rms(found[::2]) / problem.per_V,
            "residual_u": _rms(found[1::2]) / problem.per_u,
        }


def _finish(
    windows: Windows, problem: InverseProblem, theta: Tensor, data: Observed, names: tuple[str, ...], stages: list[dict[str, float]]
) -> FieldFit:
    """Laplace covariance of the numbers, the networks' weights marginalised, plus the floors."""
    _, _, matrix = problem.normal(theta)
    size, count = len(theta), len(names)
    units = torch.zeros(size, count, dtype=theta.dtype)
    units[size - count :] = torch.eye(count, dtype=theta.dtype)
    diagonal = matrix.diagonal().clamp_min(1e-9 * float(matrix.diagonal().mean()))
    for ridge in (1e-9, 1e-7, 1e-5, 1e-3):  # rows in single precision: the smallest with which the matrix has a root
        solved = solve_chain(matrix, ridge * diagonal, units, problem.chain)
        if solved is not None:
            break
    covariance = solved[size - count :].numpy() if solved is not None else np.full((count, count), np.nan)
    D, model = problem.numbers(theta)
    values = {name: float(D) if name == "D" else float(getattr(model, name)) for name in names}
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    std = {
        name: float(np.hypot(sd, NUMBER_FLOOR[name])) * (values["D"] if name == "D" else 1.0)
        for name, sd in zip(names, spread, strict=True)
    }
    scale = np.maximum(spread, 1e-300)
    return FieldFit(windows, theta, names, values, std, covariance / np.outer(scale, scale), data.sd, model, stages)
