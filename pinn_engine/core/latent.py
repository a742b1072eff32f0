"""Expectation propagation for F Gaussian fields on V nodes whose data say something non-Gaussian about each node (Minka 2001).

Prior: field k is N(mean_k, K_k), independent of the others, K_k (V, V) dense. The data of node v enter through its own F values alone, by
a factor whose moments under any Gaussian can be computed. Each factor is replaced by a Gaussian "site" that has the same moments where
the other nodes have their say. Unlike a Laplace approximation it needs no gradient and no start, sees all modes of a factor, and its
evidence is accurate enough to choose a prior by (Kuss & Rasmussen 2005; Rasmussen & Williams 2006, chapter 3). One turn costs
(F V)^3: it is for a region of a thousand nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_PRECISION = 1e-9  # of a site relative to its cavity, and of a cavity relative to the posterior: what widens is taken as silent

Tilted = tuple[Tensor, Tensor, Tensor]  # log of the normaliser (V,), mean (V, F), covariance (V, F, F) of factor times cavity
Factors = Callable[[Tensor, Tensor], Tilted]  # from the cavities' means (V, F) and covariances (V, F, F)


@dataclass(frozen=True)
class Sites:
    """Gaussian stand-ins exp(shift . x - x . precision . x / 2) of the factors: precision (V, F, F), shift (V, F)."""

    precision: Tensor
    shift: Tensor

    @staticmethod
    def silent(nodes: int, fields: int, device: torch.device | str = "cpu") -> Sites:
        """Sites that say nothing, to begin with."""
        zero = torch.zeros(nodes, fields, dtype=torch.float64, device=device)
        return Sites(torch.diag_embed(zero), zero)


@dataclass(frozen=True)
class Posterior:
    """Fields given data: means (V, F), covariance within a node (V, F, F), and the log of the evidence."""

    mean: Tensor
    covariance: Tensor
    log_evidence: Tensor
    sites: Sites
    turns: int
    moved: float  # largest move of a mean in the last turn, in posterior sd


class Conditioned:
    """The prior N(mean, blockdiag(K)) multiplied by `sites`: the Gaussian algebra, differentiable by K."""

    def __init__(self, kernel: Tensor, mean: Tensor, sites: Sites):
        fields, nodes = kernel.shape[0], kernel.shape[1]
        root = _cholesky(sites.precision)  # (V, F, F)
        # rows of U: (F, V) field-major, U = K L with L the roots of the sites laid out node by node
        pulled = torch.stack([kernel[k].unsqueeze(2) * root[None, :, k, :] for k in range(fields)])  # (F, V, V', F')
        self.pulled = pulled.reshape(fields * nodes, nodes * fields)
        inner = torch.einsum("vkf,kvwg->vfwg", root, pulled).reshape(nodes * fields, nodes * fields)
        self.factor = torch.linalg.cholesky(inner + torch.eye(nodes * fields, dtype=kernel.dtype, device=kernel.device))
        self.root, self.kernel, self.prior_mean, self.sites, self.shape = root, kernel, mean, sites, (fields, nodes)
        # by the sites' own means: their precision may be 1e12 of the prior's, and sums of both lose all digits there
        force = sites.shift - (sites.precision @ mean.T.unsqueeze(2)).squeeze(2)  # (V, F)
        apart = torch.linalg.solve_triangular(root, force.unsqueeze(2), upper=False).reshape(-1, 1)
        whitened = torch.linalg.solve_triangular(self.factor, apart, upper=False)
        self.move = (self.pulled @ torch.linalg.solve_triangular(self.factor.T, whitened, upper=True)).reshape(fields, nodes)
        own = torch.linalg.solve_triangular(root, sites.shift.unsqueeze(2), upper=False)
        self.log_normaliser = 0.5 * (own.square().sum() - whitened.square().sum()) - self.factor.diagonal().log().sum()

    def mean(self) -> Tensor:
        """(V, F)"""
        return (self.prior_mean + self.move).T

    def covariance(self) -> Tensor:
        """(V, F, F) within each node."""
        fields, nodes = self.shape
        known = torch.linalg.solve_triangular(self.factor, self.pulled.T, upper=False).reshape(-1, fields, nodes)
        prior = torch.stack([self.kernel[k].diagonal() for k in range(fields)], dim=1)
        return torch.diag_embed(prior) - torch.einsum("akv,alv->vkl", known, known)


def propagate(
    kernel: Tensor, mean: Tensor, factors: Factors, sites: Sites, turns: int = 40, damping: float = 0.7, tolerance: float = 1e-3
) -> Posterior:
    """Sites moved towards their factors, all at once, until no mean moves by more than `tolerance` of its sd.

    `kernel` (F, V, V) and `mean` (F, V) of the prior; `sites` to start from.
    """
    previous, moved, turn = None, float("inf"), 0
    for turn in range(1, turns + 1):
        given = Conditioned(kernel, mean, sites)
        m, c = given.mean(), given.covariance()
        inverse = torch.linalg.inv(c)
        cavity_precision = _positive(inverse - sites.precision, inverse)  # rounding can take away more than there is
        cavity = torch.linalg.inv(cavity_precision)
        cavity_mean = (cavity @ ((inverse @ m.unsqueeze(2)).squeeze(2) - sites.shift).unsqueeze(2)).squeeze(2)
        log_z, tilted_mean, tilted = factors(cavity_mean, cavity)
        evidence = given.log_normaliser + (log_z + _log_partition(cavity_mean, cavity) - _log_partition(m, c)).sum()
        if previous is not None:
            moved = float(((m - previous).abs() / c.diagonal(dim1=1, dim2=2).sqrt()).max())
            if moved < tolerance:
                break
        previous = m
        wanted = _positive(torch.linalg.inv(tilted) - cavity_precision, cavity_precision)
        shift = ((wanted + cavity_precision) @ tilted_mean.unsqueeze(2)).squeeze(2) - (cavity_precision @ cavity_mean.unsqueeze(2)).squeeze(
            2
        )
        step = 1.0 if turn == 1 else damping
        sites = Sites(torch.lerp(sites.precision, wanted, step), torch.lerp(sites.shift, shift, step))
    return Posterior(m, c, evidence, sites, turn, moved)


def _log_partition(mean: Tensor, covariance: Tensor) -> Tensor:
    """(V,) log of the integral of a Gaussian whose exponent has no constant term, up to a number."""
    return 0.5 * (mean.unsqueeze(1) @ torch.linalg.solve(covariance, mean.unsqueeze(2))).flatten() + 0.5 * torch.logdet(covariance)


def _positive(precision: Tensor, scale: Tensor) -> Tensor:
    """The nearest matrix that is positive definite in the units of `scale`, itself a precision (V, F, F)."""
    root = torch.linalg.cholesky(scale)
    inner = torch.linalg.solve_triangular(root, torch.linalg.solve_triangular(root, precision, upper=False).mT, upper=False)
    values, vectors = torch.linalg.eigh(0.5 * (inner + inner.mT))
    outer = root @ vectors
    return (outer * values.clamp_min(LEAST_PRECISION).unsqueeze(1)) @ outer.mT


def _cholesky(precision: Tensor) -> Tensor:
    """Roots of small positive semidefinite matrices; those that are zero stay zero."""
    scale = precision.diagonal(dim1=1, dim2=2).sum(dim=1).clamp_min(1e-300)[:, None, None]
    unit = precision / scale + 1e-14 * torch.eye(precision.shape[1]).to(precision)
    return torch.linalg.cholesky(unit) * scale.sqrt()
