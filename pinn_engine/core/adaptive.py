"""What adapts during a fit: where the equation is asked to hold, how much each point counts, how much each term counts.

All are plain functions of residuals, times and Jacobians; a fit calls them between the bursts of a solver:

    problem = problem.but({"equation": replace(term, points=by_residual(candidates, size, count, generator))})
"""

from __future__ import annotations

import torch
from torch import Tensor

from .pinn import Pinn


def spread(low: Tensor, high: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, 1 + d) points that fill the box evenly (scrambled Sobol sequence), float64; a side of no length stays at its value."""
    unit = torch.quasirandom.SobolEngine(len(low), scramble=True, seed=seed).draw(count, dtype=torch.float64)
    return low.double() + (high.double() - low.double()) * unit


def by_residual(candidates: Tensor, size: Tensor, count: int, generator: torch.Generator, power: float = 1.0, floor: float = 1.0) -> Tensor:
    """RAD: `count` of the candidates (M, .) with density |residual|^power / mean + floor (Wu et al. 2023, doi:10.1016/j.cma.2022.115671).

    A large floor is uniform; `power` 2 and more looks at the worst alone.
    """
    density = size.abs() ** power
    chosen = torch.multinomial(density / density.mean() + floor, count, generator=generator)
    return candidates[chosen]


def retain_resample_release(points: Tensor, size: Tensor, fresh: Tensor) -> Tensor:
    """R3: points whose |residual| is above the mean stay, the others give way to as many fresh ones (Daw et al. 2023, arXiv:2207.02338)."""
    keep = size.abs() > size.abs().mean()
    return torch.cat([points[keep], fresh[: len(points) - int(keep.sum())]])


def causal(time: Tensor, rows: Tensor, tolerance: float, chunks: int = 16) -> Tensor:
    """(N,) weights exp(-tolerance * sum of the earlier chunks' mean squares): what is late waits until what is early is solved.

    Wang, Sankaran & Perdikaris 2024, doi:10.1016/j.cma.2024.116813. `rows` (N,) or (N, k). All weights near 1 mean: solved everywhere.
    """
    square = rows**2 if rows.ndim == 1 else (rows**2).sum(dim=1)
    place = (time - time.min()) / (time.max() - time.min()).clamp_min(1e-300)
    chunk = (place * chunks).long().clamp(max=chunks - 1)
    total = torch.zeros(chunks, dtype=square.dtype, device=square.device).index_add(0, chunk, square)
    mean = total / torch.bincount(chunk, minlength=chunks).clamp_min(1)
    return torch.exp(-tolerance * (mean.cumsum(0) - mean))[chunk]


def balanced_by_gradient(problem: Pinn, theta: Tensor, lead: str) -> dict[str, float]:
    """Weights with which every term's gradient is as long as that of the term `lead`.

    Wang, Teng & Perdikaris 2021, doi:10.1137/20M1318043. Terms that are fitted already (gradient 0) keep weight 1. For first-order solvers:
    Gauss-Newton finds its own balance of steps.
    """
    length = {}
    for name in problem.parts:
        row, slope = problem.block(name, theta)
        length[name] = float((slope.transpose(1, 2) @ row.unsqueeze(2)).norm())
    return {name: length[lead] / own if own > 0 else 1.0 for name, own in length.items()}


def balanced_by_kernel(problem: Pinn, theta: Tensor) -> dict[str, float]:
    """Weights trace(K) / trace(K_term) of the tangent kernel K = J J^T: all terms then fall at about the same rate.

    Wang, Yu & Perdikaris 2022, doi:10.1016/j.jcp.2021.110768. The traces come from the Jacobian that Gauss-Newton has anyway.
    """
    trace = {name: float((problem.block(name, theta)[1] ** 2).sum()) for name in problem.parts}
    return {name: sum(trace.values()) / own if own > 0 else 1.0 for name, own in trace.items()}
