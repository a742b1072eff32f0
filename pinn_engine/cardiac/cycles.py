"""The state V, W of tissue at the first frame, found in samples of V alone: at each place, where in its cycle the tissue stood.

A spiral excites every place again and again. One cell excited every P TU gives V and W over a cycle; a matched filter finds, at each node,
the phase whose V(t) misses the samples round it least, and over all nodes the P. W comes with the phase; V is then read from the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..core.sparse_linear import factorise
from ..errors import InputError
from .eikonal import front_constant
from .fem import Elements
from .mapfit import Samples
from .model import AlievPanfilov
from .starts import laplacian

BEFORE = 3.0  # TU of the upstroke's foot that belong to the new cycle
PERIODS = (14.0, 16.0, 18.0, 20.0, 22.0, 25.0, 28.0, 32.0, 38.0, 46.0, 60.0)  # TU; for the defaults nothing turns faster than 16
PHASE_STEP = 0.4  # TU
REACH = 60.0  # samples that a place's phase is judged by
SMOOTH = 0.8  # of the REACH's patch, mm^2: the phase is smoothed over it before its gradient is taken
KERNEL = 20.0  # samples that a place's V is read from


@dataclass(frozen=True)
class Cycle:
    """V, W (S,) of one period, from BEFORE the upstroke (phase 0) on."""

    period: float
    phase: np.ndarray
    V: np.ndarray
    W: np.ndarray

    def at(self, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V, W at any time since an upstroke, TU."""
        inside = np.mod(np.asarray(phase) + BEFORE, self.period) - BEFORE
        return np.interp(inside, self.phase, self.V, period=self.period), np.interp(inside, self.phase, self.W, period=self.period)


def cycles(model: AlievPanfilov, periods: tuple[float, ...] = PERIODS, beats: int = 8, step: float = 0.04) -> list[Cycle]:
    """One cell's last of `beats` cycles for each period, with the upstroke of a travelling front, 1/(1 + exp(-k (1 - 2a) s / 2))."""
    P = np.array(periods)
    last = np.round(P / step).astype(int)
    V, W = np.zeros(len(P)), np.zeros(len(P))
    clock = np.zeros(len(P), int)
    count = np.zeros(len(P), int)
    keep: list[list[tuple[float, float]]] = [[] for _ in P]
    for _ in range(beats * int(last.max())):
        V = np.where(clock == 0, 1.0, V)
        for i in np.flatnonzero(count == beats - 1):
            keep[i].append((V[i], W[i]))
        V_t, W_t = model.rates(V, W)
        V_t, W_t = model.rates(V + 0.5 * step * V_t, W + 0.5 * step * W_t)
        V, W = V + step * V_t, W + step * W_t
        clock += 1
        count, clock = count + (clock == last), np.where(clock == last, 0, clock)
    return [_with_foot(model, np.array(one), period, step) for one, period in zip(keep, periods, strict=True)]


def _with_foot(model: AlievPanfilov, cell: np.ndarray, period: float, step: float) -> Cycle:
    since = np.arange(len(cell)) * step
    s = np.arange(-BEFORE, period - BEFORE, 0.05)
    rise = 1.0 / (1.0 + np.exp(-0.5 * model.k * (1.0 - 2.0 * model.a) * s))
    after, before = (np.interp(x, since, cell[:, 0]) for x in (np.maximum(s, 0.0), s + period))
    return Cycle(
        period, s, after * rise + np.where(s < 0, before, cell[-1, 0]) * (1.0 - rise), np.interp(s, since, cell[:, 1], period=period)
    )


@dataclass(frozen=True)
class Guess:
    """`V`, `W` (N,) at the first frame; `phase` (N,) TU since the last upstroke; `misfit`: mean square of V at the best phases."""

    V: np.ndarray
    W: np.ndarray
    phase: np.ndarray
    period: float
    misfit: float
    D: float


def guess(element: Elements, data: Samples, times: np.ndarray, points: np.ndarray, model: AlievPanfilov) -> Guess:
    """`data`: samples of V at `times` (F,), on the nodes `points` (N, 3)."""
    sums = local_sums(element, data, times)
    best: tuple[float, np.ndarray, Cycle] | None = None
    for cycle in cycles(model):
        trial = np.arange(0.0, cycle.period, PHASE_STEP)
        phi = cycle.at(times[:, None] - times[0] + trial[None, :])[0]
        cost = _local(element, sums, phi)
        misfit = float(np.average(cost.min(axis=1), weights=element.mass.numpy()))
        if best is None or misfit < best[0]:
            best = misfit, trial[cost.argmin(axis=1)], cycle
    assert best is not None
    misfit, phase, cycle = best
    V, W = cycle.at(phase)
    return Guess(
        read_V(element, data, times[0], points, V),
        W,
        phase,
        cycle.period,
        misfit,
        _typical_D(element, phase, cycle, model, len(data.value)),
    )


def local_sums(element: Elements, data: Samples, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, F): how many samples at each node nearest in time to each of `times`, the sum of their V and of its square."""
    assert data.time is not None
    frame = np.abs(times[:, None] - data.time.numpy()[None, :]).argmin(axis=0)
    place = data.column.numpy() * len(times) + frame[data.row.numpy()]
    weight, v = data.weight.numpy(), data.value.numpy()[data.row.numpy()]
    count, sum_v, sum_vv = (
        np.bincount(place, weights=x, minlength=element.nodes * len(times)).reshape(element.nodes, -1)
        for x in (weight, weight * v, weight * v * v)
    )
    return count, sum_v, sum_vv


def spread_locally(element: Elements, sums: np.ndarray, count: float, reach: float = REACH) -> np.ndarray:
    """Sums at nodes (N, K) -> over `reach` of the `count` samples round each node."""
    from scipy.sparse import diags

    K, mass = laplacian(element)
    dimension = element.cells.shape[1] - 1
    patch = max(reach / max(count, 1.0) * mass.sum(), mass.mean())
    tau = patch ** (2.0 / dimension) / 12.0
    smoother = factorise(diags(mass) + tau * K)
    return patch * smoother.solve(mass[:, None] * smoother.solve(sums))


def _local(element: Elements, sums: tuple[np.ndarray, np.ndarray, np.ndarray], phi: np.ndarray) -> np.ndarray:
    """(N, K) mean square misfit round each node of K courses `phi` (F, K)."""
    count, sum_v, sum_vv = sums
    misfit = sum_vv.sum(axis=1, keepdims=True) - 2.0 * sum_v @ phi + count @ phi**2
    spread = spread_locally(element, np.concatenate([misfit, count.sum(axis=1, keepdims=True)], axis=1), float(count.sum()))
    return spread[:, :-1] / np.maximum(spread[:, -1:], 1e-9)


def _typical_D(element: Elements, phase: np.ndarray, cycle: Cycle, model: AlievPanfilov, count: int) -> float:
    """D of the plain eikonal, 1 / (c0 |grad T|)^2, its median; the phase turns, so its gradient is that of exp(i phase)."""
    from scipy.sparse import diags

    angle = phase * (2.0 * np.pi / cycle.period)
    K, mass = laplacian(element)
    patch = REACH / count * mass.sum()
    smoother = factorise(diags(mass) + SMOOTH * patch ** (2.0 / (element.cells.shape[1] - 1)) * K)
    c, s = torch.from_numpy(smoother.solve(mass[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).T.copy())
    size = torch.hypot(element.to_cells(c), element.to_cells(s))
    slope = torch.hypot(element.gradient(c).norm(dim=1), element.gradient(s).norm(dim=1)) / size * cycle.period / (2.0 * np.pi)
    slope = slope[size > 0.7]  # away from the tips
    if len(slope) == 0:
        raise InputError("V", "no wave was found in it", fix="give more samples, or a longer record")
    return float(1.0 / (front_constant(model) * slope.median().clamp_min(1e-6)) ** 2)


def read_V(element: Elements, data: Samples, time: float, points: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """V (N,) at one time: local linear regression in space and time, drawn to `prior` with the weight of one sample."""
    from scipy.spatial import cKDTree

    assert data.time is not None
    late = 1.0
    at = np.stack([data.at(_tensor(points[:, i])).numpy() for i in range(3)], axis=1)
    t = data.time.numpy() - time
    near = np.abs(t) <= 3.0 * late
    at, t, v = at[near], t[near], data.value.numpy()[near]
    dimension = element.cells.shape[1] - 1
    density = max(len(v), 1) / (3.0 * late * float(element.size.sum()))
    wide = (KERNEL / ((2.0 * np.pi) ** (0.5 * (dimension + 1)) * late * density)) ** (1.0 / dimension)
    out = prior.copy()
    for i, found in enumerate(cKDTree(at).query_ball_point(points, 3.0 * wide)):
        if len(found) < 4:
            continue
        x = np.column_stack([np.ones(len(found)), (at[found] - points[i]) / wide, t[found] / late])
        w = np.exp(-0.5 * np.square(x[:, 1:]).sum(axis=1))
        normal = x.T @ (w[:, None] * x) + np.diag([1.0, *[1e-3 * w.sum()] * 4])
        out[i] = np.linalg.solve(normal, x.T @ (w * v[found]) + np.array([prior[i], 0, 0, 0, 0]))[0]
    return np.clip(out, -0.2, 1.2)


def _tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=float))
