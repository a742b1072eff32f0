"""The reference simulator: Strang splitting of reaction (midpoint rule) and diffusion (stabilised Runge-Kutta), any mesh, CPU or GPU.

Diffusion takes RKL2 steps (Meyer, Balsara & Aslam 2014, doi:10.1016/j.jcp.2013.08.021): explicit, second order, with as many stages as the
mesh needs to be stable (about the root of what plain steps would cost), so that one sliver does not rule the step; nothing is factorised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files.mesh import Mesh
from .fem import Diffusion, Stiffness, elements, stiffness, tensors
from .model import AlievPanfilov

MAX_STEP = 0.05  # TU: costs 0.06 % of the speed at D = 0.1, h = 0.1 (0.1 TU costs 0.3 %)
MAX_STAGES = 400
THRESHOLD = 0.5  # V that counts as activation


@dataclass(frozen=True)
class Stimulus:
    """A current +strength (1/TU) on V_t at `nodes` (N,) bool or indices, from `start` for `duration` TU."""

    nodes: np.ndarray
    start: float = 0.0
    duration: float = 1.0
    strength: float = 0.5


@dataclass(frozen=True)
class Start:
    """How a run begins: `V`, `W` at t = 0 (a number, (N,), or (B, N) for B runs at once) and the stimuli that follow."""

    V: Any = 0.0
    W: Any = 0.0
    stimuli: tuple[Stimulus, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Simulation:
    """`times` (F,) TU; `V`, `W` (N, F) float32 (W only where asked); `LAT` (N,) TU, NaN = never activated; with B runs a leading axis B.

    `end`: V and W (N,) at the last time, to go on from. `step` TU, `stages`: what the checked step came to.
    """

    times: np.ndarray
    V: np.ndarray
    W: np.ndarray | None
    LAT: np.ndarray
    end: Start
    step: float
    stages: int


def simulate(
    mesh: Mesh,
    diffusion: Diffusion | float,
    start: Start,
    *,
    duration: float,
    model: AlievPanfilov | None = None,
    frame_step: float = 0.25,
    max_step: float = MAX_STEP,
    D_factor: Sequence[float] | None = None,
    keep_W: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Simulation:
    """Run the model for `duration` TU on a clean mesh (files.meshcheck.clean), a frame every `frame_step` TU, t = 0 included.

    `D_factor` (B,): B runs at once, D times these; `model`'s values may then be tensors (B,) too.
    """
    model = model or AlievPanfilov()
    _check_times(mesh, duration, frame_step, max_step)
    diffusion = diffusion if isinstance(diffusion, Diffusion) else Diffusion(diffusion)
    element = elements(mesh, device, dtype)
    operator = stiffness(element, tensors(element, diffusion, mesh.fibres))
    V, W = _initial(start, len(mesh.points), D_factor, element.size)
    factor = torch.as_tensor(D_factor if D_factor is not None else 1.0, dtype=dtype, device=device)
    substeps = math.ceil(frame_step / max_step - 1e-9)
    stepper = Stepper(model, operator, frame_step / substeps, start.stimuli, factor)
    frames = 1 + math.floor(duration / frame_step + 1e-9)
    _check_memory(mesh, V.numel() * frames * (2 if keep_W else 1))
    with torch.no_grad(), _one_thread_if_small(V):
        return _march(stepper, V, W, frames, substeps, keep_W)


@contextmanager
def _one_thread_if_small(V: Tensor) -> Iterator[None]:
    """Below torch's own threshold of 32,768 values more threads only wait for each other (four times slower on a shared machine)."""
    before = torch.get_num_threads()
    if V.device.type == "cpu" and V.numel() < 32_768:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Stepper:
    """One time step as a pure function of (V, W, step number): what `simulate` repeats, and what one can differentiate through."""

    def __init__(
        self, model: AlievPanfilov, operator: Stiffness, step: float, stimuli: Sequence[Stimulus] = (), factor: Tensor | float = 1.0
    ):
        self.model, self.operator, self.step, self.factor = model, operator, step, factor
        largest = operator.bound * float(torch.as_tensor(factor).detach().max())
        self.coefficients = rkl2_coefficients(stages_for(largest * step))
        self.stimuli = [(s, _indicator(s, operator.mass)) for s in stimuli]

    @property
    def stages(self) -> int:
        return len(self.coefficients) + 1

    def __call__(self, V: Tensor, W: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """(V, W) at `number` steps -> at `number + 1`: half reaction, diffusion, half reaction."""
        half = 0.5 * self.step
        V, W = self._react(V, W, number * self.step, half)
        V = self._diffuse(V)
        return self._react(V, W, number * self.step + half, half)

    def _react(self, V: Tensor, W: Tensor, time: float, step: float) -> tuple[Tensor, Tensor]:
        """Midpoint rule; a stimulus enters with the share of the step during which it is on."""
        V, W = self.model.midpoint(V, W, step)
        for stimulus, nodes in self.stimuli:
            on = min(time + step, stimulus.start + stimulus.duration) - max(time, stimulus.start)
            if on > 0:
                V = V + (stimulus.strength * on) * (nodes if V.ndim == 1 else nodes[:, None])
        return V, W

    def _diffuse(self, V: Tensor) -> Tensor:
        """RKL2: V_t = -A V over one step."""
        scale = -self.step * self.factor
        first = scale * self.operator(V)
        mu1 = 4.0 / 3.0 / (self.stages**2 + self.stages - 2)
        before, now = V, torch.add(V, first, alpha=mu1)
        for mu, nu, rest, slope, slope_first in self.coefficients:
            rate = scale * self.operator(now)
            before, now = now, mu * now + nu * before + rest * V + slope * rate + slope_first * first
        return now


def stages_for(stiff: float) -> int:
    """Smallest number of RKL2 stages (>= 2) that is stable for step * largest eigenvalue = `stiff`: (s^2 + s - 2) / 2 >= stiff."""
    stages = max(2, math.ceil(0.5 * (math.sqrt(9.0 + 8.0 * stiff) - 1.0)))
    if stages > MAX_STAGES:
        fix = "the mesh is far finer than this D and step need: coarsen it, or check units (mm, mm^2/TU)"
        raise InputError("simulate", f"a stable step would need more than {MAX_STAGES} stages", found=stages, fix=fix)
    return stages


def rkl2_coefficients(stages: int) -> list[tuple[float, float, float, float, float]]:
    """(mu_j, nu_j, 1 - mu_j - nu_j, mu~_j, gamma~_j) for j = 2..s, eq. 16-17 of the paper."""
    b = [1 / 3, 1 / 3] + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, stages + 1)]
    w = 4.0 / (stages**2 + stages - 2)
    out = []
    for j in range(2, stages + 1):
        mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
        out.append((mu, nu, 1 - mu - nu, mu * w, -(1 - b[j - 1]) * mu * w))
    return out


def evenly_spaced(times: np.ndarray) -> bool:
    """Whether frames (F,) follow each other at one distance, to a thousandth of it."""
    gaps = np.diff(times)
    return not np.ptp(gaps) > 1e-3 * gaps.mean()


def activation_time(V: np.ndarray, times: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """First upward crossing of frames V (..., F), linear between frames -> (...), in the unit of `times`.

    The first time where V starts above; NaN = never.
    """
    up = (V[..., :-1] < threshold) & (V[..., 1:] >= threshold)
    i = up.argmax(axis=-1)[..., None]
    low, high = np.take_along_axis(V, i, -1)[..., 0].astype(float), np.take_along_axis(V, i + 1, -1)[..., 0].astype(float)
    i = i[..., 0]
    share = (threshold - low) / np.where(high > low, high - low, 1.0)
    crossed = np.where(up.any(axis=-1), times[i] + share * (times[i + 1] - times[i]), np.nan)
    return np.where(V[..., 0] >= threshold, times[0], crossed)


def _march(stepper: Stepper, V: Tensor, W: Tensor, frames: int, substeps: int, keep_W: bool) -> Simulation:
    lat = torch.where(V >= THRESHOLD, 0.0, torch.nan).to(V.dtype)
    movie = [[x.to(torch.float32)] for x in ((V, W) if keep_W else (V,))]
    for number in range((frames - 1) * substeps):
        before = V
        V, W = stepper(V, W, number)
        crossed = (before < THRESHOLD) & (V >= THRESHOLD) & lat.isnan()
        share = (THRESHOLD - before) / (V - before)
        lat = torch.where(crossed, (number + share) * stepper.step, lat)
        if (number + 1) % substeps == 0:
            for kept, x in zip(movie, (V, W), strict=False):
                kept.append(x.to(torch.float32))
    if not bool(torch.isfinite(V).all() & torch.isfinite(W).all()):
        raise InputError(
            "simulate", "the run left the model's range (values not finite)", fix="smaller stimuli, parameters nearer the defaults"
        )
    stacked = [torch.stack(kept, dim=-1).cpu().numpy() for kept in movie]  # (N, F) or (N, B, F)
    V_movie, W_movie = _runs_first(stacked[0]), (_runs_first(stacked[1]) if keep_W else None)
    times = np.arange(frames) * stepper.step * substeps
    end = Start(V.T.cpu().numpy() if V.ndim > 1 else V.cpu().numpy(), W.T.cpu().numpy() if W.ndim > 1 else W.cpu().numpy())
    return Simulation(times, V_movie, W_movie, lat.T.cpu().numpy() if V.ndim > 1 else lat.cpu().numpy(), end, stepper.step, stepper.stages)


def _runs_first(frames: np.ndarray) -> np.ndarray:
    return np.moveaxis(frames, 1, 0) if frames.ndim == 3 else frames


def _initial(start: Start, nodes: int, D_factor: Sequence[float] | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """V, W as (N,) or, for several runs, (N, B): nodes first, so that one sparse product serves all runs."""
    V, W = (torch.as_tensor(np.asarray(x, float), dtype=like.dtype, device=like.device) for x in (start.V, start.W))
    if max(V.ndim, W.ndim) > 1 or D_factor is not None:
        runs = max([1 if D_factor is None else len(D_factor), *(x.shape[0] for x in (V, W) if x.ndim > 1)])
        shape = (runs, nodes)
    else:
        shape = (nodes,)  # type: ignore[assignment]
    if any(x.ndim and x.shape[-1] != nodes for x in (V, W)):
        raise InputError(
            "simulate", "the initial V or W does not fit the mesh", found=f"{tuple(V.shape)}, {tuple(W.shape)}", fix=f"give {nodes} values"
        )
    V, W = (x.expand(shape).T.contiguous() if len(shape) > 1 else x.expand(shape).clone() for x in (V, W))
    if not bool(torch.isfinite(V).all() & torch.isfinite(W).all()):
        raise InputError("simulate", "the initial V or W is not finite", fix="check for NaN")
    return V, W


def _indicator(stimulus: Stimulus, like: Tensor) -> Tensor:
    nodes = np.asarray(stimulus.nodes)
    index = torch.as_tensor(np.flatnonzero(nodes) if nodes.dtype == bool else nodes, device=like.device)
    if len(index) == 0:
        raise InputError("simulate", "a stimulus touches no node", fix="make it larger than the mesh's edges")
    return torch.zeros_like(like).index_fill(0, index.long(), 1.0)


def _check_times(mesh: Mesh, duration: float, frame_step: float, max_step: float) -> None:
    for name, value in (("duration", duration), ("frame step", frame_step), ("step", max_step)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(mesh.source, f"the {name} must be positive", found=value, fix="give a time in the unit of --time-unit")
    if frame_step > duration:
        raise InputError(mesh.source, "the frame step is longer than the run", found=f"{frame_step:g} of {duration:g} TU", fix="shorten it")


def _check_memory(mesh: Mesh, values: int) -> None:
    if values > 2_000_000_000:
        raise InputError(
            mesh.source, "the frames would not fit in memory", found=f"{values * 4e-9:.0f} GB", fix="fewer frames or a coarser mesh"
        )
