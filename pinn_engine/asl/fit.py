"""Fit a perfusion scan: the organ's one entry, `fit(scan, ...) -> PerfusionFit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core import LevenbergMarquardt, Problem, Solution, solve_in_chunks
from .curves import Curves, with_residual_noise
from .network import network_problem
from .plan import Plan, Tables
from .problems import FlowProblem

Progress = Callable[[str, float], None]

MODEL_ERROR_LEVELS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35)  # sd of the model error per typical signal
EVIDENCE_VOXELS = 4000
SOLVER = LevenbergMarquardt(steps=40, absolute=1e-5, smallest_step=1e-4)


def measured_noise(plan: Plan) -> Curves:
    """Noise from repeats; without repeats from the residuals of the closed form on the arrival grid."""
    c = plan.c
    if c.degrees:
        return c
    tables = plan.closed_tables().to(plan.device, plan.dtype)
    flat = replace(c, noise=np.ones_like(c.noise))
    plan.c = flat
    chi2 = np.concatenate([_profile_chi2(plan, rows, tables) for rows in plan.order.split(plan.s.chunk)])
    in_order = np.empty_like(chi2)
    in_order[plan.order.numpy()] = chi2
    plan.c = c
    return with_residual_noise(c, in_order, 1 + ("att" in plan.s.unknown))


def _profile_chi2(plan: Plan, rows: Tensor, tables: Tables) -> np.ndarray:
    data, _ = plan.whitened(rows, tables, 0.0)
    best = plan.posterior(rows, tables, 0.0)
    grid = plan.rows_of(rows, tables.grid)
    column = torch.searchsorted(plan.att.to(data), best.best_att.contiguous()).clamp_max(grid.shape[1] - 1)
    curve = grid[0][column] if grid.shape[0] == 1 else grid[torch.arange(len(rows)), column]
    return ((data - best.best_flow.unsqueeze(1) * curve) ** 2).sum(dim=1).cpu().numpy()


def model_error_by_evidence(plan: Plan) -> float:
    """The level of model error that makes the scan's data most probable: sum over voxels of log p(data | level)."""
    generator = torch.Generator().manual_seed(plan.s.seed)
    rows = torch.randperm(len(plan.c), generator=generator)[:EVIDENCE_VOXELS].sort().values
    scores = [
        float(plan.posterior(rows, plan.tables, level * plan.equation_unit).evidence.double().nansum()) for level in MODEL_ERROR_LEVELS
    ]
    return MODEL_ERROR_LEVELS[int(np.argmax(scores))]


def solve(plan: Plan, model_error: float, progress: Progress | None = None) -> tuple[Solution, dict[str, Tensor]]:
    """All voxels in chunks of bounded size, back in the order of `plan.c`: the solution and the quadrature posterior's moments."""
    moments: list[dict[str, Tensor]] = []
    level = model_error * plan.equation_unit

    def build(rows: Tensor) -> tuple[Problem, Tensor]:
        start = plan.posterior(rows, plan.tables, level)
        moments.append({name: getattr(start, name).cpu() for name in ("att_mean", "att_sd", "flow_mean", "flow_sd")})
        if plan.s.method == "pinn" and plan.s.network == "mlp":
            return network_problem(plan, rows, level, start.best_att, start.best_flow)
        data, precision = plan.whitened(rows, plan.tables, level)
        unknowns = plan.unknowns()
        values = {"att": start.best_att, "t1b": torch.full_like(start.best_att, plan.t1b)}
        theta = unknowns.internal(values) if unknowns.size else data.new_zeros(len(rows), 0)
        return FlowProblem(plan.prediction(rows), data, precision, unknowns, plan.flow_sd), theta

    report = (lambda done: progress("fit", done)) if progress else None
    solution = solve_in_chunks(SOLVER, build, plan.order.split(plan.s.chunk), report)
    back = torch.argsort(plan.order)
    return solution.take(back), {name: torch.cat([m[name] for m in moments])[back] for name in moments[0]}
