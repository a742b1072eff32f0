"""The numbers D, a, b from samples of V: Gauss-Newton over the reference simulator, started from the travelling-beat fit.

The wave's state at the first frame is the travelling beat's, V = Phi(t0 - T), W with it; one more unknown moves it in time. Slopes come
from runs side by side with one number changed in each: one batched simulation a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..core.solution import Solution, Status, uncertainty
from ..errors import InputError
from ..files.mesh import Mesh
from .beat import beats
from .fem import Diffusion
from .model import AlievPanfilov
from .simulate import Start, simulate

CHANGES = {"D": 0.02, "a": 0.004, "b": 0.01, "shift": 0.1}  # log D, a, b, TU
STEPS = 6
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Numbers:
    """`solution` (B = 1) of the named parameters in inner units; `V`, `W` (N, F) of the best run; `noise` sd of V."""

    solution: Solution
    model: AlievPanfilov
    D: float
    V: np.ndarray
    W: np.ndarray
    noise: float


def fit_numbers(
    mesh: Mesh,
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
    """V (N, F) with NaN on `mesh`'s nodes at even `times` (TU); T (N,) TU, D, model: the start. `shape`: fibres with D = 1 along them."""
    gaps = np.diff(times)
    if np.ptp(gaps) > 1e-3 * gaps.mean():
        raise InputError(mesh.source, "the frames are not evenly spaced", fix="give evenly spaced frames, or fit D as a map (--map D)")
    seen = np.isfinite(V)
    unknown = (*names, "shift")
    point = {"D": float(np.log(D)), "a": model.a, "b": model.b, "shift": 0.0}

    def run(at: dict[str, float], sides: bool) -> tuple[np.ndarray, np.ndarray]:
        runs = [at] + [{**at, name: at[name] + CHANGES[name]} for name in unknown] if sides else [at, at]
        base = beats([replace(model, a=at["a"], b=at["b"])])[0]
        s = [torch.from_numpy(times[0] + r["shift"] - T) for r in runs]
        start = Start(np.stack([base.V_and_slope(x)[0].numpy() for x in s]), np.stack([base.W_at(x).numpy() for x in s]))
        many = replace(model, a=torch.tensor([r["a"] for r in runs]), b=torch.tensor([r["b"] for r in runs]))
        factor = [float(np.exp(r["D"])) for r in runs]
        sim = simulate(
            mesh, shape or Diffusion(1.0), start, duration=float(times[-1] - times[0]) + 1e-6, model=many, frame_step=float(gaps.mean()),
            D_factor=factor, keep_W=not sides,
        )
        return sim.V, (sim.W if sim.W is not None else sim.V)

    cost, status, history, done = np.inf, Status.STEP_LIMIT, [], 0
    for step in range(steps):
        movies = run(point, True)[0]
        residual = (movies[0] - V)[seen]
        jacobian = np.stack([(movies[k + 1] - movies[0])[seen] / CHANGES[name] for k, name in enumerate(unknown)], axis=1)
        cost = float(residual @ residual)
        history.append(cost)
        move = -np.linalg.lstsq(jacobian, residual, rcond=None)[0]
        done = step + 1
        promised = float(cost - np.sum((residual + jacobian @ move) ** 2)) / (cost / len(residual))
        limits = np.array([{"D": 0.4, "a": 0.05, "b": 0.08, "shift": 1.0}[name] for name in unknown])
        move *= min(1.0, float(np.min(limits / np.maximum(np.abs(move), 1e-12))))
        point = {**point, **{name: point[name] + float(m) for name, m in zip(unknown, move, strict=True)}}
        point["a"] = float(np.clip(point["a"], 1e-4, 0.4))
        if progress:
            progress(done / (steps + 1))
        if promised < 0.05:  # in units of chi-squared: a fifth of a standard deviation
            status = Status.CONVERGED
            break
    final_V, final_W = run(point, False)
    noise = float(np.sqrt(np.mean((final_V[0] - V)[seen] ** 2)))
    scaled = jacobian / noise
    scaled[:, unknown.index("D")] /= np.exp(point["D"])  # per mm^2/TU
    covariance, condition, weakest = uncertainty(torch.from_numpy(scaled)[None], len(names))
    values = {name: torch.tensor([np.exp(point["D"]) if name == "D" else point[name]]) for name in names}
    theta = torch.tensor([[point[name] for name in unknown]], dtype=torch.float64)
    one = torch.ones(1)
    solution = Solution(
        names, theta, values, torch.tensor([int(status)], dtype=torch.uint8), 0.5 * cost * one, done * one, covariance, condition, weakest,
        {"cost": history},
    )
    fitted = replace(model, a=point["a"], b=point["b"])
    return Numbers(solution, fitted, float(np.exp(point["D"])), final_V[0], final_W[0], noise)
