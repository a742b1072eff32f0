"""Where a map fit starts: activation times smoothed over the mesh, or found in V by a matched filter; and the typical D."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import Huber
from ..core.sparse_linear import factorise
from .beat import Beat
from .eikonal import EikonalDiffusion, front_constant
from .fem import Elements
from .mapfit import Samples
from .model import AlievPanfilov


def laplacian(element: Elements) -> tuple[Any, np.ndarray]:
    """K (N, N) with D = 1 and the lumped mass (N,)."""
    from scipy.sparse import coo_matrix

    K = torch.einsum("m,mci,mdi->mcd", element.size, element.gradients, element.gradients)
    cells, corners = element.cells.numpy(), element.cells.shape[1]
    i, j = np.repeat(cells, corners, axis=1).ravel(), np.tile(cells, (1, corners)).ravel()
    return coo_matrix((K.numpy().ravel(), (i, j)), shape=(element.nodes,) * 2).tocsr(), element.mass.numpy()


def spline(element: Elements, data: Samples, stiffness: float = 1.0, knee: float = 2.0, rounds: int = 6) -> Tensor:
    """T (N,) that minimises Huber(I T - y) + `stiffness` * (patch between data)^2 * |lap T|^2: a robust thin plate on the mesh."""
    from scipy.sparse import csr_matrix, diags

    K, mass = laplacian(element)
    place = csr_matrix((data.weight.numpy(), (data.row.numpy(), data.column.numpy())), shape=(len(data.value), element.nodes))
    y, sd = data.value.numpy(), data.sd.numpy()
    share = mass.sum() / len(y)
    dimension = element.cells.shape[1] - 1
    bending = K @ diags(1.0 / mass) @ K * (stiffness * share ** ((4 - dimension) / dimension))
    ridge = 1e-9 * bending.diagonal().max()
    weight = np.ones(len(y))
    T = np.zeros(element.nodes)
    unit = max(float(np.median(sd)), 1e-9)
    for _ in range(rounds):
        normal = place.T @ diags(weight) @ place + bending + diags(np.full(element.nodes, ridge))
        T = factorise(normal).solve(place.T @ (weight * y))
        off = place @ T - y
        scale = max(1.4826 * float(np.median(np.abs(off))), unit)
        weight = Huber(knee).weight(torch.from_numpy(off / scale)).numpy()
    return torch.from_numpy(T)


def typical_D(equation: EikonalDiffusion, T: Tensor, model: AlievPanfilov) -> float:
    """Median over the tissue of the D that plain eikonal gives: 1 / (c0^2 grad T . G grad T), mm^2/TU."""
    e = equation.element
    gradient = e.gradient(T)
    slowness = (gradient * equation.along(gradient)).sum(dim=1).numpy()
    order = np.argsort(slowness)
    share = np.cumsum(e.size.numpy()[order])
    middle = slowness[order][np.searchsorted(share, 0.5 * share[-1])]
    return float(1.0 / (front_constant(model) ** 2 * max(middle, 1e-12)))


def matched_filter(element: Elements, data: Samples, beat: Beat, *, step: float = 0.4) -> tuple[Tensor, Tensor, float]:
    """Activation times found in samples of V without any start: (times (N,), their weight (N,), mean capped misfit at the best times).

    Each node's misfit against every trial time is spread over as many neighbours as hold about 100 samples.
    """
    from scipy.sparse import diags

    assert data.time is not None
    time, v = data.time, data.value
    frames, which = torch.unique(time, return_inverse=True)
    trial = torch.arange(float(frames[0]) - 10.0, float(frames[-1]) + 2.0, step, dtype=torch.float64)
    phi = beat.V_and_slope(frames[:, None] - trial[None, :])[0]  # (F, K)
    n = element.nodes
    heavy = data.weight.abs() > 1e-9
    row, column, weight = data.row[heavy], data.column[heavy], data.weight[heavy]
    place = column * len(frames) + which[row]
    seen = torch.zeros(n * len(frames), dtype=torch.float64).index_add(0, place, weight).reshape(n, -1)
    sum_v = torch.zeros_like(seen).reshape(-1).index_add(0, place, weight * v[row]).reshape(n, -1)
    sum_vv = torch.zeros_like(seen).reshape(-1).index_add(0, place, weight * v[row] ** 2).reshape(n, -1)
    misfit = sum_vv.sum(dim=1, keepdim=True) - 2.0 * sum_v @ phi + seen @ phi**2  # (N, K)
    count = seen.sum(dim=1)
    K, mass = laplacian(element)
    total = mass.sum()
    reach = 100.0 / max(float(count.sum()), 1.0) * total  # mm^2 (or mm^3) that hold 100 samples
    dimension = element.cells.shape[1] - 1
    tau = max(reach ** (2.0 / dimension) / 12.0, (total / n) ** (2.0 / dimension) / 4.0)
    smoother = factorise(diags(mass) + tau * K)
    spread = np.concatenate([misfit.numpy(), count.numpy()[:, None]], axis=1)
    spread = smoother.solve(mass[:, None] * smoother.solve(spread))  # sums at nodes -> density, blurred twice
    smooth, local = spread[:, :-1], np.maximum(spread[:, -1], 1e-9 * count.sum().item() / total)
    best = smooth.argmin(axis=1)
    nodes = np.arange(n)
    cost = smooth[nodes, best] / local
    at = trial.numpy()[best]
    inner = np.clip(best, 1, len(trial) - 2)  # parabola through the three lowest
    left, m, right = (smooth[nodes, inner + d] for d in (-1, 0, 1))
    bend = left - 2 * m + right
    at = np.where((inner == best) & (bend > 0), trial.numpy()[inner] + 0.5 * step * (left - right) / np.where(bend > 0, bend, 1.0), at)
    sharp = np.maximum(np.ptp(smooth, axis=1) / local, 0.0)
    return torch.from_numpy(at), torch.from_numpy(sharp), float(np.average(cost, weights=mass))
