"""The planar travelling beat as a table: V and W against the time since activation. Its shape in time does not depend on D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .model import AlievPanfilov

BEFORE, STEP = 12.0, 0.04  # TU
DELTA_A, DELTA_B = 2e-3, 5e-3  # for slopes by a and b
CABLE, PROBE, SPACING = 13.0, 8.0, 0.1  # mm at D = 1


@dataclass(frozen=True)
class Beat:
    """`V`, `W` (S,) every STEP TU from -BEFORE on, 0 = the upward crossing of V = 0.5; `V_a`, `V_b`: slopes of V by a and b."""

    a: float
    b: float
    V: Tensor
    W: Tensor
    V_a: Tensor | None = None
    V_b: Tensor | None = None

    def V_and_slope(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """V(s) and V'(s), 1/TU; before the table its first value (tissue at rest), after it its last."""
        return _read(self.V, s)

    def W_at(self, s: Tensor) -> Tensor:
        return _read(self.W, s)[0]

    def parameter_slopes(self, s: Tensor) -> tuple[Tensor, Tensor]:
        assert self.V_a is not None
        assert self.V_b is not None
        return _read(self.V_a, s)[0], _read(self.V_b, s)[0]


def _read(table: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    place = (s + BEFORE) / STEP
    inside = (place >= 0) & (place < len(table) - 1)
    low = place.clamp(0, len(table) - 1.001).floor()
    i = low.long()
    rise = table[i + 1] - table[i]
    value = table[i] + (place.clamp(0, len(table) - 1.001) - low) * rise
    return value, torch.where(inside, rise / STEP, torch.zeros_like(rise))


def beats(models: Sequence[AlievPanfilov], duration: float = 100.0, slopes: bool = False) -> list[Beat]:
    """One table a model, all run together on a cable; `slopes` adds those by a and b (by differences)."""
    runs = list(models)
    if slopes:
        runs += [replace(m, a=m.a + DELTA_A) for m in models] + [replace(m, b=m.b + DELTA_B) for m in models]
    V, W = _cable(runs, duration)
    n = len(models)
    out = []
    for i, m in enumerate(models):
        V_a = (V[n + i] - V[i]) / DELTA_A if slopes else None
        V_b = (V[2 * n + i] - V[i]) / DELTA_B if slopes else None
        out.append(Beat(m.a, m.b, V[i], W[i], V_a, V_b))
    return out


def _cable(models: Sequence[AlievPanfilov], duration: float) -> tuple[Tensor, Tensor]:
    """V, W (B, S) at a probe on a cable with D = 1: Strang splitting, diffusion by the exact exponential (dense, 131 nodes)."""
    n = round(CABLE / SPACING) + 1
    lap = (np.diag(-2.0 * np.ones(n)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)) / SPACING**2
    lap[0, 1] = lap[-1, -2] = 2.0 / SPACING**2
    w, q = np.linalg.eig(lap)
    flow = torch.as_tensor(((q * np.exp(w * STEP)) @ np.linalg.inv(q)).real)
    many = AlievPanfilov(
        **{f: torch.tensor([float(getattr(m, f)) for m in models], dtype=torch.float64) for f in models[0].__dataclass_fields__}
    )
    x = torch.arange(n, dtype=torch.float64)[:, None] * SPACING
    scale = many.front_scale(1.0)
    V = torch.sigmoid((2.0 - x) / scale).expand(n, len(models)).clone()
    W = many.rest + torch.zeros_like(V)
    probe, half = round(PROBE / SPACING), 0.5 * STEP
    track: list[tuple[Tensor, Tensor]] = []
    crossing = np.full(len(models), -1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(100_000):
        V, W = many.midpoint(V, W, half)
        V = flow @ V
        V, W = many.midpoint(V, W, half)
        track.append((V[probe].clone(), W[probe].clone()))
        if (crossing < 0).any():
            crossing[(crossing < 0) & (V[probe] >= 0.5).numpy()] = step
            if step * STEP > 60.0:  # no wave travels with these values: a table of rest
                crossing[crossing < 0] = step
        elif step - crossing.max() > duration / STEP + 2:
            break
    torch.set_num_threads(threads)
    Vs, Ws = (torch.stack([pair[i] for pair in track], dim=1) for i in (0, 1))
    before, after = round(BEFORE / STEP), round(duration / STEP)
    grid = torch.arange(-before, after + 1)
    out = []
    for series in (Vs, Ws):
        rows = []
        for i, c in enumerate(crossing):
            low, high = Vs[i, c - 1], Vs[i, c]
            share = (0.5 - low) / (high - low) if high > low else torch.tensor(0.0)
            exact = (c - 1 + share) + grid  # the crossing lies between two steps
            j = exact.floor().clamp(0, series.shape[1] - 2).long()
            value = series[i, j] + (exact - j).clamp(0, 1) * (series[i, j + 1] - series[i, j])
            rows.append(torch.where(exact < 0, series[i, 0], value))  # ahead of the front
        out.append(torch.stack(rows))
    return out[0], out[1]
