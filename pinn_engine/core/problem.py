"""B independent least-squares problems with the residual vector as the primary object.

A PINN's loss is a sum of squares: data misfit, equation residual, initial and boundary conditions, priors. Every PINN library keeps the
scalar; here the vector r(theta) (B, R) is kept, and with it Gauss-Newton, elimination, covariance and identifiability become available.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Problem:
    """Subclass with `terms` (and, for speed, `linearise`); theta is (B, P), B problems of P coordinates each.

    `weights` has the same keys as the terms: a term's rows are multiplied by the square root of its weight, 0 takes the term away.
    `names` are the physical parameters to report; further columns of theta (network weights) are nuisance.
    """

    names: tuple[str, ...] = ()
    weights: Mapping[str, float | Tensor] = {}

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        """Residual blocks by name, each (B, R_k), in units of their standard deviation."""
        raise NotImplementedError

    def values(self, theta: Tensor) -> dict[str, Tensor]:
        """Physical value (B,) of every name in `names`."""
        return {name: theta[:, k] for k, name in enumerate(self.names)}

    def slopes(self, theta: Tensor) -> Tensor:
        """(B, P) d physical / d theta, columns in the order of theta; nuisance columns are 1."""
        return torch.ones_like(theta)

    def at_bound(self, theta: Tensor) -> Tensor:
        """(B,) True where a reported parameter lies on its bound."""
        return torch.zeros(theta.shape[0], dtype=torch.bool, device=theta.device)

    def take(self, rows: Tensor) -> Problem:
        """The same problem for a subset of the batch: how work is chunked and finished problems are set aside."""
        raise NotImplementedError

    def residual(self, theta: Tensor) -> Tensor:
        """(B, R) all terms, weighted, side by side."""
        return stack(self.terms(theta), self.weights)

    def linearise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Residual (B, R) and Jacobian (B, R, P). This is the plain forward-mode path; hot problems override it, tests hold both equal."""
        return linearise_reference(self, theta)

    def sensitivities(self, theta: Tensor) -> Tensor:
        """(B, R, Q) d residual / d (reported parameters, in physical units, then nuisance); Q >= len(names)."""
        return self.linearise(theta)[1] / self.slopes(theta).unsqueeze(1)


def stack(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """(B, R[, P]) blocks multiplied by the root of their weights, side by side; a weight is a number or (B,), a missing one is 1."""
    unknown = set(weights) - set(terms)
    if unknown:
        raise KeyError(f"weights name terms that do not exist: {sorted(unknown)}; the terms are {sorted(terms)}")
    blocks = []
    for name, block in terms.items():
        weight = weights.get(name, 1.0)
        if isinstance(weight, Tensor):
            block = block * weight.sqrt().reshape(-1, *[1] * (block.ndim - 1))
        elif weight != 1.0:
            block = block * weight**0.5
        blocks.append(block)
    filled = [block for block in blocks if block.shape[1]]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1)


def linearise_reference(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Residual and Jacobian in forward mode, all columns at once: row b of the residual depends on row b of theta alone."""
    directions = torch.eye(theta.shape[1], dtype=theta.dtype, device=theta.device).unsqueeze(1).expand(-1, theta.shape[0], -1)

    def along(direction: Tensor) -> Tensor:
        return torch.func.jvp(problem.residual, (theta,), (direction,))[1]

    residual = problem.residual(theta)
    if theta.shape[1] == 0:
        return residual, residual.new_zeros(*residual.shape, 0)
    return residual, torch.func.vmap(along, out_dims=-1)(directions)
