"""What one voxel's data say about its flow and arrival time, as moments under any Gaussian: exact in flow, by quadrature in arrival time.

The misfit has a kink at every data time and several minima in arrival time; at low signal-to-noise all of them count. So the arrival
time is never linearised: it is summed over a grid that is coarse everywhere and fine where the likelihood of the voxel is narrow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...core.latent import Tilted
from ..kinetics import Tissue
from ..plan import Plan

STEP = 0.02  # s, of the coarse grid
FINE, REACH = 41, 6.0  # points of the fine grid, and how many sd of the likelihood it reaches to either side
NARROWEST, WIDEST = 1e-7, 0.3  # s: sd that the fine grid is made for
LEAST_VARIANCE = 4e-10  # of flow (typical flows squared) and arrival time (s squared): narrower is rounding, as at a kink without noise
REFINEMENTS, POLISHING = 2, 3  # searches for the most likely arrival time, each five times as fine; Gauss-Newton steps after them


class ArrivalFactors:
    """Factors p(data | flow, ATT) of voxels `rows`; flow in units of `flow` mL/100 g/min, ATT in s; T1 of blood and noise are given.

    `noise` (V,) sd of one difference, flow units; `level` the model error in equation rows, see `Plan.whitened`.
    """

    def __init__(self, plan: Plan, rows: Tensor, t1b: float, noise: Tensor, level: float, flow: float):
        self.t1b, self.flow, self.tau = torch.tensor(t1b, dtype=torch.float64), flow, plan.tau.to(noise)
        self.model = plan.kinetics_of(rows)
        if isinstance(self.model, Tissue) and isinstance(self.model.t1_apparent, Tensor) and self.model.t1_apparent.ndim:
            self.model = type(self.model)(self.model.t1_apparent.double().unsqueeze(2))
            times = plan.times + plan.group_delay[plan.group[rows]].unsqueeze(1)
        else:
            times = plan.rows_of(rows, plan.times + plan.group_delay.unsqueeze(1))
        self.times = times.to(noise).unsqueeze(1)  # (V or 1, 1, K)
        self.rotation = plan.rows_of(rows, plan.tables.rotation).double()  # (V or 1, K, K)
        spread = plan.rows_of(rows, plan.tables.spread).double()
        self.weight = 1 / (noise.unsqueeze(1) ** 2 + level**2 * spread)  # (V, K)
        data = torch.as_tensor(plan.c.data[rows.numpy()]).to(noise)
        self.data = (data.unsqueeze(1) @ self.rotation).squeeze(1)
        self.squares = (self.weight * self.data**2).sum(dim=1)
        self.constant = 0.5 * self.weight.log().sum(dim=1) - 0.5 * self.squares
        self._quadrature(plan.att_max)

    def _curve(self, att: Tensor) -> Tensor:
        """(V, A, K) rotated predictions of a unit of flow at arrival times (V, A); (1, A, K) where all voxels share them."""
        signal = self.model.closed_form(self.times, self.tau, att.unsqueeze(2), self.t1b)[0]
        return self.flow * signal @ self.rotation

    def _scores(self, att: Tensor) -> tuple[Tensor, Tensor]:
        """(V, A) data against prediction, and information on the flow."""
        curve, pulled = self._curve(att), self.data * self.weight
        if curve.shape[0] == 1:
            return pulled @ curve[0].T, self.weight @ curve[0].square().T
        return (curve @ pulled.unsqueeze(2)).squeeze(2), (curve.square() @ self.weight.unsqueeze(2)).squeeze(2)

    def _quadrature(self, latest: float) -> None:
        """Arrival times (V, A), ascending, the log of the width that each stands for, and the scores there."""
        coarse = torch.arange(0, latest + 1e-9, STEP, dtype=torch.float64, device=self.data.device).unsqueeze(0)
        scores = self._scores(coarse)
        best = coarse[0][_gain(scores).argmax(dim=1, keepdim=True)]
        for k in range(REFINEMENTS):
            near = (best + STEP * 0.2**k * torch.linspace(-1, 1, 11, dtype=best.dtype, device=best.device)).clamp(0, latest)
            best = near.gather(1, _gain(self._scores(near)).argmax(dim=1, keepdim=True))
        for _ in range(POLISHING):
            step, width = self._newton(best)
            best = (best + step.clamp(-STEP * 0.2**REFINEMENTS, STEP * 0.2**REFINEMENTS)).clamp(0, latest)
        fine = (best + width * torch.linspace(-REACH, REACH, FINE, dtype=best.dtype, device=best.device)).clamp(0, latest)
        att, order = torch.cat([coarse.expand(len(best), -1), fine], dim=1).sort(dim=1)
        half = 0.5 * att.diff(dim=1)
        self.att = att
        self.log_width = (pad(half, (0, 1)) + pad(half, (1, 0))).clamp_min(1e-300).log()
        self.cross, self.total = (torch.cat(pair, dim=1).gather(1, order) for pair in zip(scores, self._scores(fine), strict=True))

    def _newton(self, att: Tensor, step: float = 1e-5) -> tuple[Tensor, Tensor]:
        """Gauss-Newton step (V, 1) to the most likely arrival time from `att` (V, 1), the flow eliminated, and its sd there."""
        curve, later, earlier = self._curve(torch.cat([att, att + step, att - step], dim=1)).unbind(dim=1)
        slope = (later - earlier) / (2 * step)
        total = (self.weight * curve**2).sum(dim=1, keepdim=True).clamp_min(1e-12)
        flow = (self.weight * curve * self.data).sum(dim=1, keepdim=True) / total
        free = flow * (slope - curve * (self.weight * slope * curve).sum(dim=1, keepdim=True) / total)
        information = (self.weight * free**2).sum(dim=1, keepdim=True).clamp_min(1e-12)
        move = (self.weight * free * (self.data - flow * curve)).sum(dim=1, keepdim=True) / information
        return move, information.rsqrt().clamp(NARROWEST, WIDEST)

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
        second = second + LEAST_VARIANCE * torch.eye(2).to(second)
        return whole.squeeze(1) + self.constant, torch.cat([mean_flow, mean_att], dim=1), second

    def expected_squares(self) -> Tensor:
        """(V,) expected sum of squares of the whitened residuals under the latest moments."""
        power = self.after**2 + self.spread
        return self.squares + (self.share * (power * self.total - 2 * self.after * self.cross)).sum(dim=1)


def _gain(scores: tuple[Tensor, Tensor]) -> Tensor:
    """Half of chi-square that the best flow takes away at each arrival time."""
    cross, total = scores
    return 0.5 * cross.clamp_min(0) ** 2 / total.clamp_min(1e-12)
