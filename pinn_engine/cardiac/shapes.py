"""Meshes made from nothing: rectangles, boxes, spheres, ellipsoids, a hollow ball of tetrahedra."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..errors import InputError
from ..files.grid import Grid
from ..files.mesh import Mesh

BYTES_A_NODE = {2: 1800, 3: 8500}  # of a run on triangles or tetrahedra: peak memory of runs on 641,601 and 226,981 nodes
MOST_BYTES = 64e9  # a run that surely needs more is refused before its mesh is built


def rectangle(size: tuple[float, ...], spacing: float) -> tuple[Mesh, Grid]:
    """Nodes every `spacing` mm on [0, X] x [0, Y] (triangles) or a box x [0, Z] (tetrahedra), and the voxel grid whose centres they are.

    Node (i, j, l) stands at place ravel_multi_index((i, j, l), grid.shape), so `values.reshape(grid.shape)` is the image.
    """
    if len(size) not in (2, 3) or not all(0 < s < np.inf for s in size) or not 0 < spacing < np.inf:
        raise InputError(
            "--rectangle", "give two or three positive lengths in mm and a positive spacing", found=f"{size}, spacing {spacing}"
        )
    counts = [round(s / spacing) + 1 for s in size]
    if min(counts) < 2 or not np.allclose(np.subtract(counts, 1) * spacing, size, rtol=1e-6):
        raise InputError(
            "--rectangle", "its sides are not whole numbers of spacings", found=f"{size} mm at {spacing} mm", fix="change one of them"
        )
    nodes = math.prod(counts)
    if (need := nodes * BYTES_A_NODE[len(size)]) > MOST_BYTES:
        fix = "sides and --spacing are in mm (were these micrometres?): give smaller sides or a wider spacing"
        raise InputError("--rectangle", "is too large for a run", found=f"{nodes:,} nodes, about {need / 1e9:,.0f} GB", fix=fix)
    return grid_mesh(tuple(counts), spacing)


def grid_mesh(counts: tuple[int, ...], spacing: float) -> tuple[Mesh, Grid]:
    """The same from numbers of nodes: (nx, ny) or (nx, ny, 1) triangles, (nx, ny, nz) tetrahedra (Kuhn: the 7-point stencil)."""
    shape = (counts[0], counts[1], counts[2] if len(counts) > 2 else 1)
    index = np.arange(np.prod(shape)).reshape(shape)
    points = np.stack(np.meshgrid(*(np.arange(n) * float(spacing) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    axes = 2 if shape[2] == 1 else 3
    cells = []
    for order in itertools.permutations(range(axes)):  # one simplex for each way to walk from a cell's first corner to its last
        step = np.zeros((axes + 1, 3), int)
        for i, axis in enumerate(order):
            step[i + 1] = step[i]
            step[i + 1, axis] += 1
        corners = [index[tuple(slice(s[d], shape[d] - (d < axes) + s[d]) for d in range(3))].ravel() for s in step]
        if np.linalg.det(np.diff(step, axis=0)[:, :axes]) < 0:
            corners[-1], corners[-2] = corners[-2], corners[-1]
        cells.append(np.stack(corners, axis=1))
    mesh = Mesh(points, np.concatenate(cells), source="rectangle" if axes == 2 else "box")
    return mesh, Grid(shape, np.diag([spacing, spacing, spacing, 1.0]))


def sphere(radius: float = 1.0, level: int = 4) -> Mesh:
    """An icosahedron split `level` times: 10 * 4^level + 2 nodes (642, 2562, 10242 for 3, 4, 5)."""
    g = (1.0 + 5.0**0.5) / 2.0
    corner = [
        (-1, g, 0),
        (1, g, 0),
        (-1, -g, 0),
        (1, -g, 0),
        (0, -1, g),
        (0, 1, g),
        (0, -1, -g),
        (0, 1, -g),
        (g, 0, -1),
        (g, 0, 1),
        (-g, 0, -1),
        (-g, 0, 1),
    ]
    faces = (
        "0 11 5 0 5 1 0 1 7 0 7 10 0 10 11 1 5 9 5 11 4 11 10 2 10 7 6 7 1 8 3 9 4 3 4 2 3 2 6 3 6 8 3 8 9 4 9 5 2 4 11 6 2 10 8 6 7 9 8 1"
    )
    points, cells = np.array(corner, float), np.array(faces.split(), int).reshape(-1, 3)
    for _ in range(level):
        points, cells = _split_in_four(points, cells)
    return Mesh(radius * points / np.linalg.norm(points, axis=1, keepdims=True), cells, source="sphere")


def ellipsoid(half_axes: tuple[float, float, float] = (10.0, 10.0, 13.0), level: int = 5) -> Mesh:
    """A sphere stretched to these half axes, mm."""
    ball = sphere(1.0, level)
    return Mesh(ball.points * half_axes, ball.cells, source="ellipsoid")


def hollow_ball(inner: float = 10.0, outer: float = 12.0, level: int = 4, layers: int = 5) -> Mesh:
    """A shell of tetrahedra between two radii, mm: `layers` nodes thick (level 4, 5 layers: 12,810 nodes)."""
    ball = sphere(1.0, level)
    count = len(ball.points)
    points = np.concatenate([ball.points * r for r in np.linspace(inner, outer, layers)])
    faces = np.sort(ball.cells, axis=1)  # prisms split by the order of their nodes fit their neighbours
    cells = []
    for layer in range(layers - 1):
        low, high = faces + layer * count, faces + (layer + 1) * count
        cells += [np.column_stack([low, high[:, 2]]), np.column_stack([low[:, :2], high[:, 1:]]), np.column_stack([low[:, 0], high])]
    return Mesh(points, np.concatenate(cells), source="hollow ball")


def _split_in_four(points: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(cells[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    ends, middle = np.unique(edges, axis=0, return_inverse=True)
    m = middle.reshape(-1, 3) + len(points)
    a, b, c = cells.T
    quarters = np.stack([a, m[:, 0], m[:, 2], b, m[:, 1], m[:, 0], c, m[:, 2], m[:, 1], m[:, 0], m[:, 1], m[:, 2]], axis=1)
    new = points[ends].mean(axis=1)
    return np.concatenate([points, new / np.linalg.norm(new, axis=1, keepdims=True) * np.linalg.norm(points[0])]), quarters.reshape(-1, 3)
