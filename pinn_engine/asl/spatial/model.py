"""The perfusion model of all voxels at once: fields are relative flow m and arrival shift d, f = F + s m, ATT = D + d.

F and D are what the voxel's tissue has on the average; s = F except in fluid, whose F is about 0. So both fields, m without unit and d in
seconds, are about zero and smooth across a tissue. Predictions come from the plan's tables on its arrival grid, linear in between.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.smooth_fit import Linearised
from ..arrival import scores
from ..arterial import Marginal
from ..plan import Plan
from .tissue import Tissue

LEAST_FLOW = 0.05  # of the strongest tissue's: fluid, which has none, still needs a unit
LOWEST, HIGHEST = -2.0, 8.0  # of m
PURE = 4  # power of the share that a voxel counts with where pure tissue is wanted
POOL = 8  # steps of diffusion before the start is chosen
CHUNK = 8192


class BrainModel:
    """Whitened data, their precision and curves of unit flow for every voxel; `linearise` is what the joint fit asks for.

    `noise_excess` (see noise.py): what neighbours say alike by noise must not be taken for structure, so the data count that much less.
    """

    def __init__(self, plan: Plan, level: float, tissue: Tissue, noise_excess: float = 1.0):
        self.plan, self.tissue = plan, tissue
        rows = torch.arange(len(plan.c))
        data, precision = plan.whitened(rows, plan.tables, level)
        self.data, self.precision = data.float().cpu(), precision.float().cpu() / noise_excess**0.5
        self.marginal = plan.marginal(rows, self.precision)  # integrates arterial blood out
        if self.marginal is not None:
            self.data = self.data - self.marginal.mean.unsqueeze(1) * self.marginal.column / self.precision
        self.grid, self.att = plan.tables.grid.float().cpu(), plan.att.float()
        self.slope = torch.gradient(self.grid, spacing=float(self.att[1] - self.att[0]), dim=1)[0]
        self.group = plan.group if self.grid.shape[0] > 1 else torch.zeros_like(plan.group)
        self.scatter = torch.zeros(len(rows))  # sd of a voxel's own flow about the fields, for it may hold other tissue than is thought
        self.flow, self.mean, self.arrival = torch.ones(len(rows)), torch.ones(len(rows)), torch.full((len(rows),), plan.att_fixed)

    def pooled_scores(self) -> tuple[Tensor, Tensor]:
        """(V, A) data against prediction, and information on the flow, at each arrival time of the grid."""
        cross, total = [], []
        for rows in torch.arange(len(self.data)).split(CHUNK):
            table = self.grid if self.grid.shape[0] == 1 else self.grid[self.group[rows]]
            a, b = scores(self.data[rows], self.precision[rows], table)
            cross.append(a)
            total.append(b)
        return torch.cat(cross), torch.cat(total)

    def set_tissue_means(self, cross: Tensor, total: Tensor) -> None:
        """s and D of each tissue from the whole brain, arrival times under the usual prior.

        D from the curves of (nearly) pure voxels, flows by least squares over them, a voxel's signal being its tissues' sum.
        """
        share = torch.as_tensor(self.tissue.share, dtype=torch.float32)
        pure = share**PURE
        a, b = pure.T @ cross, pure.T @ total  # (3, A)
        gain = 0.5 * a.clamp_min(0) ** 2 / b.clamp_min(1e-12) + self.plan.log_prior.float().cpu()
        best = gain.argmax(dim=1)
        strength = share * total[:, best].clamp_min(0).sqrt()  # as if curves of near arrival times had one shape
        weight = pure.sum(dim=1, keepdim=True)
        normal = (strength.T @ (weight * strength)).double()
        signal = (weight * share * cross[:, best]).sum(dim=0).double()
        flow = torch.linalg.solve(normal + 1e-9 * normal.trace() * torch.eye(3), signal).float()
        att = self.att[best]
        att[2] = att[0] if share[:, 0].sum() > 0 else att[2]
        most = float(flow[:2].max().clamp_min(1e-6))
        flow = torch.stack([flow[0], flow[1], flow[2].clamp(0, LEAST_FLOW * most)])
        least = flow.clamp_min(LEAST_FLOW * most)
        self.mean, self.flow = share @ flow, share @ least
        self.arrival = (share * least) @ att / self.flow  # a mixed voxel's curve is mostly that of its grey matter
        if self.tissue.doubt is not None:
            doubt = torch.as_tensor(self.tissue.doubt, dtype=torch.float32)
            self.scatter = torch.einsum("vij,i,j->v", doubt, flow, flow).clamp_min(0).sqrt()

    def start(self, cross: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (2, V) from scores pooled over neighbours, and that arrival time (V,)."""
        near = torch.exp(-0.5 * ((self.att - self.arrival.unsqueeze(1)) / 0.5) ** 2).log()  # a weak pull to the tissue's arrival
        best = (0.5 * cross.clamp_min(0) ** 2 / total.clamp_min(1e-12) + near).argmax(dim=1, keepdim=True)
        att = self.att[best.squeeze(1)]
        flow = (cross / total.clamp_min(1e-12)).gather(1, best).squeeze(1)
        m = ((flow - self.mean) / self.flow).clamp(-0.9, 3.0)
        return torch.stack([m, att - self.arrival]), att

    def physical(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and arrival time (V,) of fields (2, V), within the range of the model."""
        return self.mean + self.flow * x[0].clamp(LOWEST, HIGHEST), (self.arrival + x[1]).clamp(float(self.att[0]), float(self.att[-1]))

    def linearise(self, x: Tensor) -> Linearised:
        residual, by, own = self._rows(x)
        residual, by_m, by_d = (own.rows(x) for x in (residual, *by))
        gradient = torch.stack([(by_m * residual).sum(dim=1), (by_d * residual).sum(dim=1)])
        cross = (by_m * by_d).sum(dim=1)
        information = torch.stack([by_m.square().sum(dim=1), cross, cross, by_d.square().sum(dim=1)]).reshape(2, 2, -1)
        return gradient, information, 0.5 * residual.square().sum(dim=1)

    def with_own_flow(self, x: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flow and arrival time (V,) and their covariance (2, 2, V) at fields x of `covariance`, the voxel's own flow included."""
        residual, by, own = self._rows(x)
        flow, att = self.physical(x)
        square = own.column.square().sum(dim=1)
        gain = own.sd.square() / (1 + own.sd.square() * square)
        jacobian = torch.stack([self.flow - gain * (own.column * by[0]).sum(dim=1), -gain * (own.column * by[1]).sum(dim=1)])
        across = torch.einsum("fv,fgv->gv", jacobian, covariance)
        variance = (across * jacobian).sum(dim=0) + gain
        both = torch.stack([variance, across[1], across[1], covariance[1, 1]]).reshape(2, 2, -1)
        return flow - gain * (own.column * residual).sum(dim=1), att, both

    def _rows(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Marginal]:
        """Whitened residual (V, K), its slopes by both fields, and the voxel's own flow that is to be integrated out."""
        flow, att = self.physical(x)
        place = ((att - self.att[0]) / (self.att[1] - self.att[0])).clamp(0, len(self.att) - 1.001)
        low = place.long()
        part = (place - low).unsqueeze(1)
        curve = torch.lerp(self.grid[self.group, low], self.grid[self.group, low + 1], part) * self.precision
        slope = torch.lerp(self.slope[self.group, low], self.slope[self.group, low + 1], part) * self.precision
        residual, by_d = flow.unsqueeze(1) * curve - self.data * self.precision, flow.unsqueeze(1) * slope
        if self.marginal is not None:
            residual, curve, by_d = (self.marginal.rows(x) for x in (residual, curve, by_d))
        return residual, (self.flow.unsqueeze(1) * curve, by_d), Marginal(curve, torch.zeros_like(self.scatter), self.scatter)


def alikeness(share: np.ndarray, first: Tensor, second: Tensor, width: float = 0.25) -> Tensor:
    """(E,) 1 where the ends of an edge are of one tissue, towards 0 where they are not."""
    p = torch.as_tensor(share, dtype=torch.float32)
    return torch.exp(-0.5 * (p[first] - p[second]).square().sum(dim=1) / width**2)
