"""V and W from the equations alone: time windows solved one after the other, each by a network that starts where the last one ended.

In a window (z, u) = (z0, u0)(x) + (t - t0) N(x, t): the state at its start is met exactly, and since z0 is itself a network of functions
without normal slope, no-flux and initial condition agree. Rows are weighted by causality (Wang, Sankaran & Perdikaris 2024,
doi:10.1016/j.cma.2024.116813) and their points drawn where they are badly met or V moves (Wu et al. 2023, doi:10.1016/j.cma.2022.115671).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...core import MLP, jets
from ...core.gauss_newton import Block, StreamedAdam, StreamedGaussNewton, StreamedProblem
from ...core.jets import SECOND, TIME, VALUE
from ...errors import InputError
from ..model import AlievPanfilov
from .equation import recovery, recovery_rows, voltage_rows
from .places import Places

SCALE_V, SCALE_U = 2.0, 0.3  # 1/TU: k / 4, and the usual |u_t|: both equations then weigh about the same
ENOUGH, GOOD, POOR = 0.005, 0.03, 0.15  # rms residual of V's equation, 1/TU: no more bursts; solved; beyond it V is not to be used

FLOOR = 1e-4  # V ahead of a front, a hundredth of the threshold a: z then bends there over the front's own width, not in a corner
FAINT = 0.004  # what an error of z counts, in V, where V is 0 or 1
LAID = 1e-3  # of V: steps of laying a state that gain less than a misfit of about this rms are the last
SMOOTH = 1e-2  # of the front scale squared: weight of L z beside z when a state is laid
STAGES = ((600, 0.1), (2000, 0.01))  # nodes on which a state is laid, and the share of the misfit a step below which that ends


@dataclass(frozen=True)
class Settings:
    """How a forward solution is made. Each technique can be taken away (0, 1 or False) to see what it does."""

    width: int = 24
    depth: int = 2
    window: float = 2.5  # TU
    points: int = 1600
    warm_up: int = 60  # Adam steps before Gauss-Newton, in the first window
    bursts: int = 5  # at most; ended where fresh points say that the equations are met, or met well and hardly better than a burst before
    steps: int = 10  # of Gauss-Newton a burst; points are drawn anew between bursts, never within one
    causal: float = 0.02
    chunks: int = 6
    adaptive: float = 0.6  # share of the points drawn where they are needed
    hard_start: bool = True
    tries: int = 3  # a window that misses the equations is solved again from other weights; the best is kept
    seed: int = 0


@dataclass(frozen=True)
class FieldSolution:
    """V, W (N, F) at the nodes and `times` (F,) TU; `residual`: rms of V's equation in each window, 1/TU."""

    V: np.ndarray
    W: np.ndarray
    times: np.ndarray
    residual: list[float]
    history: list[float] = field(default_factory=list)

    @property
    def status(self) -> str:
        worst = max(self.residual)
        if worst <= GOOD:
            return f"Solved: V's equation is met to {worst:.2g} per TU (rms) in every window."
        bad = sum(r > GOOD for r in self.residual)
        words = "do not use V" if worst > POOR else "fronts may be early or late"
        return f"Not solved everywhere: {bad} of {len(self.residual)} windows miss V's equation by up to {worst:.2g} per TU (rms); {words}."


class Window(StreamedProblem):
    """The two equations at points of one window; theta = the network's weights (P,). `start`: jets (C, N, 2) of (z, u) at its begin."""

    def __init__(self, places: Places, network: MLP, model: AlievPanfilov, D: float, start: Tensor, span: float, hard: bool = True):
        self.places, self.network, self.model, self.D, self.start, self.span, self.hard = places, network, model, D, start, span, hard
        self.nodes, self.time = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=start.dtype)
        self.weight = torch.zeros(0, dtype=start.dtype)

    def at(self, nodes: Tensor, time: Tensor, weight: Tensor | None = None) -> Window:
        """The same window with its rows at `nodes` and `time` (M,) since its begin, TU; `weight` (M,) default 1."""
        other = Window(self.places, self.network, self.model, self.D, self.start, self.span, self.hard)
        other.nodes, other.time = nodes, time
        other.weight = torch.ones_like(time) if weight is None else weight
        return other

    def evaluate(self, theta: Tensor, nodes: Tensor, time: Tensor) -> tuple[jets.Pass, Tensor]:
        """The network's pass and the jets (C, M, 2) of (z, u)."""
        scaled = torch.stack([2.0 * time / self.span - 1.0, torch.full_like(time, 2.0 / self.span)], dim=1)
        done = jets.forward(self.network, theta.to(scaled.dtype), self.places.at(nodes, scaled))
        out = time[:, None] * done.output if self.hard else done.output.clone()
        if self.hard:
            out[TIME] += done.output[VALUE]
        return done, out + self.start[:, nodes]

    def rows(self, out: Tensor) -> tuple[tuple, tuple]:
        return (voltage_rows(out, self.D, self.model), SCALE_V), (recovery_rows(out, self.model), SCALE_U)

    def blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        share = (self.weight / max(len(self.time), 1)).sqrt()
        for part in torch.arange(len(self.time)).split(2000):
            time = self.time[part]
            done, out = self.evaluate(theta, self.nodes[part], time)
            for found, scale in self.rows(out):
                per = share[part] / scale
                yield Block(found.row * per, self._pull(done, found.seeds * per[:, None], time) if slopes else None)
        if not self.hard:  # the start as rows among others, as most PINNs have it
            nodes = self.nodes[:400]
            done, out = self.evaluate(theta, nodes, torch.zeros(len(nodes), dtype=self.start.dtype))
            for k in range(2):
                seeds = torch.zeros_like(done.output)
                seeds[VALUE, :, k] = 1.0 / len(nodes) ** 0.5
                row = (out - self.start[:, nodes])[VALUE, :, k] / len(nodes) ** 0.5
                yield Block(row, jets.pull_back(self.network, done, seeds) if slopes else None)

    def _pull(self, done: jets.Pass, seeds: Tensor, time: Tensor) -> Tensor:
        if self.hard:
            value = seeds[TIME]
            seeds = time[:, None] * seeds
            seeds[VALUE] += value
        return jets.pull_back(self.network, done, seeds)


class Laid(StreamedProblem):
    """A network laid over given values (M, 2) at jets of inputs (C, M, I), with `weight` (M, 2), as smooth as `smooth` mm^2 asks.

    Values alone leave the derivatives between the nodes free: rows `smooth` * L out keep them from growing.
    """

    def __init__(self, network: MLP, inputs: Tensor, target: Tensor, weight: Tensor, smooth: float = 0.0):
        self.network, self.inputs, self.target, self.weight, self.smooth = network, inputs, target, weight, smooth

    def blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        done = jets.forward(self.network, theta.to(self.inputs.dtype), self.inputs)
        for k in range(2):
            kinds = [(VALUE, self.weight[:, k])]
            if self.smooth:
                kinds.append((SECOND, torch.full_like(self.weight[:, k], self.smooth)))
            for channel, weight in kinds:
                row = weight * (done.output[channel, :, k] - (self.target[:, k] if channel == VALUE else 0.0))
                seeds = torch.zeros_like(done.output)
                seeds[channel, :, k] = weight
                yield Block(row, jets.pull_back(self.network, done, seeds) if slopes else None)


def solve(
    places: Places,
    model: AlievPanfilov,
    D: float,
    V0: np.ndarray,
    W0: np.ndarray | float,
    times: np.ndarray,
    settings: Settings | None = None,
    tell: Callable[[float], None] | None = None,
) -> FieldSolution:
    """The fields from V0, W0 (N,) at times[0] on, at `times` (F,) TU; D mm^2/TU (built into the places' second-order channel: times D)."""
    s = settings or Settings()
    times = np.asarray(times, float)
    if len(times) < 2 or not (np.diff(times) > 0).all():
        raise InputError("times", "must increase", found=f"{len(times)} values", fix="give at least two")
    generator = torch.Generator().manual_seed(s.seed)
    network = MLP((places.features + 1, *[s.width] * s.depth, 2))
    start, under = lay(places, network, model, D, V0, W0, generator)
    count = max(1, round(float(times[-1] - times[0]) / s.window))
    edges = np.linspace(times[0], times[-1], count + 1)
    every, dtype = torch.arange(places.nodes), places.jets.dtype
    V, W, residual, history = [], [], [], []
    theta = network.glorot(1, generator, dtype=torch.float64)[0]
    for k in range(count):
        window = Window(places, network, model, D, start, edges[k + 1] - edges[k], s.hard_start)
        theta, miss, track = _solve_window(window, theta, s, generator, first=k == 0)
        for _ in range(s.tries - 1):
            if miss <= GOOD:
                break
            other, found, more = _solve_window(window, network.glorot(1, generator, dtype=torch.float64)[0], s, generator, first=True)
            track += more
            if found < miss:
                theta, miss = other, found
        history += track
        for t in times[(times > edges[k] - 1e-9 if k == 0 else times > edges[k] + 1e-9) & (times <= edges[k + 1] + 1e-9)]:
            out = window.evaluate(theta, every, torch.full((len(every),), t - edges[k], dtype=dtype))[1][VALUE]
            V.append(torch.sigmoid(out[:, 0]))
            W.append(recovery(out[:, 1], model)[0])
        residual.append(miss)
        if k < count - 1:  # the next starts from a smooth state, not from the end itself: its roughness would add up
            end = window.evaluate(theta, every, torch.full((len(every),), window.span, dtype=dtype))[1][VALUE]
            start, under = lay_logits(places, network, end.double(), under, smoothing(D, model), generator)
        if tell:
            tell((k + 1) / count)
    return FieldSolution(torch.stack(V, 1).float().numpy(), torch.stack(W, 1).float().numpy(), times, residual, history)


def lay(
    places: Places, network: MLP, model: AlievPanfilov, D: float, V0: np.ndarray, W0: np.ndarray | float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Jets (C, N, 2) of (z, u) for a state given at the nodes, as near to it as a network without flux comes; and its weights."""
    V = torch.as_tensor(np.asarray(V0, float)).clamp(0.0, 1.0 - 1e-4)
    V = V + FLOOR * (1.0 - V)
    if len(V) != places.nodes:
        raise InputError("V0", "does not fit the places", found=len(V), fix=f"give {places.nodes} values")
    W = torch.as_tensor(np.broadcast_to(np.asarray(W0, float), V.shape).copy())
    target = torch.stack([torch.logit(V), torch.log((W + model.eps / model.mu1).clamp_min(1e-3))], dim=1)
    return lay_logits(places, network, target, network.glorot(1, generator, dtype=torch.float64)[0], smoothing(D, model), generator)


def smoothing(D: float, model: AlievPanfilov) -> float:
    """Weight of L z beside the values', mm^2."""
    return SMOOTH * 2.0 * D / model.k


def lay_logits(
    places: Places, network: MLP, target: Tensor, theta: Tensor, smooth: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same for z, u (N, 2), from the weights theta: on a few nodes first, then on more.

    What z errs behind the front costs nothing in V at first, but grows there into a rough V as W rises: hence the weight of L z.
    """
    dtype = places.jets.dtype
    V = torch.sigmoid(target[:, 0])
    weight = torch.stack([V * (1.0 - V) + FAINT, torch.full_like(V, 0.2)], dim=1).to(dtype)
    order = torch.randperm(places.nodes, generator=generator)
    for count, gain in STAGES:
        nodes = order[:count]
        laid = Laid(network, places.at(nodes, torch.zeros(len(nodes), 2, dtype=dtype)), target[nodes].to(dtype), weight[nodes], smooth)
        solver = StreamedGaussNewton(steps=40, damping=1e-2, relative=gain, absolute=0.05 * len(nodes) * LAID**2)
        theta = solver.solve(laid, theta).theta
    every = places.at(torch.arange(places.nodes), torch.zeros(places.nodes, 2, dtype=dtype))
    return jets.forward(network, theta.to(dtype), every).output, theta


def _laid_on_rates(window: Window, theta: Tensor, generator: torch.Generator) -> Tensor:
    """Weights whose N is the rate (z_t, u_t) that the equations ask for at the window's begin: where the search starts."""
    nodes, time = _draw(window, 1000, generator)
    out = window.start[:, nodes]
    V, Q = torch.sigmoid(out[VALUE, :, 0]), torch.sigmoid(-out[VALUE, :, 0])
    rate_z = -voltage_rows(out, window.D, window.model, 1.0).row / Q
    target = torch.stack([rate_z.clamp(-6.0, 6.0), -recovery_rows(out, window.model).row], dim=1)
    scaled = torch.stack([2.0 * time / window.span - 1.0, torch.full_like(time, 2.0 / window.span)], dim=1)
    weight = torch.stack([0.3 * (V * Q + 0.05), torch.ones_like(V)], dim=1)
    laid = Laid(window.network, window.places.at(nodes, scaled), target, weight)
    return StreamedGaussNewton(steps=6, damping=1e-2, relative=3e-2).solve(laid, theta).theta


def _solve_window(window: Window, theta: Tensor, s: Settings, generator: torch.Generator, first: bool) -> tuple[Tensor, float, list[float]]:
    """Adam on changing points (fresh weights only), then bursts of Gauss-Newton, each on its own points; the best and its residual."""
    if first and s.warm_up:
        theta = StreamedAdam(s.warm_up).solve(lambda step: window.at(*_draw(window, s.points // 4, generator)), theta)
    if s.hard_start:
        theta = _laid_on_rates(window, theta, generator)
    track: list[float] = []
    best: tuple[Tensor, float] | None = None
    for burst in range(s.bursts):
        nodes, time = _draw(window, s.points - int(s.adaptive * s.points), generator)
        if s.adaptive:
            more = adaptive_points(window, theta, int(s.adaptive * s.points), generator)
            nodes, time = torch.cat([nodes, more[0]]), torch.cat([time, more[1]])
        weight = causal_weights(window, theta, nodes, time, s.causal, s.chunks) if s.causal and burst < s.bursts - 1 else None
        found = StreamedGaussNewton(steps=s.steps, damping=1e-3, relative=2e-2).solve(window.at(nodes, time, weight), theta)
        theta = found.theta
        track += found.history
        miss = check(window, theta, generator)
        gained = best is None or miss < 0.8 * best[1]
        if best is None or miss < best[1]:
            best = theta, miss
        if miss <= ENOUGH or (miss <= GOOD and not gained):
            break
    assert best is not None
    return *best, track


def check(window: Window, theta: Tensor, generator: torch.Generator) -> float:
    """rms of V's equation at points that the fit has not seen, 1/TU."""
    nodes, time = _draw(window, 2000, generator)
    return float((voltage_rows(window.evaluate(theta, nodes, time)[1], window.D, window.model, 0.0).row ** 2).mean().sqrt())


def _draw(window: Window, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    nodes = torch.randint(0, window.places.nodes, (count,), generator=generator)
    return nodes, window.span * torch.rand(count, generator=generator, dtype=window.start.dtype)


def adaptive_points(window: Window, theta: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points drawn with a density that grows with the residual of both equations and with |V_t| (at a front)."""
    nodes, time = _draw(window, 4 * count, generator)
    out = window.evaluate(theta, nodes, time)[1]
    V = torch.sigmoid(out[VALUE, :, 0])
    need = sum((found.row / scale).abs() for found, scale in window.rows(out)) + 0.1 * V * (1.0 - V)
    chosen = torch.multinomial(need / need.mean() + 0.05, count, generator=generator)
    return nodes[chosen], time[chosen]


def causal_weights(window: Window, theta: Tensor, nodes: Tensor, time: Tensor, tolerance: float, chunks: int) -> Tensor:
    """(M,) exp(-tolerance * sum of the earlier chunks' mean squares): what is late waits for what is early."""
    out = window.evaluate(theta, nodes, time)[1]
    square = sum((found.row / scale) ** 2 for found, scale in window.rows(out))
    chunk = (time / window.span * chunks).long().clamp(0, chunks - 1)
    total = torch.zeros(chunks, dtype=square.dtype).index_add(0, chunk, square)
    mean = total / torch.bincount(chunk, minlength=chunks).clamp_min(1)
    before = torch.cumsum(mean, 0) - mean
    return torch.exp(-tolerance * before / 0.01)[chunk].clamp_min(1e-6)
