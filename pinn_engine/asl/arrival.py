"""The arrival-time grid: where the search starts, and the evidence for a level of model error.

The misfit has several minima in ATT (a kink at every data time), so the search starts from the best point of a grid with the flow
eliminated. Summed over the grid the same scores give the probability of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridPosterior:
    """Per voxel (B,): the best grid point, and `evidence` = log p(data) up to a constant."""

    best_att: Tensor
    best_flow: Tensor
    evidence: Tensor


def grid_posterior(data: Tensor, precision: Tensor, table: Tensor, att: Tensor, log_prior: Tensor, flow_sd: float) -> GridPosterior:
    """Posterior of (flow, ATT) on a grid of A arrival times.

    `data` (B, K) rotated rows, `precision` (B, K) their 1/sd, `table` (B or 1, A, K) predictions of unit flow, `att` and `log_prior` (A,).
    Flow has the prior N(0, flow_sd^2) and is integrated out exactly: it enters linearly.
    """
    weight = precision * precision
    if table.shape[0] == 1:
        cross, power = (data * weight) @ table[0].T, weight @ (table[0] ** 2).T
    else:
        cross = (table @ (data * weight).unsqueeze(2)).squeeze(2)
        power = (table**2 @ weight.unsqueeze(2)).squeeze(2)
    total = power + flow_sd**-2
    flow = cross / total
    score = 0.5 * cross * flow + log_prior
    best = score.argmax(dim=1, keepdim=True)
    mass = (score - 0.5 * torch.log(total * flow_sd**2)).logsumexp(dim=1)
    evidence = mass + precision.log().sum(dim=1) - 0.5 * (data * data * weight).sum(dim=1)
    return GridPosterior(att[best.squeeze(1)], flow.gather(1, best).squeeze(1), evidence)
