"""Joint maximum-a-posteriori fit of F smooth fields on a graph, the strength of smoothing learnt from the data, with posterior samples.

Model: node v has data of its own that depend on its F values x_v; field k has the prior N(0, (R_k D_k R_k)^-1), R from `roughness`, D
diagonal: one strength for each kind of node, since a kind with weak data must not borrow the smoothness of another.
One outer turn is a Gauss-Newton step by preconditioned conjugate gradients, a few exact samples of the linearised posterior
(perturb-and-MAP: Papandreou & Yuille 2010), a new strength (Fellner-Schall: Wood & Fasiolo 2017, doi:10.1111/biom.12640) and, every
second turn, new edge weights: a Student-t prior on the differences between neighbours, so that a step costs less than a slope.
Fields are (F, V, S): S right-hand sides side by side in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from .coarse import CoarseSpace, TwoLevel
from .roughness import EPSILON, Neighbours, Roughness

STRENGTH_RANGE = (1e-2, 3e4)
SHARED_TURNS = (3, 7)  # in which what nodes have in common moves
MOST_SHARED = 0.3  # of any of it in one step

Linearised = tuple[Tensor, Tensor, Tensor]  # gradient (F, V), information (F, F, V), cost (V,) of the data at the fields
Linearise = Callable[[Tensor], Linearised]  # from fields (F, V)


class Shared(Protocol):
    """P numbers that all nodes have in common, such as the levels that the fields are about."""

    def linearise_shared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """At fields x (F, V): the fields that each number is worth (F, V, P), and of what it does to the data beyond those fields:
        gradient (P,) and information (P, P), both with the numbers' own prior, and information with the fields (F, V, P)."""
        ...

    def move_shared(self, step: Tensor) -> None:
        """By `step` (P,)."""
        ...


@dataclass(frozen=True)
class SmoothSettings:
    """`degrees`: of the Student-t of neighbour differences, None = Gaussian. `samples` of the posterior at the end."""

    turns: int = 12
    degrees: float | None = 6.0
    strength: float = 300.0
    turn_samples: int = 4
    samples: int = 24
    tolerance: float = 5e-3
    max_iterations: int = 150
    acceleration: float = 1.8  # exponent of the update of the strength: plain Fellner-Schall creeps
    epsilon: float = EPSILON
    tie: float = 0.02  # weight of an edge between nodes of different kind
    seed: int = 0


@dataclass(frozen=True)
class SmoothFit:
    """The optimum, what the prior was there, and samples of the posterior around it."""

    x: Tensor  # (F, V)
    offset: Tensor  # (F, V) fixed part of the fields that the prior leaves alone; the fields are x + offset
    samples: Tensor  # (F, V, S), zero mean
    variance: Tensor  # (F, F, V) posterior covariance within a node
    strength: Tensor  # (F, V)
    rough: Roughness
    effective: Tensor  # (F, kinds) degrees of freedom that the data have bought
    coarse: CoarseSpace | None = None
    history: dict[str, list[float]] = field(default_factory=dict)


class Posterior:
    """H = A + R D R at one linearisation: products, solves and samples; `strength` (F, V) is the diagonal of D."""

    def __init__(
        self, information: Tensor, strength: Tensor, rough: Roughness, settings: SmoothSettings, coarse: CoarseSpace | None = None
    ):
        self.information, self.strength, self.rough, self.settings, self.coarse = information, strength, rough, settings, coarse
        self.iterations = 0  # of the latest solve
        self.cycles: list[TwoLevel] = []
        if coarse is not None:
            shift = (information.diagonal().T.clamp_min(0) / strength).sqrt()
            self.cycles = [TwoLevel(matrix, s, coarse) for matrix, s in zip(rough.matrices, shift, strict=True)]
        block = information + torch.diag_embed(rough.diagonal(strength).T).permute(1, 2, 0)
        self.block_inverse = _inverse(block)

    def apply(self, x: Tensor) -> Tensor:
        return _blocks(self.information, x) + self.prior(x)

    def prior(self, x: Tensor) -> Tensor:
        """(F, V, S) R D R x"""
        return self.rough.apply(self.strength.unsqueeze(2) * self.rough.apply(x))

    def precondition(self, r: Tensor) -> Tensor:
        """(F, V, S) about H^-1 r: by two cycles a field, or by the nodes' own blocks without a coarse space."""
        if not self.cycles:
            return _blocks(self.block_inverse, r)
        return torch.stack([cycle.solve(cycle.solve(r[k]) / self.strength[k].unsqueeze(1)) for k, cycle in enumerate(self.cycles)])

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
        return _blocks(_root(self.information), noise[0]) + self.rough.apply(self.strength.unsqueeze(2).sqrt() * noise[1])

    def sample(self, count: int, start: Tensor | None = None, batch: int = 8) -> tuple[Tensor, Tensor]:
        """Zero-mean samples (F, V, S) of the posterior and the perturbations H z that they solve."""
        rhs = self.perturbation(count)
        parts = []
        for begin in range(0, count, batch):
            piece = slice(begin, min(begin + batch, count))
            warm = None if start is None or begin >= start.shape[2] else start[:, :, piece]
            warm = warm if warm is not None and warm.shape[2] == rhs[:, :, piece].shape[2] else None
            parts.append(self.solve(rhs[:, :, piece].contiguous(), None if warm is None else warm.contiguous()))
        return torch.cat(parts, dim=2), rhs

    def covariance(self, z: Tensor, rhs: Tensor) -> Tensor:
        """(F, F, V) within a node, Rao-Blackwellised: a node's block given the rest of a sample is exact, H_vv^-1."""
        given = z - _blocks(self.block_inverse, rhs)
        return self.block_inverse + torch.einsum("fvs,gvs->fgv", given, given) / z.shape[2]


def fit_smooth(
    linearise: Linearise,
    graph: Neighbours,
    alike: Tensor,
    kind: Tensor,
    start: Tensor,
    settings: SmoothSettings,
    coarse: CoarseSpace | None = None,
    progress: Callable[[float], None] | None = None,
    shared: Shared | None = None,
) -> SmoothFit:
    """Fit fields (F, V) from `start`; `kind` (V,) numbers the kind of each node, `alike` (E,) in [0, 1] says how far
    the two ends of an edge are of one kind. What nodes have in common is fitted beside them; its doubt is part of
    the variance, not of the samples."""
    x, strength, z = start.clone(), torch.full((len(start), int(kind.max()) + 1), settings.strength, dtype=start.dtype), None
    similar = settings.tie + (1 - settings.tie) * alike
    base = similar * graph.factor
    rough = Roughness(graph, base.expand(len(x), -1), settings.epsilon)
    history: dict[str, list[float]] = {"cost": []}
    effective = torch.zeros_like(strength)
    for turn in range(settings.turns):
        gradient, information, cost = linearise(x)
        post = Posterior(information, strength[:, kind], rough, settings, coarse)
        x, total = _step(linearise, post, x, gradient, cost)
        if shared is not None and turn in SHARED_TURNS:
            x = _move(linearise, shared, post, x)
        history["cost"].append(total / x.shape[1])
        history.setdefault("iterations", []).append(post.iterations)
        z, _ = post.sample(settings.turn_samples, z)
        strength, effective = _stronger(post, x, z, strength, kind, settings.acceleration)
        if turn % 2 == 1 and settings.degrees is not None:
            square = squared_differences(graph, x, z)
            rough = Roughness(graph, base * edge_weights(similar, square, settings.degrees), settings.epsilon)
        if progress:
            progress((turn + 1) / (settings.turns + 4))
    fitted = SmoothFit(
        x, torch.zeros_like(x), x.new_zeros(*x.shape, 0), x.new_zeros(0), strength[:, kind], rough, effective, coarse, history
    )
    fitted = finish(linearise, fitted, settings, z)
    return fitted if shared is None else replace(fitted, variance=fitted.variance + _doubt(linearise, shared, fitted, settings))


def refit(linearise: Linearise, fitted: SmoothFit, offset: Tensor, settings: SmoothSettings) -> SmoothFit:
    """One Gauss-Newton step with strength and edges frozen, after the fixed part of the fields has changed; no new samples."""

    def shifted(x: Tensor) -> Linearised:
        return linearise(x + offset)

    gradient, information, cost = shifted(fitted.x)
    post = Posterior(information, fitted.strength, fitted.rough, settings, fitted.coarse)
    x, _ = _step(shifted, post, fitted.x, gradient, cost)
    return replace(fitted, x=x, offset=offset)


def finish(linearise: Linearise, fitted: SmoothFit, settings: SmoothSettings, warm: Tensor | None = None) -> SmoothFit:
    """Last steps at the learnt strength, then the samples."""

    def shifted(x: Tensor) -> Linearised:
        return linearise(x + fitted.offset)

    x = fitted.x
    for _ in range(2):
        gradient, information, cost = shifted(x)
        post = Posterior(information, fitted.strength, fitted.rough, settings, fitted.coarse)
        x, _ = _step(shifted, post, x, gradient, cost)
    _, information, _ = shifted(x)
    post = Posterior(information, fitted.strength, fitted.rough, settings, fitted.coarse)
    z, rhs = post.sample(settings.samples, warm)
    return replace(fitted, x=x, samples=z, variance=post.covariance(z, rhs))


def squared_differences(graph: Neighbours, x: Tensor, z: Tensor) -> Tensor:
    """(F, E) expected square of the difference along each edge, over the posterior: an edge is not cut because the noise was large."""
    spread = (z[:, graph.first] - z[:, graph.second]).square().mean(dim=2)
    return (x[:, graph.first] - x[:, graph.second]).square() + spread


def edge_weights(similarity: Tensor, square: Tensor, degrees: float) -> Tensor:
    """(F, E) Student-t weights (degrees + 1) / (degrees + square / its mean), scaled to mean 1 over edges of one kind."""
    scale = (similarity * square).sum(dim=1, keepdim=True) / similarity.sum().clamp_min(1e-12)
    weight = (degrees + 1) / (degrees + similarity * square / scale.clamp_min(1e-20))
    return weight / ((similarity * weight).sum(dim=1, keepdim=True) / similarity.sum().clamp_min(1e-12))


def _step(linearise: Linearise, post: Posterior, x: Tensor, gradient: Tensor, cost: Tensor) -> tuple[Tensor, float]:
    """One Gauss-Newton step, halved until the total cost falls; the new fields and their cost."""
    pull = post.prior(x.unsqueeze(2))
    before = float(cost.double().sum() + 0.5 * (pull.squeeze(2) * x).double().sum())
    step = post.solve(-(gradient.unsqueeze(2) + pull))
    turn = post.prior(step)
    for _ in range(5):
        trial = x + step.squeeze(2)
        after = float(linearise(trial)[2].double().sum() + 0.5 * ((pull + turn).squeeze(2) * trial).double().sum())
        if after <= before:
            return trial, after
        step, turn = 0.5 * step, 0.5 * turn
    return x, before


def _answer(shared: Shared, post: Posterior, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of what nodes have in common: gradient (P,) and information (P, P) once fields answer, by how much they answer less than each is
    worth (F, V, P), and that worth. As differences of large numbers these would be noise."""
    worth, gradient, information, across = shared.linearise_shared(x)
    pull = post.prior(worth)
    less = post.solve(pull - across)
    information = information + torch.einsum("fvp,fvq->pq", worth, pull) - torch.einsum("fvp,fvq->pq", less, pull - across)
    return gradient - torch.einsum("fvp,fv->p", pull, x), information, less, worth


def _move(linearise: Linearise, shared: Shared, post: Posterior, x: Tensor) -> Tensor:
    """One Gauss-Newton step of what nodes have in common; the fields that go with it."""
    gradient, information, less, worth = _answer(shared, post, x)
    rest = linearise(x)[0] + post.prior(x.unsqueeze(2)).squeeze(2)
    step = -torch.linalg.pinv(information, hermitian=True) @ (gradient + torch.einsum("fvp,fv->p", less, rest))
    step = step * (MOST_SHARED / step.abs().max().clamp_min(MOST_SHARED))
    shared.move_shared(step)
    return x + (less - worth) @ step


def _doubt(linearise: Linearise, shared: Shared, fitted: SmoothFit, settings: SmoothSettings) -> Tensor:
    """(F, F, V) what the doubt of that adds to the covariance of the fields."""
    post = Posterior(linearise(fitted.x)[1], fitted.strength, fitted.rough, settings, fitted.coarse)
    _, information, less, _ = _answer(shared, post, fitted.x)
    return torch.einsum("fvp,pq,gvq->fgv", less, torch.linalg.pinv(information, hermitian=True), less)


def _stronger(post: Posterior, x: Tensor, z: Tensor, strength: Tensor, kind: Tensor, acceleration: float) -> tuple[Tensor, Tensor]:
    """New strengths (F, kinds) and effective degrees of freedom, tr(H^-1 A) by samples: the low-variance form of Fellner-Schall.

    A node's own share of the trace counts for its kind, which is exact as far as kinds do not depend on each other.
    """
    effective = torch.zeros_like(strength).index_add_(1, kind, (z * _blocks(post.information, z)).mean(dim=2))
    energy = torch.zeros_like(strength).index_add_(1, kind, post.rough.apply(x.unsqueeze(2)).squeeze(2).square())
    ratio = effective.clamp_min(1.0) / (strength * energy).clamp_min(1e-20)
    return (strength * (ratio**acceleration).clamp(0.1, 10.0)).clamp(*STRENGTH_RANGE), effective


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
