"""What the data themselves say of a joint fit's intervals: where they check nothing, and where they say that the fit misses something."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.smooth_fit import SmoothFit
from .balls import Balls
from .foci import RADII
from .model import PURE, BrainModel

CHECKED, LEAST_KIND = 4, 200  # ball that the intervals are checked with; voxels of a tissue that is checked
SILENT = 0.02  # of the median information on flow in the largest ball
LOCAL = 12.0  # mm, sd of a neighbourhood that is checked by itself
EVERYWHERE = 0.5  # of what the tissue misses as a whole is missed at least, where its neighbourhood says less: that knows little by itself


def lack_of_fit(model: BrainModel, balls: Balls, spacing: np.ndarray, smooth: SmoothFit, silent: Tensor) -> Tensor:
    """(2T, V) variance of what the fit misses at the scale of large balls, by field: the data's own check of the intervals.

    In a ball whose field is off by a w, the pooled score u = sum(w score) has variance V + Var(a) V^2, V = sum(w^2 information) less
    what the fit has absorbed; w: the tissue's share of a voxel's signal, to the power PURE. A moment estimate a field over balls around
    voxels that are mostly its tissue, within LOCAL, and at least a part of that over all of them. Where steps or foci break the smooth
    prior this widens the intervals; where the data are `silent` (V,) they cannot check, and it is as elsewhere on the average.
    """
    gradient, information, _ = model.linearise(smooth.x + smooth.offset)
    own = information.diagonal().T
    pulled = own.unsqueeze(2) * smooth.samples
    signal = (model.unit / model.flow) ** PURE  # little grey matter in a voxel of white is most of its signal
    extra = torch.zeros_like(own)
    for k in range(len(own)):
        inside, w = model.share[:, k % model.count] > 0.5, signal[k % model.count].unsqueeze(1)
        if int((inside & ~silent).sum()) < LEAST_KIND:
            continue
        values = torch.cat([w * gradient[k].unsqueeze(1), w**2 * own[k].unsqueeze(1), w * pulled[k]], dim=1)
        total = balls.total(balls.forward(values), CHECKED)
        v = inside * (total[:, 1] - total[:, 2:].square().mean(dim=1)).clamp_min(0)
        excess, worth = inside * total[:, 0] ** 2 - v, v**2
        whole = (excess.sum() / worth.sum().clamp_min(1e-12)).clamp_min(0)
        here = balls.even((excess / worth.clamp_min(1e-12)).unsqueeze(1), worth.unsqueeze(1), LOCAL / spacing)[:, 0]
        extra[k] = torch.maximum(here, EVERYWHERE * whole)
        extra[k, silent] = torch.maximum(extra[k], extra[k, inside & ~silent].mean())[silent]
    return extra


def silent(model: BrainModel, balls: Balls, smooth: SmoothFit) -> Tensor:
    """(V,) True where the data of all voxels within the largest ball say next to nothing: what stands there is the prior's."""
    _, information = model.linearise_together(smooth.x + smooth.offset)
    around = balls.spread(information[0, 0].unsqueeze(1), RADII.index(max(RADII)))[:, 0]
    return around < SILENT * around.quantile(0.5)


def widened(smooth: SmoothFit, alike: Tensor, lack: Tensor) -> Tensor:
    """(2T, 2T, V) covariance of the fields with what moves all tissues alike (2, 2, V), and with what the fit misses (2T, V)."""
    count = len(lack) // 2
    common = alike.repeat_interleave(count, dim=0).repeat_interleave(count, dim=1)
    return smooth.variance + common + torch.diag_embed(lack.T).permute(1, 2, 0)
