"""What one voxel's data say about its flow and arrival time, as moments under any Gaussian: exact in flow, by quadrature in arrival time.

The misfit has a kink at every data time and several minima in arrival time; at low signal-to-noise all of them count. So the arrival
time is never linearised: it is summed over a grid that is coarse everywhere and fine where the likelihood of the voxel is narrow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...core.latent import Tilted
from ..kinetics import Tissue
from ..plan import Plan

STEP = 0.02  # s, of the coarse grid
FINE, REACH = 41, 6.0  # points of the fine grid, and how many sd of the likelihood it reaches to either side
NARROWEST, WIDEST = 1e-7, 0.3  # s: sd that the fine grid is made for
REFINEMENTS = 4  # each narrows the search for the most likely arrival time tenfold


class ArrivalFactors:
    """Factors p(data | flow, ATT) of voxels `rows`; flow in units of `flow` mL/100 g/min, ATT in s; T1 of blood and noise are given.

    `noise` (V,) sd of one difference, flow units; `level` the model error in equation rows, see `Plan.whitened`.
    """

    def __init__(self, plan: Plan, rows: Tensor, t1b: float, noise: Tensor, level: float, flow: float):
        self.t1b, self.flow = torch.tensor(t1b, dtype=torch.float64), flow
        self.model = plan.kinetics_of(rows)
        if isinstance(self.model, Tissue) and isinstance(self.model.t1_apparent, Tensor) and self.model.t1_apparent.ndim:
            self.model = type(self.model)(self.model.t1_apparent.double().cpu().unsqueeze(2))
        self.times = (plan.times + plan.group_delay[plan.group[rows]].unsqueeze(1)).unsqueeze(1)  # (V, 1, K)
        self.tau = plan.tau
        rotation = plan.rows_of(rows, plan.tables.rotation).double().cpu()
        spread = plan.rows_of(rows, plan.tables.spread).double().cpu()
        precision = (noise.unsqueeze(1) ** 2 + level**2 * spread).rsqrt()
        self.whiten = rotation * precision.unsqueeze(1)  # (V, K, K)
        self.data = (torch.as_tensor(plan.c.data[rows.numpy()]).double().unsqueeze(1) @ self.whiten).squeeze(1)
        self.constant = precision.log().sum(dim=1) - 0.5 * self.data.square().sum(dim=1)
        self.att, self.log_width = self._grid(plan.att_max)
        self.cross, self.total = self._scores(self.att)

    def _curve(self, att: Tensor) -> Tensor:
        """(V, A, K) whitened predictions of a unit of flow at arrival times (V, A)."""
        signal = self.model.closed_form(self.times, self.tau, att.unsqueeze(2), self.t1b)[0]
        return self.flow * signal @ self.whiten

    def _scores(self, att: Tensor) -> tuple[Tensor, Tensor]:
        """(V, A) data against prediction, and information on the flow."""
        curve = self._curve(att)
        return (curve @ self.data.unsqueeze(2)).squeeze(2), curve.square().sum(dim=2)

    def _gain(self, att: Tensor) -> Tensor:
        cross, total = self._scores(att)
        return 0.5 * cross.clamp_min(0) ** 2 / total.clamp_min(1e-12)

    def _grid(self, latest: float) -> tuple[Tensor, Tensor]:
        """Arrival times (V, A), ascending, and the log of the width that each stands for."""
        coarse = torch.arange(0, latest + 1e-9, STEP, dtype=torch.float64).expand(len(self.data), -1)
        best = coarse.gather(1, self._gain(coarse).argmax(dim=1, keepdim=True))
        for k in range(REFINEMENTS):
            near = (best + STEP * 0.1**k * torch.linspace(-1, 1, 21, dtype=torch.float64)).clamp(0, latest)
            best = near.gather(1, self._gain(near).argmax(dim=1, keepdim=True))
        fine = best + self._width(best).unsqueeze(1) * torch.linspace(-REACH, REACH, FINE, dtype=torch.float64)
        att = torch.cat([coarse, fine.clamp(0, latest)], dim=1).sort(dim=1).values
        half = 0.5 * att.diff(dim=1)
        width = torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))
        return att, width.clamp_min(1e-300).log()

    def _width(self, att: Tensor, step: float = 1e-5) -> Tensor:
        """(V,) sd of arrival time at its most likely value (V, 1), the flow eliminated."""
        curve = self._curve(att).squeeze(1)
        total = curve.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
        flow = (curve * self.data).sum(dim=1, keepdim=True) / total
        slope = (self._curve(att + step) - self._curve(att - step)).squeeze(1) / (2 * step)
        free = slope - curve * (slope * curve).sum(dim=1, keepdim=True) / total
        return (flow.squeeze(1) ** 2 * free.square().sum(dim=1)).clamp_min(1e-12).rsqrt().clamp(NARROWEST, WIDEST)

    def __call__(self, mean: Tensor, covariance: Tensor) -> Tilted:
        """Moments of factor times Gaussian: `mean` (V, 2) and `covariance` (V, 2, 2) of (flow, ATT)."""
        flow, att = mean[:, :1], mean[:, 1:]
        vff, vfa, vaa = covariance[:, 0, :1], covariance[:, 0, 1:], covariance[:, 1, 1:]
        given = flow + vfa / vaa * (self.att - att)  # mean of the flow at each arrival time, before the data
        free = vff - vfa**2 / vaa
        shrink = 1 + free * self.total
        log_flow = -0.5 * shrink.log() + (self.cross * given + 0.5 * free * self.cross**2 - 0.5 * self.total * given**2) / shrink
        log_att = -0.5 * (self.att - att) ** 2 / vaa - 0.5 * (2 * math.pi * vaa).log()
        mass = log_flow + log_att + self.log_width
        whole = mass.logsumexp(dim=1, keepdim=True)
        share = (mass - whole).exp()
        after, spread = (given + free * self.cross) / shrink, free / shrink
        self.share, self.after, self.spread = share, after, spread
        mean_flow, mean_att = (share * after).sum(dim=1, keepdim=True), (share * self.att).sum(dim=1, keepdim=True)
        f, a = after - mean_flow, self.att - mean_att
        moments = [(share * (f * f + spread)).sum(dim=1), (share * f * a).sum(dim=1), (share * a * a).sum(dim=1)]
        second = torch.stack([moments[0], moments[1], moments[1], moments[2]], dim=1).reshape(-1, 2, 2)
        second = second + torch.diag_embed(1e-12 * covariance.diagonal(dim1=1, dim2=2))
        return whole.squeeze(1) + self.constant, torch.cat([mean_flow, mean_att], dim=1), second

    def expected_squares(self) -> Tensor:
        """(V,) expected sum of squares of the whitened residuals under the latest moments."""
        power = self.after**2 + self.spread
        return self.data.square().sum(dim=1) + (self.share * (power * self.total - 2 * self.after * self.cross)).sum(dim=1)
