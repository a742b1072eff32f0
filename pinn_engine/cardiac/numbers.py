"""The numbers D, a, b from samples of V: Gauss-Newton over the reference simulator, started from the travelling-beat fit.

The wave's state at the first frame is the travelling beat's, V = Phi(t0 - T), W with it; one more unknown moves it in time. Slopes come
from runs side by side with one number changed in each: one batched simulation a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core.solution import Solution, Status, uncertainty
from ..errors import InputError
from ..files.mesh import Mesh
from .beat import beats
from .fem import Diffusion
from .model import AlievPanfilov
from .simulate import Start, evenly_spaced, simulate

CHANGES = {"D": 0.02, "a": 0.004, "b": 0.01, "shift": 0.1}  # log D, a, b, TU
STEPS = 10
NOTHING = 0.05  # of chi-squared, a fifth of a standard deviation: no more is to be gained
A_RANGE = (1e-4, 0.4)
FLOOR = {"D": 0.01, "a": 0.002, "b": 0.001}  # sd from what the noise does not tell: grid, state at the first frame (D relative)
Progress = Callable[[float], None]


def with_floor(covariance: np.ndarray, names: tuple[str, ...], D: float) -> np.ndarray:
    """(n, n) the covariance that the noise tells, and what every fit of the numbers adds to it."""
    return covariance + np.diag([FLOOR[name] * (D if name == "D" else 1.0) for name in names]) ** 2


def speed_sd(model: AlievPanfilov, D: float, names: tuple[str, ...], covariance: np.ndarray) -> float:
    """Relative sd of the speed c of a front: far smaller than the sds of D and a tell, for they trade off along it."""
    slope = {"D": 0.5 / D, "a": float(model.log_speed_by_a)}
    g = np.array([slope.get(name, 0.0) for name in names])
    return float(np.sqrt(g @ covariance @ g))


@dataclass(frozen=True)
class Numbers:
    """`solution` (B = 1) of the named parameters in inner units, its covariance the data's own; `V`, `W` (N, F) of the best run; `noise`
    sd of V."""

    solution: Solution
    model: AlievPanfilov
    D: float
    V: np.ndarray
    W: np.ndarray
    noise: float


def fit_numbers(
    mesh: Mesh,
    to_data: Any,
    fine: Mesh | None,
    shape: Diffusion | None,
    V: np.ndarray,
    times: np.ndarray,
    T: np.ndarray,
    D: float,
    model: AlievPanfilov,
    names: tuple[str, ...],
    *,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Numbers:
    """V (R, F) with NaN at even `times` (TU), seen from `mesh` through `to_data` (R, N); T (N,) TU, D, model: the start.

    `fine` (R nodes): the last steps are taken on this mesh, with the slopes found on the first, so that a coarse grid's slow waves do not
    bias D. `shape`: fibres with D = 1 along them.
    """
    if not evenly_spaced(times):
        raise InputError(mesh.source, "the frames are not evenly spaced", fix="give evenly spaced frames, or fit D as a map (--map D)")
    seen = np.isfinite(V)
    unknown = (*names, "shift")
    point = {"D": float(np.log(D)), "a": model.a, "b": model.b, "shift": 0.0}

    def run(at: dict[str, float], sides: bool, on: Mesh, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        runs = [at] + ([{**at, name: at[name] + CHANGES[name]} for name in unknown] if sides else [])
        s = [torch.from_numpy(times[0] + r["shift"] - T) for r in runs]
        own = beats([replace(model, a=r["a"], b=r["b"]) for r in runs], duration=max(5.0, max(float(x.max()) for x in s)))
        start = Start(
            np.stack([beat.V_and_slope(x)[0].numpy() for beat, x in zip(own, s, strict=True)]),
            np.stack([beat.W_at(x).numpy() for beat, x in zip(own, s, strict=True)]),
        )
        many = replace(
            model, a=torch.tensor([r["a"] for r in runs], dtype=torch.float64), b=torch.tensor([r["b"] for r in runs], dtype=torch.float64)
        )
        factor = [float(np.exp(r["D"])) for r in runs]
        sim = simulate(
            on,
            shape or Diffusion(1.0),
            start,
            duration=float(times[-1] - times[0]) + 1e-6,
            model=many,
            frame_step=float(np.diff(times).mean()),
            D_factor=factor,
            keep_W=not sides,
        )
        return sim.V, (sim.W if sim.W is not None else sim.V)

    cost, status, history, done = np.inf, Status.STEP_LIMIT, [], 0
    kept: tuple[float, dict[str, float]] | None = None  # the best of this mesh
    jacobian = np.zeros((0, len(unknown)))
    level, T_fine = "coarse", to_data @ T
    for step in range(steps):
        if level == "coarse":
            movies = [to_data @ movie for movie in run(point, True, mesh, T)[0]]
            jacobian = np.stack([(movies[k + 1] - movies[0])[seen] / CHANGES[name] for k, name in enumerate(unknown)], axis=1)
        else:
            assert fine is not None
            movies = list(run(point, False, fine, T_fine)[0])
        residual = (movies[0] - V)[seen]
        cost, done = float(residual @ residual), step + 1
        if kept is not None and cost > kept[0] * (1.0 - NOTHING / len(residual)):  # the slopes promised what was not there
            if cost < kept[0] * (1.0 + 1.0 / len(residual)) or step == steps - 1:
                cost, point = (cost, point) if cost < kept[0] else kept
                status = Status.CONVERGED
                break
            point = {name: 0.5 * (value + kept[1][name]) for name, value in point.items()}
            continue
        kept = cost, point
        history.append(cost)
        move = -np.linalg.lstsq(jacobian, residual, rcond=None)[0]
        if "a" in names and point["a"] <= A_RANGE[0] and move[unknown.index("a")] < 0:  # the others move as if a were given
            rest = np.array([name != "a" for name in unknown])
            move[:] = 0.0
            move[rest] = -np.linalg.lstsq(jacobian[:, rest], residual, rcond=None)[0]
        promised = float(cost - np.sum((residual + jacobian @ move) ** 2)) / (cost / len(residual))
        limits = np.array([{"D": 0.4, "a": 0.05, "b": 0.08, "shift": 1.0}[name] for name in unknown])
        move *= min(1.0, float(np.min(limits / np.maximum(np.abs(move), 1e-12))))
        point = {**point, **{name: point[name] + float(m) for name, m in zip(unknown, move, strict=True)}}
        point["a"] = float(np.clip(point["a"], *A_RANGE))
        if progress:
            progress(done / (steps + 1))
        if promised < NOTHING:
            status = Status.CONVERGED
        if fine is not None and level == "coarse" and (promised < 1.0 or step == steps - 4):
            level, status, history, kept = "fine", Status.STEP_LIMIT, [], None
        elif status != Status.STEP_LIMIT:
            break
    movies_V, movies_W = run(point, False, fine or mesh, T if fine is None else T_fine)
    final_V, final_W = (movies_V, movies_W) if fine is not None else (to_data @ movies_V[0], to_data @ movies_W[0])
    if fine is not None:
        final_V, final_W = final_V[0], final_W[0]
    if "a" in names and point["a"] <= A_RANGE[0]:
        status = Status.AT_BOUND
    noise = float(np.sqrt(np.mean((final_V - V)[seen] ** 2)))
    scaled = jacobian / noise
    scaled[:, unknown.index("D")] /= np.exp(point["D"])  # per mm^2/TU
    covariance, condition, weakest = uncertainty(torch.from_numpy(scaled)[None], len(names))
    values = {name: torch.tensor([np.exp(point["D"]) if name == "D" else point[name]]) for name in names}
    theta = torch.tensor([[point[name] for name in unknown]], dtype=torch.float64)
    one = torch.ones(1)
    solution = Solution(
        names,
        theta,
        values,
        torch.tensor([int(status)], dtype=torch.uint8),
        0.5 * cost / noise**2 * one,
        done * one,
        covariance,
        condition,
        weakest,
        {"cost": [0.5 * one / noise**2 for one in history]},
    )
    fitted = replace(model, a=point["a"], b=point["b"])
    return Numbers(solution, fitted, float(np.exp(point["D"])), final_V, final_W, noise)
