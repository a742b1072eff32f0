"""What is odd about a mesh, in plain words; and the mesh that solvers see: each node once, each cell once, none of zero size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..errors import InputError
from .mesh import Mesh

SAME_NODE = 1e-6  # of the bounding box's diagonal
SLIVER = 0.05  # quality (1 = equilateral)
FLAT = 1e-9  # quality below which a cell has no size


@dataclass(frozen=True)
class Clean:
    """`mesh` for the solver, and where the input went.

    `node` (N,): each input node's place in `mesh`, -1 where no cell uses it; `cell` (M',): each cell's place in the input.
    """

    mesh: Mesh
    node: np.ndarray
    cell: np.ndarray

    def back(self, values: np.ndarray, unused: float = np.nan) -> np.ndarray:
        """Values on the solver's nodes (N', ...) -> on the input's nodes (N, ...)."""
        out = np.full((len(self.node), *values.shape[1:]), unused, dtype=np.result_type(values, float))
        used = self.node >= 0
        out[used] = values[self.node[used]]
        return out

    def forth(self, values: np.ndarray) -> np.ndarray:
        """Values on the input's nodes (N, ...) -> on the solver's: the mean over doubled nodes of what is not NaN."""
        values = np.asarray(values, float)
        known = np.isfinite(values) & (self.node >= 0).reshape(-1, *[1] * (values.ndim - 1))
        total = np.zeros((len(self.mesh.points), *values.shape[1:]))
        count = np.zeros_like(total)
        rows = np.maximum(self.node, 0)
        np.add.at(total, rows, np.where(known, values, 0.0))
        np.add.at(count, rows, known.astype(float))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def many(count: int, one: str, more: str) -> str:
    """
    >>> many(1, "hole", "holes"), many(0, "hole", "holes")
    ('1 hole', '0 holes')
    """
    return f"{count} {one if count == 1 else more}"


def sizes(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(M,) area in mm^2 or volume in mm^3 (not negative)."""
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    if cells.shape[1] == 3:
        return 0.5 * np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    return np.abs(np.linalg.det(edges)) / 6.0


def edge_lengths(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(M, 3 or 6) lengths of each cell's edges, mm."""
    first, second = np.triu_indices(cells.shape[1], 1)
    return np.linalg.norm(points[cells[:, first]] - points[cells[:, second]], axis=2)


def quality(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(M,) 1 for equilateral, 0 for flat: 4 sqrt(3) A / sum l^2; tetrahedra 72 sqrt(3) V / (sum l^2)^1.5."""
    squares = (edge_lengths(points, cells) ** 2).sum(axis=1)
    safe = np.where(squares > 0, squares, 1.0)
    size = sizes(points, cells)
    return 4.0 * np.sqrt(3.0) * size / safe if cells.shape[1] == 3 else 72.0 * np.sqrt(3.0) * size / safe**1.5


def clean(mesh: Mesh) -> Clean:
    """Merge doubled nodes (within 1e-6 of the bounding box), drop flat and doubled cells and unused nodes. The rest keeps its order."""
    box = np.ptp(mesh.points, axis=0)
    step = SAME_NODE * max(float(np.linalg.norm(box)), 1e-300)
    merged = _first_at_place(mesh.points, step)
    cells = merged[mesh.cells]
    keep = quality(mesh.points, cells) > FLAT
    _, unique = np.unique(np.sort(cells, axis=1), axis=0, return_index=True)
    single = np.zeros(len(cells), bool)
    single[unique] = True
    kept = np.flatnonzero(keep & single)
    if kept.size == 0:
        raise InputError(mesh.source, "all its cells have zero size", found=f"{len(cells)} cells", fix="export the surface again")
    used = np.unique(cells[kept])
    place = np.full(len(mesh.points), -1)
    place[used] = np.arange(len(used))
    node = place[merged]
    small = replace(
        mesh,
        points=mesh.points[used],
        cells=place[cells[kept]],
        point_data={name: values[used] for name, values in mesh.point_data.items()},
        cell_data={name: values[kept] for name, values in mesh.cell_data.items()},
        fibres=None if mesh.fibres is None else mesh.fibres[kept],
    )
    return Clean(small, node, kept)


def _first_at_place(points: np.ndarray, tolerance: float) -> np.ndarray:
    """(N,) the first node within reach of each node (itself where it stands alone)."""
    pairs = cKDTree(points).query_pairs(tolerance, output_type="ndarray")
    if not len(pairs):
        return np.arange(len(points))
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    group = connected_components(graph, directed=False)[1]
    return np.unique(group, return_index=True)[1][group]


def components(mesh: Mesh) -> np.ndarray:
    """(N,) number of the connected piece each node belongs to; an unused node is a piece of its own."""
    a, b = mesh.cells[:, :-1].ravel(), mesh.cells[:, 1:].ravel()
    graph = coo_matrix((np.ones(len(a), bool), (a, b)), shape=(len(mesh.points),) * 2)
    return connected_components(graph, directed=False)[1]


def check(mesh: Mesh) -> list[str]:
    """What a person should know about this mesh before trusting a fit on it; an empty list when there is nothing."""
    tidy = clean(mesh)
    return [*mesh.notes, *_scale(mesh), *_nodes(mesh, tidy), *_cells(mesh, tidy), *_topology(tidy.mesh), *_gaps(mesh)]


def _scale(mesh: Mesh) -> list[str]:
    extent = float(np.ptp(mesh.points, axis=0).max())
    if 5.0 <= extent <= 400.0:
        return []
    guess = "metres" if extent < 0.5 else "centimetres" if extent < 20.0 else "micrometres" if extent > 5000.0 else "not millimetres"
    return [f"the mesh is {extent:.3g} mm across, a heart is 30-200 mm: are its coordinates {guess}?"]


def _nodes(mesh: Mesh, tidy: Clean) -> list[str]:
    used = np.zeros(len(mesh.points), bool)
    used[mesh.cells] = True
    said = []
    if not used.all():
        said.append(f"{np.sum(~used)} of {len(used)} nodes belong to no cell: they get no value")
    doubled = int((tidy.node >= 0).sum() - len(tidy.mesh.points))
    if doubled > 0:
        said.append(f"{many(doubled, 'node lies', 'nodes lie')} on top of another node: each such group is treated as one node")
    return said


def _cells(mesh: Mesh, tidy: Clean) -> list[str]:
    said = []
    dropped = len(mesh.cells) - len(tidy.cell)
    if dropped:
        said.append(f"{dropped} of {len(mesh.cells)} cells left out: of zero size, or standing twice")
    good = quality(tidy.mesh.points, tidy.mesh.cells)
    if np.any(good < SLIVER):
        shortest = edge_lengths(tidy.mesh.points, tidy.mesh.cells).min()
        slivers = many(int(np.sum(good < SLIVER)), "cell is a sliver", "cells are slivers")
        said.append(f"{slivers} (quality below {SLIVER}; shortest edge {shortest:.3g} mm): kept")
    return said


def _topology(mesh: Mesh) -> list[str]:
    said = []
    pieces = np.sort(np.bincount(components(mesh)))[::-1]
    if len(pieces) > 1:
        said.append(
            f"the mesh has {len(pieces)} separate pieces (largest {pieces[0]}, next {pieces[1]} nodes): no wave crosses between them"
        )
    if mesh.is_surface:
        edges = np.sort(mesh.cells[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        ends, count = np.unique(edges, axis=0, return_counts=True)
        if np.any(count > 2):
            said.append(
                f"{many(int(np.sum(count > 2)), 'edge is', 'edges are')} shared by more than two triangles (non-manifold): "
                "the wave passes through all of them"
            )
        if np.any(count == 1):
            said.append(
                f"{many(_holes(ends[count == 1]), 'hole', 'holes')} (open edges, as at veins and valve; {np.sum(count == 1)} edges): "
                "no flux crosses them"
            )
    return said


def _holes(edges: np.ndarray) -> int:
    nodes, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    return int(connected_components(coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(nodes),) * 2), directed=False)[0])


def _gaps(mesh: Mesh) -> list[str]:
    said, empty = [], []
    for name, values in mesh.point_data.items():
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            empty.append(name)
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            missing = int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum())
            said.append(f"{name}: {missing} of {len(values)} nodes without a value")
    return [*said, f"no valid value at all in {', '.join(empty)}"] if empty else said
