"""The model as a differentiable map from (V0, W0, log D, a, b) to frames of V: forward, tangent and adjoint, by hand.

Each reaction step keeps its 2 x 2 Jacobian at every node (exact, by forward mode); diffusion is a polynomial of one symmetric operator and
so its own adjoint in the lumped mass. A tangent or an adjoint then costs about as much as a run of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files.mesh import Mesh
from .fem import Diffusion, Elements, Stiffness, elements, local_stiffness, stiffness, tensors
from .model import GUARD, AlievPanfilov
from .shapes import grid_mesh
from .simulate import activation_time, evenly_spaced, rkl2_coefficients, stages_for


@dataclass(frozen=True)
class Frames:
    """Even frames: `count` of them, `substeps` steps of `step` TU between two."""

    count: int
    substeps: int
    step: float

    @classmethod
    def over(cls, times: np.ndarray, longest: float) -> Frames:
        if not evenly_spaced(times):
            raise InputError("frames", "are not evenly spaced", fix="give evenly spaced frames")
        gap = float(np.diff(times).mean())
        substeps = math.ceil(gap / longest - 1e-9)
        return cls(len(times), substeps, gap / substeps)


class Propagator:
    """Frames of V on one mesh. States are (2, N) or (2, N, C) for C columns at once: V, W."""

    def __init__(self, operator: Stiffness, frames: Frames, largest_D: float):
        self.operator, self.frames, self.largest_D = operator, frames, largest_D
        self.coefficients = rkl2_coefficients(stages_for(operator.bound * largest_D * frames.step))

    def run(self, state: Tensor, D: float, model: AlievPanfilov, slopes: tuple[str, ...] | None = None) -> Run:
        """From (2, N) at the first frame. `slopes`: keep what tangent and adjoint need, by these numbers too (of a, b)."""
        if not 0.0 < D <= self.largest_D:
            raise ValueError(f"D = {D:g} is outside (0, {self.largest_D:g}]: the step would not be stable")
        V, W = state
        step, half = self.frames.step, 0.5 * self.frames.step
        frames, hidden, kept = [V], [W], []
        for _ in range(self.frames.count - 1):
            for k in range(self.frames.substeps + 1):
                length = half if k in (0, self.frames.substeps) else step
                if slopes is not None:
                    kept.append(reaction_slopes(V, W, model, length, slopes))
                V, W = model.midpoint(V, W, length)
                if k < self.frames.substeps:
                    V = self.diffuse(V, D)
                    if slopes is not None:
                        kept[-1] = replace(kept[-1], spread=self.operator(V) * (-D * step) if "D" in slopes else None)
            frames.append(V)
            hidden.append(W)
        return Run(self, D, torch.stack(frames), torch.stack(hidden), kept, slopes or ())

    def diffuse(self, V: Tensor, D: float) -> Tensor:
        """RKL2 over one step, see simulate.Stepper."""
        scale, stages = -self.frames.step * D, len(self.coefficients) + 1
        first = scale * self.operator(V)
        before, now = V, torch.add(V, first, alpha=4.0 / 3.0 / (stages**2 + stages - 2))
        for mu, nu, rest, slope, slope_first in self.coefficients:
            rate = scale * self.operator(now)
            before, now = now, mu * now + nu * before + rest * V + slope * rate + slope_first * first
        return now


@dataclass(frozen=True)
class Linear:
    """One reaction step: `J` (4, N) = dV'/dV, dW'/dV, dV'/dW, dW'/dW; `by` (2, N) by each number; `spread` (N,): dV/d log D of the
    diffusion that follows it."""

    J: Tensor
    by: dict[str, Tensor]
    spread: Tensor | None = None


@dataclass(frozen=True)
class Run:
    """`V`, `W` (F, N) at the frames."""

    at: Propagator
    D: float
    V: Tensor
    W: Tensor
    steps: list[Linear]
    names: tuple[str, ...]

    def tangent(self, state: Tensor) -> Tensor:
        """A change (2, N, C) of the first frame's V, W -> what it changes in V (F, N, C)."""
        return self._tangent(state, False)

    def by_numbers(self) -> Tensor:
        """(F, N, P): what log D, a, b change in V, the first frame held."""
        return self._tangent(self.V.new_zeros(2, self.V.shape[1], len(self.names)), True)

    def _tangent(self, state: Tensor, forced: bool) -> Tensor:
        v, w = state
        out, substeps = [v], self.at.frames.substeps
        column = {name: i for i, name in enumerate(self.names)}
        for number, one in enumerate(self.steps):
            vv, wv, vw, ww = one.J[:, :, None]
            v, w = vv * v + vw * w, wv * v + ww * w
            if forced:
                for name, slope in one.by.items():
                    v[:, column[name]] += slope[0]
                    w[:, column[name]] += slope[1]
            if number % (substeps + 1) < substeps:
                v = self.at.diffuse(v, self.D)
                if forced and one.spread is not None:
                    v[:, column["D"]] += one.spread
            else:
                out.append(v)
        return torch.stack(out)

    def adjoint(self, frames: Tensor) -> Tensor:
        """Transpose of `tangent`: (F, N, C) -> (2, N, C)."""
        mass, substeps = self.at.operator.mass[:, None], self.at.frames.substeps
        v, w = torch.zeros_like(frames[0]), torch.zeros_like(frames[0])
        frame = len(frames) - 1
        for number in range(len(self.steps) - 1, -1, -1):
            if number % (substeps + 1) < substeps:
                v = mass * self.at.diffuse(v / mass, self.D)
            else:
                v = v + frames[frame]
                frame -= 1
            vv, wv, vw, ww = self.steps[number].J[:, :, None]
            v, w = vv * v + wv * w, vw * v + ww * w
        return torch.stack([v + frames[0], w])


def rate_slopes(V: Tensor, W: Tensor, model: AlievPanfilov) -> tuple[Tensor, dict[str, Tensor]]:
    """(4, N) dV_t/dV, dW_t/dV, dV_t/dW, dW_t/dW of `model.rates`, and (2, N) by a and b."""
    a, b, k = model.a, model.b, model.k
    over = V.clip(min=GUARD) + model.mu2
    g, rest = model.recovery_rate(V, W), -W - k * V * (V - b - 1.0)
    g_V = torch.where(V > GUARD, -model.mu1 * W / over**2, 0.0)
    by_V = -k * (3.0 * V**2 - 2.0 * (1.0 + a) * V + a) - W, g_V * rest - g * k * (2.0 * V - b - 1.0)
    by_W = -V, model.mu1 / over * rest - g
    none = torch.zeros_like(V)
    return torch.stack([*by_V, *by_W]), {"a": torch.stack([k * V * (V - 1.0), none]), "b": torch.stack([none, g * k * V])}


def reaction_slopes(V: Tensor, W: Tensor, model: AlievPanfilov, step: float, names: tuple[str, ...]) -> Linear:
    """The Jacobian of `model.midpoint`: I + step F(middle) (I + step/2 F(start)), F = d rates / d (V, W)."""
    F, by = rate_slopes(V, W, model)
    V_t, W_t = model.rates(V, W)
    G, by_middle = rate_slopes(V + 0.5 * step * V_t, W + 0.5 * step * W_t, model)
    eye = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=V.dtype)[:, None]
    total: dict[str, Tensor] = {n: step * (by_middle[n] + _apply(G, 0.5 * step * by[n])) for n in ("a", "b") if n in names}
    columns = (eye + 0.5 * step * F).view(2, 2, -1)  # (column, row, N)
    return Linear(eye + step * torch.cat([_apply(G, columns[0]), _apply(G, columns[1])]), total)


def _apply(J: Tensor, x: Tensor) -> Tensor:
    """2 x 2 at each node (4, N) times (2, N)."""
    return torch.stack([J[0] * x[0] + J[2] * x[1], J[1] * x[0] + J[3] * x[1]])


def grid_slowing(element: Elements, mesh: Mesh, D: float, model: AlievPanfilov, step: float) -> float:
    """True D over the D that this grid and step need for the same speed of a front.

    P1 elements with a lumped mass lose c q^2 of the diffusion of a wave of length 2 pi / q (mean over directions: h^2/16 on squares and on
    equilateral triangles); a cable with the same c is run beside a fine one.
    """
    c = float(torch.median(grid_error(element, mesh)))
    speed = []
    for h, longest in ((max((12.0 * c) ** 0.5, 0.05 * float(model.front_scale(D))), step), (0.25 * float(model.front_scale(D)), 0.02)):
        n = round(50.0 * float(model.front_scale(D)) / h)
        cable, _ = grid_mesh((n, 2), h)
        e = elements(cable)
        x = torch.from_numpy(cable.points[:, 0])
        V = torch.sigmoid(5.0 - x / float(model.front_scale(D)))
        times = np.linspace(0.0, 25.0 * float(model.front_scale(D) / model.speed(D)), 60)
        run = Propagator(stiffness(e, tensors(e, Diffusion(1.0))), Frames.over(times, longest), D).run(torch.stack([V, 0.0 * V]), D, model)
        seen = ((x > 0.3 * x.max()) & (x < 0.5 * x.max())).numpy()
        speed.append(1.0 / np.polyfit(x.numpy()[seen], activation_time(run.V.T.numpy()[seen], times), 1)[0])
    return float((speed[0] / speed[1]) ** 2)


def grid_error(element: Elements, mesh: Mesh) -> Tensor:
    """c (N,) mm^2: the sum over neighbours of the stiffness weight times |x|^4, averaged over directions, over 24."""
    K = local_stiffness(element, torch.ones_like(element.size))
    corner = torch.as_tensor(mesh.points, dtype=element.size.dtype)[element.cells]
    far = (corner[:, :, None] - corner[:, None, :]).square().sum(-1).square()
    share = -(K * far).sum(2)
    total = torch.zeros_like(element.mass).index_add(0, element.cells.reshape(-1), share.reshape(-1))
    mean = {3: 3.0 / 8.0, 4: 1.0 / 5.0}[element.cells.shape[1]]  # of cos^4 in the plane, in space
    return (total / element.mass * mean / 24.0).clamp_min(0.0)
