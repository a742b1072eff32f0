"""What a fit is asked for: unknowns held fixed, free within smooth bounds, or shared; and their priors.

An unknown lives in two worlds. `values` are physical (seconds, mm^2/ms); `theta` are the solver's free coordinates, on the whole real
line, so that no step can leave the bounds and no gradient dies there (a clipped ReLU has gradient zero outside and never comes back).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .couplings import Coupling, Independent, Shared


@dataclass(frozen=True)
class Gaussian:
    """Prior N(mean, sd^2) in physical units; `mean` may be (B,), one per problem."""

    mean: float | Tensor
    sd: float | Tensor

    def residual(self, value: Tensor) -> Tensor:
        return (value - self.mean) / self.sd

    def slope(self, value: Tensor) -> Tensor:
        return torch.ones_like(value) / self.sd


@dataclass(frozen=True)
class LogNormal:
    """Prior log N(log median, log_sd^2) for positive unknowns."""

    median: float | Tensor
    log_sd: float | Tensor

    def residual(self, value: Tensor) -> Tensor:
        return (value / self.median).log() / self.log_sd

    def slope(self, value: Tensor) -> Tensor:
        return 1.0 / (value * self.log_sd)


@dataclass(frozen=True)
class Free:
    """An unknown with smooth bounds: none, below only, or both; `group` (B,) integers make one value per group of problems.

    `lower` and `upper` may be tensors (B,): every problem has its own.
    """

    lower: float | Tensor | None = None
    upper: float | Tensor | None = None
    prior: Gaussian | LogNormal | None = None
    group: Tensor | None = None

    def physical(self, theta: Tensor) -> Tensor:
        if self.lower is None:
            return theta
        if self.upper is None:
            return self.lower + softplus(theta)
        return self.lower + (self.upper - self.lower) * torch.sigmoid(theta)

    def slope(self, theta: Tensor) -> Tensor:
        """d physical / d theta."""
        if self.lower is None:
            return torch.ones_like(theta)
        gate = torch.sigmoid(theta)
        return gate if self.upper is None else (self.upper - self.lower) * gate * (1 - gate)

    def internal(self, value: Tensor) -> Tensor:
        """theta of a physical value; values on or beyond a bound are drawn just inside it."""
        if self.lower is None:
            return value
        if self.upper is None:
            above = (value - self.lower).clamp_min(1e-6)
            return above + torch.log(-torch.expm1(-above))
        share = ((value - self.lower) / (self.upper - self.lower)).clamp(1e-4, 1 - 1e-4)
        return torch.logit(share)

    def at_bound(self, theta: Tensor) -> Tensor:
        """True where the value lies within 0.1 % of a bound: an answer that the bound gave, not the data."""
        if self.lower is None:
            return torch.zeros_like(theta, dtype=torch.bool)
        share = torch.sigmoid(theta)
        return (share < 1e-3) | (share > 1 - 1e-3) if self.upper is not None else softplus(theta) < 1e-4


@dataclass(frozen=True)
class Fixed:
    """A known value, a number or one per problem (B,)."""

    value: float | Tensor


class Unknowns:
    """The named unknowns of B problems, in the order of their columns in theta (B, P).

    >>> unknowns = Unknowns({"att": Free(0.0, 4.0), "t1b": Fixed(1.65)})
    >>> unknowns.names, unknowns.size
    (('att',), 1)
    """

    def __init__(self, table: Mapping[str, Free | Fixed]):
        self.table = dict(table)
        self.free: dict[str, Free] = {name: item for name, item in self.table.items() if isinstance(item, Free)}
        self.names = tuple(self.free)
        self.size = len(self.names)

    def values(self, theta: Tensor) -> dict[str, Tensor]:
        """Physical values of all unknowns, fixed ones included: each (B,)."""
        found = {name: item.physical(theta[:, k]) for k, (name, item) in enumerate(self.free.items())}
        for name, item in self.table.items():
            if isinstance(item, Fixed):
                found[name] = torch.as_tensor(item.value, dtype=theta.dtype, device=theta.device).expand(theta.shape[0])
        return found

    def slopes(self, theta: Tensor) -> Tensor:
        """(B, P) d value / d theta: the chain rule's last factor."""
        if not self.size:
            return theta
        return torch.stack([item.slope(theta[:, k]) for k, item in enumerate(self.free.values())], dim=1)

    def internal(self, values: Mapping[str, Tensor]) -> Tensor:
        """(B, P) theta of physical values (those of fixed unknowns are not looked at, but tell B)."""
        if not self.size:
            some = next(iter(values.values()))
            return some.new_zeros(len(some), 0)
        return torch.stack([item.internal(values[name]) for name, item in self.free.items()], dim=1)

    def at_bound(self, theta: Tensor) -> Tensor:
        """(B,) True where any unknown lies on a bound."""
        flags = [item.at_bound(theta[:, k]) for k, item in enumerate(self.free.values())]
        return torch.stack(flags).any(dim=0) if flags else torch.zeros(theta.shape[0], dtype=torch.bool, device=theta.device)

    def prior(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Prior rows (B, Q) and their Jacobian (B, Q, P) with respect to theta; Q = unknowns with a prior."""
        rows, jacobian = [], []
        for k, item in enumerate(self.free.values()):
            if item.prior is None:
                continue
            value = item.physical(theta[:, k])
            rows.append(item.prior.residual(value))
            column = torch.zeros_like(theta)
            column[:, k] = item.prior.slope(value) * item.slope(theta[:, k])
            jacobian.append(column)
        if not rows:
            return theta.new_zeros(theta.shape[0], 0), theta.new_zeros(theta.shape[0], 0, self.size)
        return torch.stack(rows, dim=1), torch.stack(jacobian, dim=1)

    def take(self, rows: Tensor) -> Unknowns:
        """The same unknowns for a subset of the problems."""
        return Unknowns({name: _take(item, rows) for name, item in self.table.items()})

    def coupling(self) -> Coupling:
        """Independent problems, or `Shared` where unknowns belong to groups; ValueError where they belong to different ones."""
        groups = {k: item.group for k, item in enumerate(self.free.values()) if item.group is not None}
        if not groups:
            return Independent()
        first, *others = groups.values()
        if not all(torch.equal(first, other) for other in others):
            raise ValueError(f"the shared unknowns {[self.names[k] for k in groups]} must have the same groups")
        return Shared(tuple(groups), first)


def _take(item: Free | Fixed, rows: Tensor) -> Free | Fixed:
    def pick(value):
        return value[rows] if isinstance(value, Tensor) and value.ndim else value

    if isinstance(item, Fixed):
        return Fixed(pick(item.value))
    prior = item.prior
    if isinstance(prior, Gaussian):
        prior = Gaussian(pick(prior.mean), pick(prior.sd))
    elif isinstance(prior, LogNormal):
        prior = LogNormal(pick(prior.median), pick(prior.log_sd))
    return Free(pick(item.lower), pick(item.upper), prior, pick(item.group))
