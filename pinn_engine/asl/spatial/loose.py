"""Voxels that may stand apart while the fields are fitted, so that a vessel does not shine into its neighbours.

The mixture of `apart.py`, linearised: a voxel has nothing of its own, or a change of relative flow and arrival of its own, N(0, sd^2),
whose share of the voxels is learnt turn by turn. Integrated out, a likely change leaves the fields next to nothing of the voxel's data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.smooth_fit import Linearised

SLABS = ((0.4, 0.4), (1.6, 0.4))  # sd of the relative change of flow, and of the change of arrival in s
NONE = 10.0  # voxels that count as no change beforehand
MOST = 0.05  # share of voxels, at most, that the fields need not explain: else, where every voxel differs, none of them is left to share
TURNS, LOOK, SAME = 200, 5, 1e-5  # of expectation maximisation; after every how many it may end, where a turn changes so little


def likely(evidence: Tensor, most: float = 1.0) -> Tensor:
    """(V, K) probability of each kind of voxel, the first being no change, from log evidence (V, K); the shares of kinds are learnt."""
    likelihood = (evidence - evidence.amax(dim=1, keepdim=True)).double().exp()
    share = likelihood.new_full((evidence.shape[1],), 1 / evidence.shape[1])
    for turn in range(TURNS):
        before, share = share, share * (likelihood.T @ (1 / (likelihood @ share)))
        share[0] += NONE
        changed = share[1:] / share.sum()
        changed = changed * (most / changed.sum().clamp_min(1e-20)).clamp_max(1)
        share = torch.cat([1 - changed.sum(dim=0, keepdim=True), changed])
        if turn % LOOK == LOOK - 1 and float((share - before).abs().max()) < SAME:
            break
    weighed = likelihood * share
    return (weighed / weighed.sum(dim=1, keepdim=True)).to(evidence)


@dataclass(frozen=True)
class Loose:
    """`likely` (V, 1 + slabs): how likely a voxel has no change of its own, or one of each slab; `excess`: what data count less by.

    `count`: tissues with fields of their own.
    """

    likely: Tensor
    excess: float
    count: int

    @classmethod
    def of(cls, data: Linearised, excess: float, count: int) -> Loose:
        """From data linearised at 2 `count` fields; one voxel is no structure, so here its data count in full."""
        gradient, _, information = of_change(data, count)
        evidence = [torch.zeros_like(data[2])]
        for slab in SLABS:
            inverse, log_volume = _posterior(information * excess, slab)
            gain = excess**2 * torch.einsum("av,abv,bv->v", gradient, inverse, gradient)
            evidence.append(0.5 * (gain - log_volume))
        return cls(likely(torch.stack(evidence, dim=1), MOST), excess, count)

    def freed(self, data: Linearised) -> Linearised:
        """Linearised data with the voxel's own change integrated out, as far as there is one."""
        gradient, information, cost = data
        by_change, across, on_change = of_change(data, self.count)
        for p, (flow, arrival) in zip(self.likely[:, 1:].T, SLABS, strict=True):
            inverse, _ = _posterior(on_change, (flow * self.excess**0.5, arrival * self.excess**0.5))
            taken = p * torch.einsum("abv,bfv->afv", inverse, across)
            gradient = gradient - torch.einsum("afv,av->fv", taken, by_change)
            information = information - torch.einsum("afv,agv->fgv", taken, across)
            cost = cost - 0.5 * p * torch.einsum("av,abv,bv->v", by_change, inverse, by_change)
        return gradient, information, cost


def together(values: Tensor, count: int) -> Tensor:
    """(2, …) of what moves the fields of all `count` tissues alike, by sums over (2 count, …)."""
    return values.unflatten(0, (2, count)).sum(dim=1)


def of_change(data: Linearised, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (2, V) on a voxel's change, information across it and the fields (2, 2 count, V), and on it (2, 2, V)."""
    across = together(data[1], count)
    return together(data[0], count), across, together(across.transpose(0, 1), count)


def _posterior(information: Tensor, slab: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(2, 2, V) covariance of a change with this prior, and (V,) log determinant of prior over posterior."""
    flow, arrival = slab[0] ** -2, slab[1] ** -2
    a, b, c = information[0, 0], information[0, 1], information[1, 1]
    determinant = (a * c - b * b).clamp_min(0) + a * arrival + c * flow + flow * arrival  # the difference may round to less than nothing
    inverse = torch.stack([torch.stack([c + arrival, -b]), torch.stack([-b, a + flow])]) / determinant
    return inverse, (determinant / (flow * arrival)).log()
