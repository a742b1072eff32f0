"""Focal lesions that a smooth field cannot hold: a mixture over balls of altered flow and arrival, weighed by evidence.

Every centre and radius is a candidate; its evidence is a closed form at the smooth fit, the smooth field marginalised. A liberal
prior (many foci for each one that is seen) makes the maps keep what may be there; a strict one makes the list of findings. Never the other
way round: the liberal map shows a few dozen weak blobs that are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.smooth_fit import SmoothFit, SmoothSettings, refit
from .balls import Balls
from .model import BrainModel

RADII = (3.2, 4.6, 6.1, 7.6, 10.0)  # mm
MIDDLE, STRICT = 40.0, 5.0  # foci expected: for intervals; for the list and the intervals of flow in GM
LIBERAL, PER_FOCUS = (30.0, 1000.0), 75.0  # foci expected for the maps: so many for every one that the evidence counts, within a range
TURNS, SAME, NONE = 30, 0.02, 0.3  # of counting: it ends where a turn changes so little, or so few are left that the least prior holds
SLAB = (0.5, 0.25)  # sd of the relative change of flow, and of the change of arrival in s
ALSO_ARRIVAL = 0.5  # probability that the arrival moves too
APART = 10.5  # mm: centres nearer than this are alternatives to each other
ROUNDS, NEW = 3, 0.7  # rounds of refit and rescore; share of the new offset in each
MOST_ABSORBED, RATIO_SAMPLES, RATIO_SMOOTHING = 0.7, 12, 2.0  # see `_absorbed`
FLOW_RANGE, ARRIVAL_RANGE = (-0.9, 1.5), (-0.6, 0.6)
LARGEST_LOG = 20.0  # odds beyond are certainty, and would drown the rest in the rounding of the transform
QUARTILES, LEAST_SEEN = 1.349, 0.1  # width of the middle half of a normal; share of the median information below which a ball says nothing


@dataclass(frozen=True)
class Foci:
    """Expected change of both fields, its variance, and the strict probability of each voxel to lie in a focus."""

    offset: np.ndarray  # (2, V)
    variance: np.ndarray  # (2, V)
    probability: np.ndarray  # (V,)
    strict: np.ndarray  # (2, V) mean change given a focus, where the strict prior sees one
    strict_sd: np.ndarray  # (2, V)


class FocusSearch:
    """Candidates: the balls of RADII around every voxel, over all perfused tissue and over grey matter alone."""

    def __init__(self, model: BrainModel, spacing: np.ndarray, smooth: SmoothFit, settings: SmoothSettings):
        self.model, self.settings = model, settings
        self.balls = Balls(model.plan.c.voxels, spacing, (*RADII, APART), model.device)
        share = model.share.float()
        self.supports = [1 - share[:, 2]] + ([share[:, 0]] if model.tissue.known else [])
        self.count = len(share) * len(RADII) * len(self.supports)
        self.absorbed = self._absorbed(smooth)

    def search(self, smooth: SmoothFit) -> tuple[SmoothFit, Foci]:
        """Rounds of scoring at the fit and refitting the smooth part, its strength frozen."""
        offset = smooth.x.new_zeros(2, smooth.x.shape[1])
        for _ in range(ROUNDS):
            evidence = self._evidence(smooth, offset)
            change, _, _ = self._mix(evidence, float(np.clip(PER_FOCUS * self.number(evidence), *LIBERAL)))
            change = torch.stack([change[0].clamp(*FLOW_RANGE), change[1].clamp(*ARRIVAL_RANGE)])
            offset = NEW * change + (1 - NEW) * offset
            smooth = refit(self.model.linearise, smooth, self.model.alike(offset), self.settings)
        evidence = self._evidence(smooth, offset)
        _, variance, _ = self._mix(evidence, MIDDLE)
        strict, strict_variance, probability = self._mix(evidence, STRICT)
        variance[0] = strict_variance[0]  # by MIDDLE the intervals of flow cover .98 to .99
        sure = probability.clamp_min(1e-3)
        mean = strict / sure
        sd = ((strict_variance + strict**2) / sure - mean**2).clamp_min(0).sqrt()
        return smooth, Foci(*(found.cpu().numpy() for found in (offset, variance, probability.clamp(0, 1), mean, sd)))

    def number(self, evidence: list[list[_Evidence]]) -> float:
        """How many foci the scan's own evidence makes likeliest, by expectation maximisation.

        A brain without foci counts 0 to 6 at the smooth fit and 0 once weak blobs are fitted, so its maps are not roughened by a prior that
        expects many; a brain with ten counts above 13.
        """
        count = MIDDLE
        for _ in range(TURNS):
            weights, near = self._weights(evidence, count)
            before, count = count, float((_sum(weights) / near).sum())
            if abs(count - before) < SAME * before or count < NONE:
                break
        return count

    def _weights(self, evidence: list[list[_Evidence]], expected: float) -> tuple[list[list[Tensor]], Tensor]:
        """Odds (V,) of every candidate with `expected` foci a brain, and one plus those of all that are alternatives to a centre (V,)."""
        prior = float(np.log(expected / self.count))
        weights = [[(e.log.double() + prior).clamp_max(LARGEST_LOG).exp() for e in row] for row in evidence]
        return weights, 1 + self.balls.spread(_sum(weights).unsqueeze(1), len(RADII))[:, 0].clamp_min(0)

    def _absorbed(self, smooth: SmoothFit) -> list[list[Tensor]]:
        """Per support and radius (V, 2): the share of a ball's information that the smooth field would take, smoothed and bounded.

        Var over posterior samples of sum(A z) per sum(A); few samples make it ragged, and ragged ratios make foci out of noise.
        """
        model, samples = self.model, smooth.samples[:, :, :RATIO_SAMPLES]
        _, information, _ = model.linearise(smooth.x + smooth.offset)
        of_kind = [slice(0, model.count), slice(model.count, None)]
        blocks = [information[k, k] for k in of_kind]
        a = torch.stack([block.sum(dim=(0, 1)) for block in blocks], dim=1)
        pulled = [torch.einsum("fgv,gvs->vs", block, samples[k]) for block, k in zip(blocks, of_kind, strict=True)]
        out = []
        for support in self.supports:
            moved = [self.balls.forward(one * support.unsqueeze(1)) for one in pulled]
            whole = self.balls.forward(a * support.unsqueeze(1))
            row = []
            for ball in range(len(RADII)):
                total = self.balls.total(whole, ball).clamp_min(1e-9)
                variance = torch.stack([self.balls.total(m, ball).square().mean(dim=1) for m in moved], dim=1)
                row.append(self.balls.even(variance / total, total, RATIO_SMOOTHING).clamp(0, MOST_ABSORBED))
            out.append(row)
        return out

    def _mix(self, evidence: list[list[_Evidence]], expected: float) -> tuple[Tensor, Tensor, Tensor]:
        """Mean change (2, V) and variance (2, V) of the mixture with `expected` foci a brain, and each voxel's probability (V,)."""
        weights, near = self._weights(evidence, expected)
        mean, second = torch.zeros_like(self.absorbed[0][0]).T, torch.zeros_like(self.absorbed[0][0]).T
        probability = mean.new_zeros(len(near))
        for support, row, weight in zip(self.supports, evidence, weights, strict=True):
            for ball, (e, w) in enumerate(zip(row, weight, strict=True)):
                p = (w / near).to(mean).unsqueeze(1)
                laid = self.balls.spread(torch.cat([p * e.mean, p * (e.mean**2 + e.variance), p], dim=1), ball)
                mean = mean + laid[:, :2].T * support
                second = second + laid[:, 2:4].T * support**2
                probability = probability + laid[:, 4] * support
        return mean, (second - mean**2).clamp_min(0), probability

    def _evidence(self, smooth: SmoothFit, offset: Tensor) -> list[list[_Evidence]]:
        """Per support and radius; what the blobs explain already is given back before they are scored again."""
        gradient, information = self.model.linearise_together(smooth.x + self.model.alike(offset))
        own = torch.einsum("fgv,gv->fv", information, offset)
        sums = torch.stack([-gradient[0], -gradient[1], own[0], own[1], information[0, 0], information[0, 1], information[1, 1]], dim=1)
        out = []
        for support, absorbed in zip(self.supports, self.absorbed, strict=True):
            transformed = self.balls.forward(sums * support.unsqueeze(1))
            out.append([_evidence(self.balls.total(transformed, ball), absorbed[ball]) for ball in range(len(RADII))])
        return out


@dataclass(frozen=True)
class _Evidence:
    log: Tensor  # (V,) log Bayes factor of a ball here against none
    mean: Tensor  # (V, 2) change of flow and arrival, if there is one
    variance: Tensor  # (V, 2)


def _sum(weights: list[list[Tensor]]) -> Tensor:
    """(V,) of all candidates at a centre."""
    return torch.stack([w for row in weights for w in row]).sum(dim=0)


def null_variance(score: Tensor, information: Tensor) -> Tensor:
    """How far the middle half of the scores spreads over all balls, per what the model says; at least 1.

    Foci are few, so the middle of the scan's own scores is what no focus looks like (the empirical null, Efron 2004,
    doi:10.1198/016214504000000089). It is 1 where the smooth field fits, and up to 2 in large balls where arrival has steps.
    """
    seen = information > LEAST_SEEN * information.quantile(0.5)
    relative = torch.where(seen, score / information.sqrt(), torch.nan)
    low, high = relative.nanquantile(score.new_tensor([0.25, 0.75])).nan_to_num(0)
    return ((high - low) / QUARTILES).square().clamp_min(1)


def _evidence(total: Tensor, absorbed: Tensor) -> _Evidence:
    """From sums over a ball (V, 7), see `FocusSearch._evidence`, and the share that the smooth field absorbs (V, 2)."""
    left = 1 - absorbed
    u = total[:, :2] + left * total[:, 2:4]
    information = left * total[:, [4, 6]].clamp_min(0)
    spread = torch.stack([null_variance(u[:, k], information[:, k]) for k in range(2)])
    u, (a, c) = u / spread, (information / spread).T
    most = 0.9 * (a * c).sqrt()
    b = ((left.prod(dim=1) / spread.prod()).sqrt() * total[:, 5]).clamp(-most, most)
    flow, arrival = 1 / SLAB[0] ** 2, 1 / SLAB[1] ** 2
    one = 0.5 * u[:, 0] ** 2 / (a + flow) - 0.5 * (a / flow).log1p()
    determinant = (a + flow) * (c + arrival) - b**2
    x = ((c + arrival) * u[:, 0] - b * u[:, 1]) / determinant
    y = ((a + flow) * u[:, 1] - b * u[:, 0]) / determinant
    both = 0.5 * (u[:, 0] * x + u[:, 1] * y) - 0.5 * (determinant / (flow * arrival)).log()
    log = torch.stack([one + float(np.log(1 - ALSO_ARRIVAL)), both + float(np.log(ALSO_ARRIVAL))])
    q = log.softmax(dim=0)[1]
    alone = u[:, 0] / (a + flow)
    mean = torch.stack([(1 - q) * alone + q * x, q * y], dim=1)
    second = torch.stack(
        [(1 - q) * (alone**2 + 1 / (a + flow)) + q * (x**2 + (c + arrival) / determinant), q * (y**2 + (a + flow) / determinant)], dim=1
    )
    return _Evidence(log.logsumexp(dim=0), mean, second - mean**2)
