"""`fit_subject`: flow and arrival time of all voxels and one T1 of blood of the subject, together.

The voxels' factors (factors.py), the prior over the region (prior.py) and expectation propagation (core/latent.py) give maps and the
evidence for any T1 of blood; T1's posterior (evidence.py) then weighs the maps. Larger masks are fitted in tiles (tiles.py) that share
the noise, the prior's scales and T1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...core import Gaussian, Solution, Status
from ...core.latent import Conditioned, Posterior, Sites, propagate
from ...core.solution import identifiability
from ..plan import ATT_PRIOR, Plan
from ..scan import Scan
from .evidence import HIGHEST, LOWEST, SubjectValue, find_mode, posterior
from .factors import ArrivalFactors
from .prior import MEAN_SD, Foci, Prior, centre, find_foci, learn
from .tiles import HALO, Tile, tiles

TEACHERS = 8  # tiles that noise, scales and T1 are learnt from
ROUNDS, FOCI_FROM, SEARCH_IN = 6, 2, (1, 3)  # rounds of learning; from which on foci are sought; in which T1 moves
COARSE, NEAR = 9, 5  # T1 values compared in the first and in the second search
FEW, MANY = 12, 30  # turns of propagation while learning, and for what is reported
USUAL_FLOW, SURE_OF_FLOW = 40.0, 16.0  # mL/100 g/min; chi-square of the mean curve above which its own flow is taken
LEAST_NOISE = 1e-3  # of the typical signal: no scanner is better, and rounding is
SETTLED = 0.05  # posterior sd that a mean may still move in the last turn
GAUSS_HERMITE = ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6))
SILENT = 0.9  # posterior sd per sd over the region above which the place says nothing


@dataclass(frozen=True)
class SubjectFit:
    """What the joint fit of one subject adds to a `Solution`."""

    solution: Solution
    t1b: SubjectValue
    t1b_prior: Gaussian | None  # None: T1 was given
    prior: Prior
    focus: np.ndarray  # (V,) probability to lie in a focus
    silent: np.ndarray  # (V,) bool: arrival time is as uncertain as it differs over the region
    noise: np.ndarray  # (V,) sd of one difference, flow units
    flow: float  # mL/100 g/min, typical of the region
    tiles: int
    expected: list[float]  # mean and sd of the region's mean flow beforehand, flow units


class Region:
    """One tile: its voxels, what the prior says of them, and the sites that the next fit starts from."""

    def __init__(self, subject: Subject, tile: Tile, place: Tensor):
        self.subject, self.tile = subject, tile
        self.rows = torch.as_tensor(tile.voxels)
        self.distance = torch.cdist(place[self.rows], place[self.rows])
        self.mean = centre(len(self.rows), subject.expected, subject.arrival, place.device)
        self.sites = Sites.silent(len(self.rows), 2, place.device)
        self.foci = Foci.none(self.distance)
        self.extra = self.foci.kernel()
        self.final: dict[float, tuple[Posterior, Tensor]] = {}  # by T1: the fits that are reported, and their cost (V,)

    def fit(self, t1b: float, turns: int = FEW) -> tuple[Posterior, ArrivalFactors]:
        s = self.subject
        factors = ArrivalFactors(s.plan, self.rows, t1b, s.noise[self.rows], s.level, s.flow)
        return propagate(s.prior.kernel(self.distance) + self.extra, self.mean, factors, self.sites, turns), factors

    def finish(self, t1b: float) -> tuple[Posterior, Tensor]:
        """The fit that is reported at a T1 of blood, remembered."""
        if t1b not in self.final:
            fitted, factors = self.fit(t1b, MANY)
            self.final[t1b] = fitted, 0.5 * factors.expected_squares()
        return self.final[t1b]

    def seek_foci(self) -> None:
        given = Conditioned(self.subject.prior.kernel(self.distance), self.mean, self.sites)
        self.foci = find_foci(given, self.foci)
        self.extra = self.foci.kernel()


class Subject:
    """The state of the joint fit: what all tiles share, and the tiles that it is learnt from."""

    def __init__(self, plan: Plan, scan: Scan, level: float, t1b_prior: Gaussian | None, spatial: bool):
        self.absolute = scan.m0 is not None
        self.plan, self.level, self.t1b_prior, self.spatial = plan, level * plan.equation_unit, t1b_prior, spatial
        self.t1b = plan.t1b if t1b_prior is None else float(t1b_prior.mean)
        self.arrival = ATT_PRIOR[plan.labeling][0]
        self.floor = LEAST_NOISE * plan.c.amplitude
        noise = torch.as_tensor(plan.c.noise, dtype=torch.float64, device=plan.device).clamp_min(self.floor)
        self.noise = noise if plan.c.degrees else noise.square().mean().sqrt().expand(len(plan.c)).clone()
        self.flow = self._typical_flow()
        usual = plan.s.flow_prior if self.absolute else None
        self.expected = 1.0 if usual is None else float(usual.mean) / self.flow
        sd = MEAN_SD[0] if usual is None else float(usual.sd) / self.flow
        self.prior = Prior.typical(spatial, (sd, MEAN_SD[1]))
        place = np.stack(plan.c.voxels, axis=1) * scan.grid.spacing
        wide = np.ptp(place, axis=0) > 0
        self.place = place / (scan.grid.spacing[wide].min() if wide.any() else 1.0)
        self.tiles = tiles(self.place, HALO if spatial else 0.0)
        chosen = np.unique(np.linspace(0, len(self.tiles) - 1, min(len(self.tiles), TEACHERS)).round().astype(int))
        self.teachers = [self.region(Tile(t.voxels[: t.core], t.core)) for t in (self.tiles[k] for k in chosen)]

    def region(self, tile: Tile) -> Region:
        return Region(self, tile, torch.as_tensor(self.place, device=self.plan.device))

    def _typical_flow(self) -> float:
        """Flow of the mean curve at its best arrival time; where the mean is no more than noise, what is usual."""
        c, rows = self.plan.c, torch.arange(1)
        mean = replace(c, data=c.data.mean(axis=0, keepdims=True), delay=c.delay[:1])
        kept, self.plan.c = c, mean
        whole = ArrivalFactors(self.plan, rows, self.t1b, self.noise[:1], self.level, 1.0)
        self.plan.c = kept
        gain = whole.cross.clamp_min(0).square() / whole.total.clamp_min(1e-12)
        best = int(gain.argmax())
        if float(gain.flatten()[best]) * len(c) > SURE_OF_FLOW:
            return float((whole.cross / whole.total).flatten()[best])
        return USUAL_FLOW if self.absolute else self.plan.flow

    def log_density(self, t1b: float, final: bool = False) -> float:
        """Log of evidence times prior of a T1 of blood, over the teachers."""
        assert self.t1b_prior is not None
        log_prior = -0.5 * ((t1b - float(self.t1b_prior.mean)) / float(self.t1b_prior.sd)) ** 2
        fits = (region.finish(t1b)[0] if final else region.fit(t1b)[0] for region in self.teachers)
        return log_prior + sum(float(fitted.log_evidence) for fitted in fits)

    def learn(self, progress: Callable[[float], None]) -> None:
        """Sites, foci, scales, noise and T1 in turn."""
        for turn in range(ROUNDS):
            squares, count = 0.0, 0
            for region in self.teachers:
                fitted, factors = region.fit(self.t1b)
                region.sites = fitted.sites
                squares, count = squares + float(factors.expected_squares().sum()), count + factors.data.numel()
                if turn >= FOCI_FROM and self.spatial:
                    region.seek_foci()
            self.prior = learn(self.prior, [(r.distance, r.extra, r.mean, r.sites) for r in self.teachers])
            if not self.plan.c.degrees:
                self.noise = (self.noise * (squares / count) ** 0.5).clamp_min(self.floor)
            if self.t1b_prior is not None and turn in SEARCH_IN:
                self._move_t1b(first=turn == SEARCH_IN[0])
            progress((turn + 1) / (ROUNDS + 4))

    def _move_t1b(self, first: bool) -> None:
        assert self.t1b_prior is not None
        middle, reach = (float(self.t1b_prior.mean), 2.0 * float(self.t1b_prior.sd)) if first else (self.t1b, 0.08 * self.t1b)
        values = np.linspace(max(middle - reach, LOWEST), min(middle + reach, HIGHEST), COARSE if first else NEAR)
        self.t1b = float(values[int(np.argmax([self.log_density(float(v)) for v in values]))])


def t1b_of(subject: Subject, progress: Callable[[float], None]) -> SubjectValue:
    """Learn what all tiles share; then the posterior of T1 of blood."""
    subject.learn(progress)
    if subject.t1b_prior is None:
        return SubjectValue.known(subject.t1b)
    mode, sd = find_mode(subject.log_density, subject.t1b)
    for region in subject.teachers:
        region.sites = region.fit(mode, MANY)[0].sites
    value = posterior(lambda t: subject.log_density(t, final=True), mode, min(sd, float(subject.t1b_prior.sd)))
    progress((ROUNDS + 2) / (ROUNDS + 4))
    return value


def fit_subject(
    plan: Plan,
    scan: Scan,
    level: float,
    t1b_prior: Gaussian | None,
    spatial: bool = True,
    progress: Callable[[float], None] | None = None,
) -> SubjectFit:
    """Fit all voxels of `plan.c`, the curves of `scan`. `t1b_prior` None: T1 of blood is given, `plan.t1b`. `level`: the model error."""
    report = progress or _silently
    subject = Subject(plan, scan, level, t1b_prior, spatial)
    value = t1b_of(subject, report)
    nodes = list(zip(value.nodes.tolist(), value.weights.tolist(), strict=True))
    if len(subject.tiles) > 1 and t1b_prior is not None:
        nodes = [(value.mean + z * value.sd, w) for z, w in GAUSS_HERMITE]
    return _assembled(subject, value, nodes, report)


def _assembled(subject: Subject, value: SubjectValue, nodes: list[tuple[float, float]], report: Callable[[float], None]) -> SubjectFit:
    """All tiles at the nodes of T1, mixed by their weights."""
    count = len(subject.plan.c)
    mean = subject.noise.new_zeros(count, 3)
    covariance, cost, varies = mean.new_zeros(count, 3, 3), mean.new_zeros(count), mean.new_zeros(count)
    focus, moved, turns = np.zeros(count), np.zeros(count), np.zeros(count, np.int16)
    for number in range(len(subject.tiles)):
        region = subject.teachers[0] if len(subject.tiles) == 1 else subject.region(subject.tiles[number])
        if len(subject.tiles) > 1:
            region.sites = region.fit(value.mean)[0].sites
            if subject.spatial:
                region.seek_foci()
                region.sites = region.fit(value.mean)[0].sites
        core = slice(0, region.tile.core)
        at = region.rows[core]
        mean[at], covariance[at], cost[at], last = mixture(region, value, nodes)
        focus[at.numpy()] = region.foci.at_voxels()[core].cpu().numpy()
        varies[at] = (subject.prior.varies()[1] ** 2 + region.extra[1].diagonal()[core]).sqrt()
        moved[at.numpy()], turns[at.numpy()] = last.moved, last.turns
        report((ROUNDS + 2 + 2 * (number + 1) / len(subject.tiles)) / (ROUNDS + 4))
    names = ("cbf", "att") if subject.t1b_prior is None else ("cbf", "att", "t1b")
    values = {name: mean[:, k].float() for k, name in enumerate(names)}
    covariance = covariance[:, : len(names), : len(names)]
    finite = torch.isfinite(mean.sum(dim=1) + covariance.sum(dim=(1, 2)))
    status = torch.where(torch.as_tensor(moved < SETTLED, device=mean.device), int(Status.CONVERGED), int(Status.STEP_LIMIT))
    status = torch.where(finite, status, int(Status.NOT_FINITE)).to(torch.uint8)
    condition, weakest = identifiability(covariance)
    solution = Solution(names, mean, values, status, cost, torch.as_tensor(turns, device=mean.device), covariance, condition, weakest)
    silent = (covariance[:, 1, 1].sqrt() > SILENT * varies).cpu().numpy()
    noise = subject.noise.cpu().numpy()
    usual = [round(subject.flow * x, 3) for x in (subject.expected, subject.prior.mean_sd[0])]
    return SubjectFit(solution, value, subject.t1b_prior, subject.prior, focus, silent, noise, subject.flow, len(subject.tiles), usual)


def mixture(region: Region, value: SubjectValue, nodes: list[tuple[float, float]]) -> tuple[Tensor, Tensor, Tensor, Posterior]:
    """Means (C, 3) and covariance (C, 3, 3) of flow (mL/100 g/min), ATT and T1 in the core, data cost (C,), and the last fit."""
    core = slice(0, region.tile.core)
    unit = region.mean.new_tensor([region.subject.flow, 1.0])
    weights = unit.new_tensor([w for _, w in nodes])
    means, inside, costs = [], [], []
    for t1b, _ in nodes:
        fitted, cost = region.finish(t1b)
        means.append(fitted.mean[core] * unit)
        inside.append(fitted.covariance[core] * unit[:, None] * unit)
        costs.append(cost[core])
    values = unit.new_tensor([t for t, _ in nodes])
    apart = values - weights @ values
    spread = float((weights @ apart**2).sqrt())
    apart = apart * (value.sd / spread) if spread > 0 else apart
    each = torch.cat([torch.stack(means), (value.mean + apart)[:, None, None].expand(-1, region.tile.core, 1)], dim=2)
    mean = torch.einsum("n,nvk->vk", weights, each)
    away = each - mean
    covariance = torch.einsum("n,nvk,nvl->vkl", weights, away, away)
    covariance[:, :2, :2] += torch.einsum("n,nvkl->vkl", weights, torch.stack(inside))
    return mean, covariance, torch.einsum("n,nv->v", weights, torch.stack(costs)), fitted


def _silently(done: float) -> None:
    pass
