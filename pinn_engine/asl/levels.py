"""How large the errors are: noise measured on the scan, and the level of model error that its data support."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .curves import Curves, with_residual_noise
from .plan import Plan, Tables

MODEL_ERROR_LEVELS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35)  # sd of the model error per typical signal
LEAST_MODEL_ERROR = 0.05  # what fitted parameters absorb of a wrong model leaves no trace in the residuals: evidence alone is too sure
EVIDENCE_VOXELS = 4000


def measured_noise(plan: Plan) -> Curves:
    """Noise from repeats; without repeats from the residuals of the closed form on the arrival grid."""
    c = plan.c
    if c.degrees:
        return c
    tables = plan.closed_tables().to(plan.device, plan.dtype)
    flat = replace(c, noise=np.ones_like(c.noise))
    plan.c = flat
    in_order = np.empty(len(c), np.float32)
    for rows in plan.chunks():
        in_order[rows.numpy()] = _profile_chi2(plan, rows, tables)
    plan.c = c
    return with_residual_noise(c, in_order, 1 + ("att" in plan.s.unknown))


def _profile_chi2(plan: Plan, rows: Tensor, tables: Tables) -> np.ndarray:
    data, _ = plan.whitened(rows, tables, 0.0)
    att, flow = plan.start(rows, tables, 0.0)
    grid = plan.rows_of(rows, tables.grid)
    column = torch.searchsorted(plan.att.to(data), att.contiguous()).clamp_max(grid.shape[1] - 1)
    curve = grid[0][column] if grid.shape[0] == 1 else grid[torch.arange(len(rows)), column]
    return ((data - flow.unsqueeze(1) * curve) ** 2).sum(dim=1).cpu().numpy()


def model_error_by_evidence(plan: Plan) -> float:
    """The level of model error that makes the scan's data most probable: sum over voxels of log p(data | level)."""
    generator = torch.Generator().manual_seed(plan.s.seed)
    rows = torch.randperm(len(plan.c), generator=generator)[:EVIDENCE_VOXELS].sort().values
    scores = [plan.evidence(rows, level * plan.equation_unit) for level in MODEL_ERROR_LEVELS]
    return MODEL_ERROR_LEVELS[int(np.argmax(scores))]
