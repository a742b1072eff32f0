"""The arrival-time grid: multi-start, posterior moments by quadrature, and the evidence for a level of model error.

The misfit has several minima in ATT (a kink at every data time), so the search starts from the best point of a grid with the flow
eliminated. The same table of scores, normalised, is the posterior of ATT: its moments are honest where a Gaussian at the optimum is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridPosterior:
    """Per voxel (B,): the best grid point and the posterior moments of ATT and flow; `evidence` is log p(data)."""

    best_att: Tensor
    best_flow: Tensor
    att_mean: Tensor
    att_sd: Tensor
    flow_mean: Tensor
    flow_sd: Tensor
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
    mass = score - 0.5 * torch.log(total * flow_sd**2)
    best = score.argmax(dim=1, keepdim=True)
    log_total = mass.logsumexp(dim=1)
    share = torch.exp(mass - log_total.unsqueeze(1))
    att_mean = share @ att
    att_var = (share @ (att * att) - att_mean**2).clamp_min(0) + (att[1] - att[0]) ** 2 / 12
    flow_mean = (share * flow).sum(dim=1)
    flow_var = (share * (1 / total + flow**2)).sum(dim=1) - flow_mean**2
    evidence = log_total + precision.log().sum(dim=1) - 0.5 * (data * data * weight).sum(dim=1)
    best_flow = flow.gather(1, best).squeeze(1)
    return GridPosterior(att[best.squeeze(1)], best_flow, att_mean, att_var.sqrt(), flow_mean, flow_var.clamp_min(0).sqrt(), evidence)
