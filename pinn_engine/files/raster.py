"""Nodal values -> a volume on a voxel grid, and a volume -> values at nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from .grid import Grid
from .mesh import Mesh

MAX_VOXELS = 400_000_000
_PAIRS = 2_000_000  # voxel-cell pairs looked at together: about 300 MB


def grid_around(mesh: Mesh, spacing: float, margin: float = 0.0) -> Grid:
    """An axis-aligned RAS+ grid of `spacing` mm that holds the mesh and `margin` mm more."""
    if not spacing > 0:
        raise InputError(mesh.source, "the voxel spacing must be positive", found=f"{spacing} mm", fix="try 1 mm")
    low, high = mesh.ras_points.min(axis=0) - margin, mesh.ras_points.max(axis=0) + margin
    shape = np.ceil((high - low) / spacing).astype(np.int64) + 1
    if np.prod(shape.astype(float)) > MAX_VOXELS:
        found = " x ".join(map(str, shape)) + " voxels"
        raise InputError(mesh.source, "the volume would be too large", found=found, fix="take a larger spacing; are the coordinates mm?")
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low + 0.5 * (high - low - (shape - 1) * spacing)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def rasterise(mesh: Mesh, values: np.ndarray, grid: Grid, thickness: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Nodal `values` (N,) -> volume (X, Y, Z) float32, 0 where there is no tissue, and the mask of tissue (X, Y, Z) bool.

    A surface becomes a shell `thickness` mm thick (default two voxel diagonals / sqrt(3)): each voxel takes the value of the nearest point
    of the nearest triangle. Tetrahedra fill what is inside them. Where the cell has a NaN corner the voxel stays 0 and out of the mask.
    """
    to_voxel = np.linalg.inv(grid.affine)
    nodes = mesh.ras_points
    half = 0.5 * (2.0 * float(grid.spacing.max()) if thickness is None else thickness) if mesh.is_surface else 0.0
    best = np.full(grid.shape, np.inf)
    volume = np.full(grid.shape, np.nan)
    for cell, voxel in _candidates(mesh, nodes @ to_voxel[:3, :3].T + to_voxel[:3, 3], half / grid.spacing, grid.shape):
        corners = nodes[mesh.cells[cell]]
        centre = np.stack(np.unravel_index(voxel, grid.shape), axis=1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        weight, distance = _nearest_on_triangle(centre, corners) if mesh.is_surface else _inside_tetrahedron(centre, corners)
        near = distance <= half
        order = np.flatnonzero(near)[np.argsort(-distance[near], kind="stable")]  # nearest last: it is what stays
        sample = np.einsum("pc,pc->p", weight[order], np.asarray(values, float)[mesh.cells[cell[order]]])
        better = distance[order] < best.ravel()[voxel[order]]
        best.ravel()[voxel[order[better]]] = distance[order[better]]
        volume.ravel()[voxel[order[better]]] = sample[better]
    if not np.isfinite(best).any():
        raise _apart(mesh, grid)
    mask = np.isfinite(volume)
    return np.where(mask, volume, 0.0).astype(np.float32), mask


def sample(volume: np.ndarray, grid: Grid, points: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Values (P,) of `volume` (X, Y, Z) at RAS+ `points` (P, 3) mm: trilinear over voxels of the mask only; NaN where there is none."""
    mask = np.isfinite(volume) if mask is None else mask
    inverse = np.linalg.inv(grid.affine)
    where = points @ inverse[:3, :3].T + inverse[:3, 3]
    low = np.floor(where).astype(np.int64)
    total, weights = np.zeros(len(points)), np.zeros(len(points))
    shape = np.array(grid.shape)
    for corner in np.ndindex(2, 2, 2):
        index = low + corner
        weight = np.prod(1.0 - np.abs(where - index), axis=1)
        index_in = np.clip(index, 0, shape - 1)
        i, j, k = index_in.T
        weight = np.where((index == index_in).all(axis=1) & mask[i, j, k], np.maximum(weight, 0.0), 0.0)
        total += weight * np.where(weight > 0, volume[i, j, k], 0.0)
        weights += weight
    return np.where(weights > 1e-6, total / np.maximum(weights, 1e-6), np.nan)


def nearest(mesh: Mesh, points: np.ndarray, tried: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest triangle of a surface to each of `points` (P, 3) mm: its number (P,), barycentric weights there (P, 3), distance (P,) mm.

    The cells looked at are the `tried` whose centres are nearest.
    """
    from scipy.spatial import cKDTree

    count = min(tried, len(mesh.cells))
    near = cKDTree(mesh.points[mesh.cells].mean(axis=1)).query(points, k=count)[1].reshape(len(points), count)
    corner = mesh.points[mesh.cells[near.ravel()]]
    weight, distance = _nearest_on_triangle(np.repeat(points, count, axis=0), corner)
    best = distance.reshape(-1, count).argmin(axis=1)
    row = np.arange(len(points))
    return near[row, best], weight.reshape(-1, count, 3)[row, best], distance.reshape(-1, count)[row, best]


def check_overlap(mesh: Mesh, grid: Grid) -> float:
    """The share of nodes in the image; raises InputError where none lies in it, or within two voxels of it."""
    inverse = np.linalg.inv(grid.affine)
    where = mesh.ras_points @ inverse[:3, :3].T + inverse[:3, 3]
    if not ((where > -2.5) & (where < np.array(grid.shape) + 1.5)).all(axis=1).any():
        raise _apart(mesh, grid)
    return float(((where >= -0.5) & (where <= np.array(grid.shape) - 0.5)).all(axis=1).mean())


def _apart(mesh: Mesh, grid: Grid) -> InputError:
    said, fix = "the mesh does not overlap the reference image", "check LPS against RAS and the units"
    return InputError(mesh.source, said, found=_boxes(mesh.ras_points, grid), fix=fix)


def _candidates(mesh: Mesh, nodes: np.ndarray, margin: np.ndarray, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (cell (P,), flat voxel index (P,)): every voxel of every cell's bounding box widened by `margin`; `nodes` in voxels."""
    corners = nodes[mesh.cells]
    low = np.maximum(np.ceil(corners.min(axis=1) - margin - 1e-9), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1) + margin + 1e-9), np.array(shape) - 1).astype(np.int64)
    size = np.maximum(high - low + 1, 0)
    count = size.prod(axis=1)
    cells = np.flatnonzero(count)
    start = 0
    while start < len(cells):
        ends = np.cumsum(count[cells[start:]])
        stop = start + max(1, int(np.searchsorted(ends, _PAIRS, side="right")))
        chosen = cells[start:stop]
        cell = np.repeat(chosen, count[chosen])
        rank = np.arange(len(cell)) - np.repeat(np.cumsum(count[chosen]) - count[chosen], count[chosen])
        sy, sz = size[cell, 1], size[cell, 2]
        index = low[cell] + np.stack([rank // (sy * sz), rank // sz % sy, rank % sz], axis=1)
        yield cell, np.ravel_multi_index((index[:, 0], index[:, 1], index[:, 2]), shape)
        start = stop


def _nearest_on_triangle(point: np.ndarray, corner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights (P, 3) of the triangle's point nearest to `point` (P, 3), and the distance (P,); `corner` (P, 3, 3)."""
    a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
    u, v, w = b - a, c - a, point - a
    uu, uv, vv, wu, wv = (np.einsum("pi,pi->p", x, y) for x, y in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    area = uu * vv - uv * uv
    safe = np.where(area > 0, area, 1.0)
    s, t = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    inside = (area > 0) & (s >= 0) & (t >= 0) & (s + t <= 1)
    best = np.stack([1 - s - t, s, t], axis=1)
    distance = np.where(inside, np.linalg.norm(w - s[:, None] * u - t[:, None] * v, axis=1), np.inf)
    for first, second in ((0, 1), (1, 2), (2, 0)):  # outside the triangle the nearest point is on an edge
        along = corner[:, second] - corner[:, first]
        length = np.einsum("pi,pi->p", along, along)
        share = np.einsum("pi,pi->p", point - corner[:, first], along) / np.where(length > 0, length, 1.0)
        share = np.clip(share, 0.0, 1.0)
        gap = np.linalg.norm(point - corner[:, first] - share[:, None] * along, axis=1)
        closer = gap < distance
        edge = np.zeros((int(closer.sum()), 3))
        edge[:, first], edge[:, second] = 1 - share[closer], share[closer]
        best[closer], distance[closer] = edge, gap[closer]
    return best, distance


def _inside_tetrahedron(point: np.ndarray, corner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights (P, 4) and 0 (inside) or inf (outside, or a flat tetrahedron)."""
    edges = np.swapaxes(corner[:, 1:] - corner[:, :1], 1, 2)
    flat = np.abs(np.linalg.det(edges)) < 1e-12
    edges[flat] = np.eye(3)
    rest = np.linalg.solve(edges, (point - corner[:, 0])[..., None])[..., 0]
    weight = np.concatenate([1.0 - rest.sum(axis=1, keepdims=True), rest], axis=1)
    return weight, np.where((weight >= -1e-9).all(axis=1) & ~flat, 0.0, np.inf)


def _boxes(nodes: np.ndarray, grid: Grid) -> str:
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(grid.shape) - 1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]

    def box(p: np.ndarray) -> str:
        return " ".join(f"{axis} {low:.0f}..{high:.0f}" for axis, low, high in zip("xyz", p.min(axis=0), p.max(axis=0), strict=True))

    return f"mesh {box(nodes)} mm, image {box(corners)} mm"
