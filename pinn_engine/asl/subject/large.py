"""A whole brain: T1 of blood by the evidence of some tiles, the maps by the joint spatial fit at two values of T1.

A posterior of mean m and sd s has the moments of two points m - s and m + s of equal weight; so have, to first order in T1, the maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...core import Gaussian
from ...core.solution import identifiability
from ..constants import Sourced
from ..plan import Plan
from ..scan import Scan
from ..spatial.fit import SpatialFit, fit_spatial
from ..spatial.tissue import Tissue
from .evidence import SubjectValue
from .fit import Subject, t1b_of

LARGE = 1000  # voxels above which one tile after the other would take minutes


def fit_large(
    plan: Plan, scan: Scan, tissue: Tissue, level: float, t1b_prior: Gaussian | None, progress: Callable[[float], None] | None = None
) -> tuple[SpatialFit, SubjectValue]:
    """The joint spatial fit of `plan.c`, its solution mixed over T1 of blood; arguments as for `fit_subject`."""
    report = progress or (lambda done: None)
    if t1b_prior is None:
        return fit_spatial(plan, scan, tissue, level, progress), SubjectValue.known(plan.t1b)
    subject = Subject(plan, scan, level, t1b_prior, spatial=True)
    value = t1b_of(subject, part(report, 0.0, 0.4))
    fits = []
    for k, sign in enumerate((-1.0, 1.0)):
        t1b = Sourced(value.mean + sign * value.sd, "node of the joint fit", "s")
        there = replace(scan, acquisition=replace(scan.acquisition, t1_blood=t1b))
        at = Plan(plan.c, there, replace(plan.s, unknown=("cbf", "att")))
        fits.append(fit_spatial(at, there, tissue, level, part(report, 0.4 + 0.3 * k, 0.3)))
    return mixed(fits, value), value


def part(report: Callable[[float], None], begin: float, length: float) -> Callable[[float], None]:
    """Progress 0 to 1 of one step as a piece of the whole."""
    return lambda done: report(begin + length * done)


def mixed(fits: list[SpatialFit], value: SubjectValue) -> SpatialFit:
    """The first fit with the moments of both in its solution, T1 of blood as a third unknown."""
    one, two = (fit.solution for fit in fits)
    nodes = one.covariance.new_tensor([value.mean - value.sd, value.mean + value.sd])
    each = torch.stack(
        [
            torch.stack([s.values["cbf"].double(), s.values["att"].double(), t.expand_as(s.cost)], dim=1)
            for s, t in zip((one, two), nodes, strict=True)
        ]
    )
    mean, away = each.mean(dim=0), each - each.mean(dim=0)
    covariance = torch.einsum("nvk,nvl->vkl", away, away) / 2
    covariance[:, :2, :2] += (one.covariance + two.covariance).double() / 2
    condition, weakest = identifiability(covariance)
    values = {name: mean[:, k].float() for k, name in enumerate(("cbf", "att", "t1b"))}
    solution = replace(
        one, names=("cbf", "att", "t1b"), theta=mean, values=values, covariance=covariance, condition=condition, weakest=weakest
    )
    return replace(fits[0], solution=solution, predicted=_mixed_curves(fits, value.sd))


def _mixed_curves(fits: list[SpatialFit], sd: float) -> tuple[Tensor, Tensor]:
    """Data points (V, K) in the middle of both fits, and slopes (V, K, 3) by flow, arrival and T1 of blood, the others fixed."""
    (low, low_slopes), (high, high_slopes) = (fit.predicted for fit in fits)
    slopes = 0.5 * (low_slopes + high_slopes)
    moved = torch.stack([fits[1].solution.values[name] - fits[0].solution.values[name] for name in ("cbf", "att")], dim=1)
    by_t1b = (high - low - torch.einsum("vkp,vp->vk", slopes, moved)) / (2 * sd)
    return 0.5 * (low + high), torch.cat([slopes, by_t1b.unsqueeze(2)], dim=2)
