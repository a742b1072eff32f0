"""Label still in arteries: blood volume aCBV and its arrival aBAT, taken as zero unless the data ask for it.

The arterial signal of unit volume is a box, exp(-aBAT/T1b) (p/CASL) or exp(-t/T1b) (PASL) for aBAT < t < aBAT + tau (Chappell 2010,
doi:10.1002/mrm.22320). In one voxel alone it cannot be told from early tissue. Its evidence is therefore weighed against what tissue of the
same class does in the wider neighbourhood: a spike at zero against a half-normal slab, flow and arrival integrated out on a grid, the
probability of an artery learnt from the scan and from the neighbours. What comes out is a prior N(mean, sd^2) of aCBV in each voxel at the
most probable aBAT; the voxel's fit integrates aCBV out under it, for which rows are multiplied by (I + sd^2 a a')^-1/2, a the whitened
arterial curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from torch import Tensor

from .curves import FLOW

if TYPE_CHECKING:
    from .plan import Plan

WIDE = 18.0  # mm FWHM of the neighbourhood that tissue is compared with
NEAR = 7.0  # mm FWHM over which arteries are found together
STEP = 0.1  # s between the grid's arrival times
SLAB = 0.01  # sd of aCBV, fraction, where there is an artery
BEFORE, BEFORE_SD = 0.3, 0.25  # s that blood arrives in the artery before it does in tissue (BASIL: 0.3)
TISSUE_SD = 0.15  # s, arrival in tissue against that of its class around
FLOW_SD = 0.3  # of the class's flow around
SHARE, LEAST_SHARE, MOST_SHARE = 0.03, 1e-3, 0.3  # voxels with arteries: start and limits
ROUNDS = 5
PEAK = 0.05  # sd of the kinetic model's own error in typical signals: no evidence below that
CHUNK = 2048


def arterial_curve(labeling: str, t: Tensor, tau: Tensor, abat: Tensor, t1b: Tensor | float) -> Tensor:
    """Signal per 2 alpha M0b of unit blood volume; all arguments broadcast, s."""
    inside = ((t > abat) & (t < abat + tau)).to(t.dtype)
    return inside * torch.exp(-(t if labeling == "PASL" else abat) / t1b)


@dataclass(frozen=True)
class ArterialPrior:
    """Of every voxel (V,): aCBV in flow units (FLOW times the fraction) and its arrival."""

    mean: Tensor
    sd: Tensor
    abat: Tensor
    abat_sd: Tensor
    probability: Tensor  # that there is arterial signal at all
    share: float  # of voxels, as learnt


@dataclass(frozen=True)
class Marginal:
    """(I + sd^2 a a')^-1/2 for B voxels: what integrating out the arterial volume does to whitened rows (B, K)."""

    column: Tensor  # (B, K) whitened arterial curve a
    mean: Tensor  # (B,)
    sd: Tensor  # (B,)

    @property
    def factor(self) -> Tensor:
        """(B, 1) gamma of I - gamma a a'."""
        square = self.column.square().sum(dim=1).clamp_min(1e-12)
        return ((1 - (1 + self.sd.square() * square).rsqrt()) / square).unsqueeze(1)

    def rows(self, x: Tensor) -> Tensor:
        """(B, K) rows of a prediction."""
        return x - self.factor * (self.column * x).sum(dim=1, keepdim=True) * self.column

    def data(self, x: Tensor) -> Tensor:
        """(B, K) rows of the data, less the prior's mean."""
        return self.rows(x - self.mean.unsqueeze(1) * self.column)

    def take(self, rows: Tensor) -> Marginal:
        return Marginal(self.column[rows], self.mean[rows], self.sd[rows])

    def estimate(self, residual: Tensor, jacobian: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """aCBV (B,) and its sd from whitened data less tissue (B, K), given tissue's Jacobian (B, K, P) and covariance (B, P, P)."""
        square = self.column.square().sum(dim=1)
        gain = self.sd.square() / (1 + self.sd.square() * square)
        away = (self.column * (residual - self.mean.unsqueeze(1) * self.column)).sum(dim=1)
        moved = gain.unsqueeze(1) * (self.column.unsqueeze(2) * jacobian).sum(dim=1)
        variance = gain + ((covariance @ moved.unsqueeze(2)).squeeze(2) * moved).sum(dim=1)
        return self.mean + gain * away, variance.clamp_min(0).sqrt()


class ArterialSearch:
    """The evidence for arterial signal in each voxel of a plan, `share` (V, 2 or 3) its tissue classes."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], spacing: np.ndarray, share: np.ndarray):
        self.plan, self.c, self.shape, self.spacing = plan, plan.c, shape, spacing
        self.share = share[:, :2].astype(np.float32)  # fluid has no curve to compare with
        latest = plan.att_max
        self.att = torch.arange(STEP, latest, STEP, dtype=torch.float64)
        self.abat = torch.arange(STEP, min(latest, 2.5), STEP, dtype=torch.float64)
        self.data = torch.as_tensor(self.c.data)
        own = (self.c.noise[:, None] ** 2 / self.c.repeats).astype(np.float32)
        self.variance = torch.as_tensor(own) + (PEAK * self.c.amplitude) ** 2

    def prior(self) -> ArterialPrior:
        probability = np.zeros(len(self.c), np.float32)
        for _ in range(2):  # the second time around without the arteries found
            flow, att = self._tissue(1 - probability)
            log_odds, first, second, abat, abat_sd = self._evidence(flow, att)
            chance, share = self._chance(log_odds.numpy())
            probability = chance
        p = torch.as_tensor(probability)
        mean = p * first
        return ArterialPrior(mean, (p * second - mean**2).clamp_min(1e-6).sqrt(), abat, abat_sd, p, share)

    def _chance(self, log_odds: np.ndarray) -> tuple[np.ndarray, float]:
        """(V,) probability of an artery, more where there are some around; and the share of the whole."""
        share = SHARE
        for _ in range(20):
            chance = expit(log_odds + logit(share))
            share = float(np.clip(chance.mean(), LEAST_SHARE, MOST_SHARE))
        own = 1 / np.prod(2 * np.sqrt(np.pi) * np.maximum(self._sigma(NEAR) / np.sqrt(2), 0.29))
        total = np.maximum(self._blur(np.ones(len(chance), np.float32), NEAR) - own, 1e-3)
        for _ in range(ROUNDS):
            around = np.clip((self._blur(chance, NEAR) - own * chance) / total, 0, 1)
            chance = expit(log_odds + logit(np.clip(0.5 * share + around, LEAST_SHARE / 2, MOST_SHARE)))
        return chance.astype(np.float32), share

    def _tissue(self, weight: np.ndarray) -> tuple[Tensor, Tensor]:
        """Flow and arrival time (V,) that the classes of a voxel have around it."""
        flows, atts = [], []
        for k in range(2):
            w = self.share[:, k] * weight
            total = np.maximum(self._blur(w, WIDE), 1e-6)
            data = np.stack([self._blur(self.c.data[:, i] * w, WIDE) / total for i in range(self.c.data.shape[1])], axis=1)
            flow, att = self._plain(torch.as_tensor(data))
            flows.append(flow)
            atts.append(att)
        share = torch.as_tensor(self.share / np.maximum(self.share.sum(axis=1, keepdims=True), 1e-3))
        flow, att = torch.stack(flows, dim=1), torch.stack(atts, dim=1)
        signal = share * flow.clamp_min(1e-3)
        return (share * flow).sum(dim=1), (signal * att).sum(dim=1) / signal.sum(dim=1).clamp_min(1e-6)

    def _sigma(self, width: float) -> np.ndarray:
        return width / np.sqrt(8 * np.log(2)) / self.spacing

    def _blur(self, values: np.ndarray, width: float) -> np.ndarray:
        image = np.zeros(self.shape, np.float32)
        image[self.c.voxels] = values
        return gaussian_filter(image, self._sigma(width))[self.c.voxels]

    def _curves(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Voxels, their curves of unit flow (A, K) and of unit arterial volume (J, K)."""
        plan = self.plan
        for g in range(len(plan.group_t1)):
            t = plan.times + plan.group_delay[g]
            tissue = plan.kinetics(g).closed_form(t, plan.tau, self.att.unsqueeze(1), torch.tensor(plan.t1b))[0]
            artery = arterial_curve(plan.labeling, t, plan.tau, self.abat.unsqueeze(1), plan.t1b)
            for rows in (plan.group == g).nonzero().squeeze(1).split(CHUNK):
                yield rows, tissue.float(), artery.float()

    def _plain(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and arrival time (V,) of averaged curves (V, K)."""
        flow, found = torch.empty(len(data)), torch.empty(len(data))
        for rows, tissue, _ in self._curves():
            weight = 1 / self.variance[rows]
            cross, total = (data[rows] * weight) @ tissue.T, weight @ (tissue**2).T + self.plan.flow_sd**-2
            pick = (0.5 * cross.clamp_min(0) ** 2 / total * 50).argmax(dim=1, keepdim=True)
            found[rows] = self.att.float()[pick.squeeze(1)]
            flow[rows] = (cross / total).gather(1, pick).squeeze(1).clamp_min(0)
        return flow, found

    def _evidence(self, flow: Tensor, att: Tensor) -> tuple[Tensor, ...]:
        """Log odds of arterial signal (V,); mean and mean square of aCBV given it, the most probable aBAT and its sd."""
        out = [torch.empty(len(self.data)) for _ in range(5)]
        for rows, tissue, artery in self._curves():
            parts = self._weigh(self.data[rows], 1 / self.variance[rows], tissue, artery, flow[rows], att[rows])
            for whole, part in zip(out, parts, strict=True):
                whole[rows] = part
        return tuple(out)

    def _weigh(self, y: Tensor, w: Tensor, s: Tensor, a: Tensor, flow: Tensor, near: Tensor) -> tuple[Tensor, ...]:
        """Flow f (Gaussian) and aCBV v >= 0 (half-normal) integrated out in closed form, arrival times summed over the grid."""
        att, abat, slab = self.att.float(), self.abat.float(), SLAB * FLOW
        rate = (FLOW_SD * flow).clamp_min(0.05 * self.c.amplitude).pow(-2).unsqueeze(1)
        sy, ss = (y * w) @ s.T + rate * flow.unsqueeze(1), w @ (s**2).T + rate  # (B, A)
        without = 0.5 * sy**2 / ss - 0.5 * ss.log() - 0.5 * ((att - near.unsqueeze(1)) / TISSUE_SD) ** 2
        ay, aa = (y * w) @ a.T, w @ (a**2).T  # (B, J)
        sa = torch.einsum("ak,jk,bk->baj", s, a, w)
        information = aa.unsqueeze(1) - sa**2 / ss.unsqueeze(2) + slab**-2
        sd = information.rsqrt()
        z = (ay.unsqueeze(1) - sa * (sy / ss).unsqueeze(2)) * sd
        positive = torch.special.log_ndtr(z)
        before = (-0.5 * ((att.unsqueeze(1) - abat - BEFORE) / BEFORE_SD) ** 2).log_softmax(dim=1)
        both = without.unsqueeze(2) + before + 0.5 * z**2 + positive + np.log(2) - 0.5 * (information * slab**2).log()
        share = torch.softmax(both.flatten(1), dim=1).reshape(both.shape)
        ratio = torch.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - positive)
        first = (share * sd * (z + ratio)).sum(dim=(1, 2))
        second = (share * sd**2 * (1 + z * (z + ratio))).sum(dim=(1, 2))
        by_abat = share.sum(dim=1)
        mean = (by_abat * abat).sum(dim=1)
        spread = ((by_abat * abat**2).sum(dim=1) - mean**2).clamp_min(0) + STEP**2 / 12
        odds = both.flatten(1).logsumexp(dim=1) - without.logsumexp(dim=1)
        return odds, first, second, abat[by_abat.argmax(dim=1)], spread.sqrt()
