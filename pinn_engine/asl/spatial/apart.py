"""Voxels that stand apart from smooth fields: vessels, and whatever else a single voxel holds.

A mixture, voxel by voxel: nothing, or a change of its own of relative flow and arrival, N(0, sd^2) of both, whose share of the voxels is
learnt from the scan (adaptive shrinkage: Stephens 2017, doi:10.1093/biostatistics/kxw041). The flow is integrated out in closed form, the
arrival on the grid, so that it may lie far from the field's. Only what noise does not explain moves: on brains of smooth fields nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arterial import Marginal
from .loose import SLABS, likely
from .model import SHIFT, BrainModel

CHUNK = 2048


@dataclass(frozen=True)
class Apart:
    """Expected change of relative flow and arrival (2, V), its covariance (2, 2, V), and the share of voxels that stand apart."""

    change: Tensor
    covariance: Tensor
    share: float


def apart(model: BrainModel, fields: Tensor) -> Apart:
    """Of every voxel beside its `fields` (2T, V)."""
    reach = round(SHIFT / model.step)
    shift = torch.arange(-reach, reach + 1, device=model.device) * model.step
    pieces = [_weigh(*part, shift, reach) for part in _scores(model, fields, shift)]
    evidence, moments = (torch.cat(of) for of in zip(*pieces, strict=True))
    kind = likely(evidence)
    m, d, mm, md, dd = torch.einsum("vk,vki->iv", kind, moments)
    covariance = torch.stack([torch.stack([mm - m * m, md - m * d]), torch.stack([md - m * d, dd - d * d])])
    return Apart(torch.stack([m, d]), covariance, float(kind[:, 1:].sum(dim=1).mean()))


def _scores(model: BrainModel, fields: Tensor, shift: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each chunk, at every shift of arrival, (B, J): cost of the data, score and information on relative flow; arrivals allowed."""
    for rows in torch.arange(len(model.data), device=model.device).split(CHUNK):
        curve, slope, allowed = model.shifted(fields, rows, shift)
        precision = model.precision[rows].unsqueeze(1) * model.noise_excess**0.5  # one voxel is no structure
        residual, column = precision * (model.data[rows].unsqueeze(1) - curve), precision * slope
        if model.marginal is not None:  # arterial blood is no change of tissue
            own = model.marginal.take(rows)
            artery = Marginal(own.column * model.noise_excess**0.5, own.mean, own.sd)
            residual, column = (torch.stack([artery.rows(one) for one in of.unbind(dim=1)], dim=1) for of in (residual, column))
        yield 0.5 * residual.square().sum(dim=2), (residual * column).sum(dim=2), column.square().sum(dim=2), allowed


def _weigh(cost: Tensor, score: Tensor, information: Tensor, allowed: Tensor, shift: Tensor, here: int) -> tuple[Tensor, Tensor]:
    """Log evidence (B, 1 + slabs) of no change and of each slab, and first and second moments (B, 1 + slabs, 5): m, d, mm, md, dd."""
    evidence, moments = [-cost[:, here]], [cost.new_zeros(len(cost), 5)]
    for sd, sd_arrival in SLABS:
        left = information + sd**-2
        m, variance = score / left, 1 / left
        prior = torch.where(allowed, -0.5 * (shift / sd_arrival) ** 2, -torch.inf).log_softmax(dim=1)
        log = prior - cost + 0.5 * score * m - 0.5 * (left * sd**2).log()
        evidence.append(log.logsumexp(dim=1))
        at = log.softmax(dim=1)
        each = (m, shift.expand_as(m), m**2 + variance, m * shift, (shift**2).expand_as(m))
        moments.append(torch.stack([(at * one).sum(dim=1) for one in each], dim=1))
    return torch.stack(evidence, dim=1), torch.stack(moments, dim=1)
