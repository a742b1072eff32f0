"""T1 of blood of one subject, by the evidence of all its voxels: a posterior on a few nodes, and mixtures over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

LOWEST, HIGHEST = 0.6, 4.0  # s
FIRST_STEP, SMALLEST_STEP, SEARCHES = 0.1, 5e-4, 40
NODES = (-2.6, -1.6, -0.8, 0.0, 0.8, 1.6, 2.6)  # sd around the mode
POINTS = 801  # of the density between the nodes


@dataclass(frozen=True)
class SubjectValue:
    """The posterior of one number: `nodes` and `weights` (n,) for mixtures, moments and the 95 % interval of the density."""

    nodes: np.ndarray
    weights: np.ndarray
    mean: float
    sd: float
    low: float
    high: float

    @staticmethod
    def known(value: float) -> SubjectValue:
        return SubjectValue(np.array([value]), np.ones(1), value, 0.0, value, value)


def find_mode(log_density: Callable[[float], float], start: float, step: float = FIRST_STEP) -> tuple[float, float]:
    """The mode and the sd that its curvature says: uphill in steps that shrink to the width of the peak."""
    seen: dict[float, float] = {}

    def value(x: float) -> float:
        if x not in seen:
            seen[x] = log_density(x)
        return seen[x]

    at, sd = start, step
    for _ in range(SEARCHES):
        low, high = max(at - step, LOWEST), min(at + step, HIGHEST)
        left, here, right = value(low), value(at), value(high)
        if max(left, right) > here:
            at = low if left > right else high
            continue
        drop = 2 * here - left - right
        sd = step / math.sqrt(drop) if drop > 0 else 4 * step
        if step > 1.5 * sd and step > SMALLEST_STEP:
            step = max(sd, SMALLEST_STEP)
            continue
        if drop > 0:
            at += 0.5 * step * (right - left) / drop
        break
    return at, sd


def posterior(log_density: Callable[[float], float], mode: float, sd: float) -> SubjectValue:
    """Nodes around the mode; the density between them by monotone interpolation of its logarithm."""
    nodes = np.unique(np.clip([mode + z * sd for z in NODES], LOWEST, HIGHEST))
    logs = np.array([log_density(float(x)) for x in nodes])
    points = np.linspace(nodes[0], nodes[-1], POINTS)
    density = np.exp(PchipInterpolator(nodes, logs)(points) - logs.max())
    density /= density.sum()
    mean = float(density @ points)
    cumulative = np.cumsum(density)
    low, high = (float(points[np.searchsorted(cumulative, q)]) for q in (0.025, 0.975))
    above = np.clip(np.searchsorted(nodes, points, side="right") - 1, 0, len(nodes) - 2)
    part = (points - nodes[above]) / (nodes[above + 1] - nodes[above])
    weights = np.bincount(above, density * (1 - part), len(nodes)) + np.bincount(above + 1, density * part, len(nodes))
    return SubjectValue(nodes, weights, mean, float(np.sqrt(density @ (points - mean) ** 2)), low, high)
