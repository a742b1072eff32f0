"""Joint maximum-a-posteriori fit of F smooth fields on a graph, the strength of smoothing learnt from the data, with posterior samples.

Model: node v has data of its own that depend on its F values x_v; field k has the prior N(0, (d_k R_k^2)^-1), R from `roughness`. Fields
of one family (the same quantity of two tissues) have one strength d, which the weaker data alone could not tell, and edges at the same
places. A field is there at all nodes, also where its tissue is not: across a sulcus, or from one gyrus to the next, it goes straight.
One outer turn is a Gauss-Newton step by preconditioned conjugate gradients, a few exact samples of the linearised posterior
(perturb-and-MAP: Papandreou & Yuille 2010), a new strength (Fellner-Schall: Wood & Fasiolo 2017, doi:10.1111/biom.12640) and, every
second turn, new edge weights: a Student-t prior on the differences between neighbours, so that a step costs less than a slope.
Fields are (F, V, S): S right-hand sides side by side in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .coarse import CoarseSpace, TwoLevel
from .roughness import EPSILON, Neighbours, Roughness

STRENGTH_RANGE = (1e-2, 3e4)
EVENED, EVENED_RATE = 6, 8.0  # steps of diffusion of the information at most, and times R's rate: see `Posterior._around`

Linearised = tuple[Tensor, Tensor, Tensor]  # gradient (F, V), information (F, F, V), cost (V,) of the data at the fields
Linearise = Callable[[Tensor], Linearised]  # from fields (F, V)


@dataclass(frozen=True)
class SmoothSettings:
    """`degrees`: of the Student-t of neighbour differences, None = Gaussian. `samples` of the posterior at the end."""

    turns: int = 12
    degrees: float | None = 6.0
    strength: float = 3.0  # to begin with: from far above, fields of little signal flatten and stay so
    turn_samples: int = 4
    samples: int = 24
    tolerance: float = 5e-3
    turn_tolerance: float = 2e-2  # of the solves before the last
    max_iterations: int = 150
    acceleration: float = 1.8  # exponent of the update of the strength: plain Fellner-Schall creeps
    epsilon: float = EPSILON
    seed: int = 0


@dataclass(frozen=True)
class SmoothFit:
    """The optimum, what the prior was there, and samples of the posterior around it."""

    x: Tensor  # (F, V)
    offset: Tensor  # (F, V) fixed part of the fields that the prior leaves alone; the fields are x + offset
    samples: Tensor  # (F, V, S), zero mean
    variance: Tensor  # (F, F, V) posterior covariance within a node
    strength: Tensor  # (F,)
    rough: Roughness
    effective: Tensor  # (F,) degrees of freedom that the data have bought
    history: dict[str, list[float]] = field(default_factory=dict)


class Posterior:
    """H = A + d R^2 at one linearisation: products, solves and samples; `strength` (F,) is d of each field."""

    def __init__(self, information: Tensor, strength: Tensor, rough: Roughness, settings: SmoothSettings):
        self.information, self.strength, self.rough, self.settings = information, strength, rough, settings
        self.iterations = 0  # of the latest solve
        self.cycles: list[TwoLevel] = []
        if rough.coarse is not None:
            shift = rough.families((self._around() / strength.unsqueeze(1)).sqrt().unsqueeze(2))
            parts = zip(rough.matrices, rough.on_coarse, shift.squeeze(3), strict=True)
            self.cycles = [TwoLevel(matrix, small, one, rough.coarse) for matrix, small, one in parts]
        block = information + torch.diag_embed(rough.diagonal(strength).T).permute(1, 2, 0)
        self.block_inverse = _inverse(block)

    def _around(self) -> Tensor:
        """(F, V) information of each field, averaged as far as the fields go together: a smooth mode feels the average."""
        own = self.information.diagonal().clamp_min(0)
        rate = float((own.mean(dim=0) / self.strength).max().sqrt())  # of R at which the data and the prior weigh the same
        return self.rough.smooth(own, round(min(EVENED, EVENED_RATE / max(rate, 1e-6)))).clamp_min(0).T  # 0 may round below

    def apply(self, x: Tensor) -> Tensor:
        return _blocks(self.information, x) + self.prior(x)

    def prior(self, x: Tensor) -> Tensor:
        """(F, V, S) d R^2 x"""
        return self.strength[:, None, None] * self.rough.apply(x, times=2)

    def precondition(self, r: Tensor) -> Tensor:
        """(F, V, S) about H^-1 r: by two cycles a field, or by the nodes' own blocks without a coarse space."""
        if not self.cycles:
            return _blocks(self.block_inverse, r)
        solved = [cycle.solve(cycle.solve(y)).transpose(0, 1) for cycle, y in zip(self.cycles, self.rough.families(r), strict=True)]
        return torch.cat(solved) / self.strength[:, None, None]

    def solve(self, rhs: Tensor, start: Tensor | None = None) -> Tensor:
        """x of H x = rhs by conjugate gradients, each column to `tolerance` of its own right-hand side."""
        x = torch.zeros_like(rhs) if start is None else start.clone()
        r = rhs - self.apply(x) if start is not None else rhs.clone()
        z = self.precondition(r)
        p, rz = z.clone(), _dot(r, z)
        goal = self.settings.tolerance**2 * _dot(rhs, self.precondition(rhs))
        tiny = torch.finfo(rhs.dtype).tiny
        for iteration in range(self.settings.max_iterations):
            self.iterations = iteration
            if bool((rz <= goal).all()):
                break
            q = self.apply(p)
            alpha = rz / _dot(p, q).clamp_min(tiny)
            x.addcmul_(p, alpha)
            r.addcmul_(q, -alpha)
            z = self.precondition(r)
            rz, previous = _dot(r, z), rz
            p = torch.addcmul(z, p, rz / previous.clamp_min(tiny))
        return x

    def perturbation(self, count: int) -> Tensor:
        """(F, V, S) draws from N(0, H): the root of each part of H on white noise. Same settings, same draws."""
        fields, nodes = self.information.shape[0], self.information.shape[2]
        generator = torch.Generator().manual_seed(self.settings.seed)
        noise = torch.randn(2, count, fields, nodes, generator=generator).permute(0, 2, 3, 1).to(self.information).contiguous()
        return _blocks(_root(self.information), noise[0]) + self.strength[:, None, None].sqrt() * self.rough.apply(noise[1])

    def sample(self, count: int, batch: int = 8) -> tuple[Tensor, Tensor]:
        """Zero-mean samples (F, V, S) of the posterior and the perturbations H z that they solve."""
        rhs = self.perturbation(count)
        return torch.cat([self.solve(piece.contiguous()) for piece in rhs.split(batch, dim=2)], dim=2), rhs

    def covariance(self, z: Tensor, rhs: Tensor) -> Tensor:
        """(F, F, V) within a node, Rao-Blackwellised: a node's block given the rest of a sample is exact, H_vv^-1."""
        given = z - _blocks(self.block_inverse, rhs)
        return self.block_inverse + torch.einsum("fvs,gvs->fgv", given, given) / z.shape[2]


def fit_smooth(
    linearise: Linearise,
    graph: Neighbours,
    presence: Tensor,
    start: Tensor,
    settings: SmoothSettings,
    coarse: CoarseSpace | None = None,
    progress: Callable[[float], None] | None = None,
    recentre: Callable[[Tensor], Tensor] | None = None,
) -> SmoothFit:
    """Fit fields (F, V) from `start`. `presence` (T, V), 0 to 1: how far a node holds what each of T fields is about; F is a multiple of T,
    and T fields that follow each other are a family, with one strength and the same edges.

    `recentre` may take from the fields, after every turn, what `linearise` then adds: their levels, which have no prior.
    """
    x, strength = start.clone(), start.new_full((len(start),), settings.strength)
    z: Tensor | None = None
    rough = Roughness(graph, graph.factor.expand(len(x) // len(presence), -1), settings.epsilon, coarse)
    on_edges = 0.5 * (presence[:, graph.first] + presence[:, graph.second])
    rougher = replace(settings, tolerance=settings.turn_tolerance)
    history: dict[str, list[float]] = {"cost": []}
    effective = torch.zeros_like(strength)
    for turn in range(settings.turns):
        gradient, information, cost = linearise(x)
        post = Posterior(information, strength, rough, rougher)
        pull = post.prior(x.unsqueeze(2))
        rhs = torch.cat([post.perturbation(settings.turn_samples), -(gradient.unsqueeze(2) + pull)], dim=2)
        solved = post.solve(rhs, None if z is None else torch.cat([z, torch.zeros_like(pull)], dim=2))  # matrices are read once for all
        z = solved[:, :, :-1].contiguous()
        x, total = _along(linearise, post, x, pull, cost, solved[:, :, -1:])
        x = x if recentre is None else recentre(x)
        history["cost"].append(total / x.shape[1])
        history.setdefault("iterations", []).append(post.iterations)
        strength, effective = _stronger(post, x, z, settings.acceleration)
        if turn % 2 == 1 and settings.degrees is not None:
            square = squared_differences(graph, x, z)
            rough = Roughness(graph, graph.factor * edge_weights(square, on_edges, settings.degrees), settings.epsilon, coarse)
        if progress:
            progress((turn + 1) / (settings.turns + 4))
    nothing = x.new_zeros(0)
    fitted = SmoothFit(x, torch.zeros_like(x), nothing, nothing, strength, rough, effective, history)
    return finish(linearise, fitted, settings)


def refit(linearise: Linearise, fitted: SmoothFit, offset: Tensor, settings: SmoothSettings) -> SmoothFit:
    """One Gauss-Newton step with strength and edges frozen, after the fixed part of the fields has changed; no new samples."""

    def shifted(x: Tensor) -> Linearised:
        return linearise(x + offset)

    gradient, information, cost = shifted(fitted.x)
    post = Posterior(information, fitted.strength, fitted.rough, settings)
    x, _ = _step(shifted, post, fitted.x, gradient, cost)
    return replace(fitted, x=x, offset=offset)


def finish(linearise: Linearise, fitted: SmoothFit, settings: SmoothSettings) -> SmoothFit:
    """Last steps at the learnt strength, then the samples."""

    def shifted(x: Tensor) -> Linearised:
        return linearise(x + fitted.offset)

    x = fitted.x
    for _ in range(2):
        gradient, information, cost = shifted(x)
        post = Posterior(information, fitted.strength, fitted.rough, settings)
        x, _ = _step(shifted, post, x, gradient, cost)
    _, information, _ = shifted(x)
    post = Posterior(information, fitted.strength, fitted.rough, settings)
    z, rhs = post.sample(settings.samples)
    return replace(fitted, x=x, samples=z, variance=post.covariance(z, rhs))


def squared_differences(graph: Neighbours, x: Tensor, z: Tensor) -> Tensor:
    """(F, E) expected square of the difference along each edge, over the posterior: an edge is not cut because the noise was large."""
    spread = (z[:, graph.first] - z[:, graph.second]).square().mean(dim=2)
    return (x[:, graph.first] - x[:, graph.second]).square() + spread


def edge_weights(square: Tensor, presence: Tensor, degrees: float) -> Tensor:
    """(Q, E) weights of a Student-t of all fields of a family together, from square differences (F, E), scaled to mean 1.

    Each counts by its `presence` (F / Q, E): where a field means nothing its differences are large, and would cut the others' edges.
    """
    square = square.unflatten(0, (-1, len(presence)))
    typical = (presence * square).sum(dim=2, keepdim=True) / presence.sum(dim=1).clamp_min(1e-20).unsqueeze(1)
    relative = presence * square / typical.clamp_min(1e-20)
    weight = (degrees + presence.sum(dim=0)) / (degrees + relative.sum(dim=1))
    return weight / weight.mean(dim=1, keepdim=True)


def _step(linearise: Linearise, post: Posterior, x: Tensor, gradient: Tensor, cost: Tensor) -> tuple[Tensor, float]:
    """One Gauss-Newton step, halved until the total cost falls; the new fields and their cost."""
    pull = post.prior(x.unsqueeze(2))
    return _along(linearise, post, x, pull, cost, post.solve(-(gradient.unsqueeze(2) + pull)))


def _along(linearise: Linearise, post: Posterior, x: Tensor, pull: Tensor, cost: Tensor, step: Tensor) -> tuple[Tensor, float]:
    """Fields x moved by a step (F, V, 1), halved until the total cost falls, and their cost; `pull` is the prior's gradient at x."""
    before = float(cost.double().sum() + 0.5 * (pull.squeeze(2) * x).double().sum())
    turn = post.prior(step)
    for _ in range(5):
        trial = x + step.squeeze(2)
        after = float(linearise(trial)[2].double().sum() + 0.5 * ((pull + turn).squeeze(2) * trial).double().sum())
        if after <= before:
            return trial, after
        step, turn = 0.5 * step, 0.5 * turn
    return x, before


def _stronger(post: Posterior, x: Tensor, z: Tensor, acceleration: float) -> tuple[Tensor, Tensor]:
    """New strengths (F,) and effective degrees of freedom, tr(H^-1 A) by samples: the low-variance form of Fellner-Schall."""
    effective = (z * _blocks(post.information, z)).mean(dim=2).sum(dim=1)
    bent = post.strength * post.rough.apply(x.unsqueeze(2)).square().sum(dim=(1, 2))
    by_family = [v.unflatten(0, (len(post.rough.weight), -1)).sum(dim=1, keepdim=True) for v in (effective, bent)]
    ratio = by_family[0].clamp_min(1.0) / by_family[1].clamp_min(1e-20)
    step = (ratio**acceleration).clamp(0.1, 10.0).expand(-1, len(x) // len(ratio)).flatten()
    return (post.strength * step).clamp(*STRENGTH_RANGE), effective


def _blocks(blocks: Tensor, x: Tensor) -> Tensor:
    """(F, V, S): each node's block (F, F, V) times its fields."""
    rows = []
    for f in range(blocks.shape[0]):
        row = blocks[f, 0].unsqueeze(1) * x[0]
        for g in range(1, blocks.shape[1]):
            row = torch.addcmul(row, blocks[f, g].unsqueeze(1), x[g])
        rows.append(row)
    return torch.stack(rows)


def _inverse(blocks: Tensor) -> Tensor:
    """(F, F, V) inverses, F of 1 or 2 written out."""
    if blocks.shape[0] == 1:
        return 1 / blocks
    if blocks.shape[0] == 2:
        a, b, c = blocks[0, 0], blocks[0, 1], blocks[1, 1]
        return torch.stack([torch.stack([c, -b]), torch.stack([-b, a])]) / (a * c - b * b)
    return torch.linalg.inv(blocks.permute(2, 0, 1)).permute(1, 2, 0)


def _root(blocks: Tensor) -> Tensor:
    """(F, F, V) lower Cholesky factors of positive semi-definite blocks."""
    out = torch.zeros_like(blocks)
    for i in range(blocks.shape[0]):
        for j in range(i + 1):
            rest = blocks[i, j] - (out[i, :j] * out[j, :j]).sum(dim=0)
            if i == j:
                out[i, i] = rest.clamp_min(0).sqrt()
            else:
                out[i, j] = torch.where(out[j, j] > 0, rest / out[j, j].clamp_min(1e-20), 0.0)
    return out


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(S,) inner product of each column."""
    return (a * b).sum(dim=(0, 1))
