"""The arrival-time grid: where the search starts, and the evidence for a level of model error.

The misfit has several minima in ATT (a kink at every data time), so the search starts from the best point of a grid with the flow
eliminated. Summed over the grid the same scores give the probability of the data.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_start(data: Tensor, precision: Tensor, table: Tensor, att: Tensor, log_prior: Tensor, flow_sd: float) -> tuple[Tensor, Tensor]:
    """The most probable arrival time of the grid and its flow, each (B,).

    `data` (B, K) rotated rows, `precision` (B, K) their 1/sd, `table` (B or 1, A, K) predictions of unit flow, `att` and `log_prior` (A,).
    Flow has the prior N(0, flow_sd^2) and is eliminated exactly: it enters linearly.
    """
    cross, total = _scores(data, precision, table, flow_sd)
    flow = cross / total
    best = (0.5 * cross * flow + log_prior).argmax(dim=1, keepdim=True)
    return att[best.squeeze(1)], flow.gather(1, best).squeeze(1)


def log_evidence(data: Tensor, precision: Tensor, table: Tensor, log_prior: Tensor, flow_sd: float) -> Tensor:
    """(B,) log p(data) up to a constant that depends on neither the precision nor the table; arguments as for `best_start`."""
    cross, total = _scores(data, precision, table, flow_sd)
    mass = 0.5 * cross * cross / total - 0.5 * torch.log(total * flow_sd**2) + log_prior
    return mass.logsumexp(dim=1) + precision.log().sum(dim=1) - 0.5 * (data * precision).square().sum(dim=1)


def _scores(data: Tensor, precision: Tensor, table: Tensor, flow_sd: float) -> tuple[Tensor, Tensor]:
    """Per grid point (B, A): data against prediction, and the information on the flow."""
    weight = precision * precision
    if table.shape[0] == 1:
        return (data * weight) @ table[0].T, weight @ (table[0] ** 2).T + flow_sd**-2
    return (table @ (data * weight).unsqueeze(2)).squeeze(2), (table**2 @ weight.unsqueeze(2)).squeeze(2) + flow_sd**-2
