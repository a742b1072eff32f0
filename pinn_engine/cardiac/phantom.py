"""Hearts whose truth is known: maps of D as functions of place (so that any grid can carry them), and what one would observe of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..files.grid import Grid
from ..files.mesh import Mesh
from . import shapes
from .model import AlievPanfilov
from .protocols import point
from .simulate import Simulation, Start, simulate

DMap = Callable[[np.ndarray], np.ndarray]  # points (N, 3) mm -> D (N,) mm^2/TU


class Case(NamedTuple):
    """A phantom ready to run: simulate(case.mesh, case.D, case.start, duration=...)."""

    mesh: Mesh
    D: np.ndarray
    start: Start
    grid: Grid | None = None


def scar_map(
    centre: tuple[float, ...] = (5.0, 5.0, 0.0), radius: float = 1.8, healthy: float = 0.1, scar: float = 0.02, edge: float = 0.0
) -> DMap:
    """A round scar; `edge` > 0 blurs its border over that many mm."""

    def D(points: np.ndarray) -> np.ndarray:
        r = np.linalg.norm(points - np.asarray(centre), axis=1)
        inside = (r < radius).astype(float) if edge == 0 else 0.5 * (1.0 - np.tanh((r - radius) / edge))
        return healthy + (scar - healthy) * inside

    return D


def hard_map(size: float = 10.0, healthy: float = 0.1, spread: float = 0.25, seed: int = 7, wavelength: float | None = None) -> DMap:
    """Log-normal background (sd `spread`, waves of `wavelength` mm, None = 0.3 `size`), three scars of 0.2, 0.35 and 0.1 of it, and an
    isthmus 0.07 `size` wide."""
    random = np.random.default_rng(seed)
    k = random.normal(size=(40, 2)) * 2.0 * np.pi / (0.3 * size if wavelength is None else wavelength) / np.sqrt(2.0)
    phase = random.uniform(0.0, 2.0 * np.pi, 40)

    def D(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0] / size, points[:, 1] / size
        field = np.sqrt(2.0 / len(k)) * np.cos(points[:, :2] @ k.T + phase).sum(axis=1)
        factor = np.ones(len(points))
        factor[(x - 0.28) ** 2 + (y - 0.70) ** 2 < 0.13**2] = 0.35
        factor[((x - 0.72) / 0.12) ** 2 + ((y - 0.78) / 0.09) ** 2 < 1.0] = 0.2
        band = (np.abs(y - 0.36) < 0.08) & (x > 0.35) & (x < 0.85)
        factor[band & (np.abs(x - 0.60) > 0.035)] = 0.1  # the gap is the isthmus
        return healthy * np.exp(spread * field) * factor

    return D


def rectangle_case(D: DMap, size: float = 10.0, spacing: float = 0.1, model: AlievPanfilov | None = None, healthy: float = 0.1) -> Case:
    """A square of tissue with this map, the wave started in its corner."""
    mesh, grid = shapes.rectangle((size, size), spacing)
    return Case(mesh, D(mesh.points), point(mesh, model or AlievPanfilov(), healthy, 0), grid)


def surface_case(level: int = 5, healthy: float = 1.0, scar: float = 0.2, radius: float = 4.0, model: AlievPanfilov | None = None) -> Case:
    """An ellipsoid of 10 x 10 x 13 mm half axes (level 5: 10,242 nodes) with one scar on its side, the wave started at a pole."""
    mesh = shapes.ellipsoid(level=level)
    D = scar_map((10.0, 0.0, 0.0), radius, healthy, scar)(mesh.points)
    return Case(mesh, D, point(mesh, model or AlievPanfilov(), healthy, np.array([0.0, 0.0, 13.0])))


def run(case: Case, duration: float, **options: object) -> Simulation:
    """`simulate` on a case."""
    return simulate(case.mesh, case.D, case.start, duration=duration, **options)  # type: ignore[arg-type]  # (N,) nodal D


def observe_V(V: np.ndarray, share: float, noise: float, seed: int, nodes: np.ndarray | None = None) -> np.ndarray:
    """V (N, F) with Gaussian noise at a random `share` of the samples (of the given nodes only), NaN elsewhere."""
    random = np.random.default_rng(seed)
    seen = random.random(V.shape) < share
    if nodes is not None:
        only = np.zeros(len(V), bool)
        only[nodes] = True
        seen &= only[:, None]
    return np.where(seen, V + noise * random.standard_normal(V.shape), np.nan).astype(np.float32)


def observe_LAT(LAT: np.ndarray, count: int, noise: float, seed: int, outliers: float = 0.0) -> np.ndarray:
    """LAT (N,) at `count` random activated nodes with Gaussian `noise` (same unit), a share of them `outliers`; NaN elsewhere."""
    random = np.random.default_rng(seed)
    active = np.flatnonzero(np.isfinite(LAT))
    chosen = random.choice(active, min(count, len(active)), replace=False)
    out = np.full(len(LAT), np.nan)
    out[chosen] = LAT[chosen] + noise * random.standard_normal(len(chosen))
    wrong = chosen[random.random(len(chosen)) < outliers]
    out[wrong] = random.uniform(np.nanmin(LAT), np.nanmax(LAT), len(wrong))
    return out
