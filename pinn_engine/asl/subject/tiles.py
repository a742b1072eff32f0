"""A large mask in tiles of bounded size: the cores share out the voxels, a halo gives each core the neighbours that inform it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

WHOLE = 300  # voxels up to which the mask is one tile
CORE = 100  # voxels of a core at most, where it is not
HALO = 1.5  # voxels: distance to a core within which others belong to its tile
LARGEST = 240  # voxels of a tile, the nearest kept


@dataclass(frozen=True)
class Tile:
    """Numbers of a tile's voxels, those of the core first."""

    voxels: np.ndarray
    core: int


def tiles(place: np.ndarray, halo: float = HALO) -> list[Tile]:
    """Tiles of voxels at `place` (V, 3), each with its neighbours within `halo`: halves across the longest side until they are small."""
    if len(place) <= WHOLE:
        return [Tile(np.arange(len(place)), len(place))]
    made = []
    for core in _split(place, np.arange(len(place))):
        distance, _ = cKDTree(place[core]).query(place, distance_upper_bound=halo + 1e-6)
        near = np.setdiff1d(np.flatnonzero(np.isfinite(distance)), core)
        near = near[np.argsort(distance[near], kind="stable")][: LARGEST - len(core)]
        made.append(Tile(np.concatenate([core, near]), len(core)))
    return made


def _split(place: np.ndarray, members: np.ndarray) -> list[np.ndarray]:
    if len(members) <= CORE:
        return [members]
    side = int(np.ptp(place[members], axis=0).argmax())
    order = members[np.argsort(place[members, side], kind="stable")]
    half = len(order) // 2
    return _split(place, np.sort(order[:half])) + _split(place, np.sort(order[half:]))
