"""VTK's zoo of cell types brought down to triangles or tetrahedra."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError

VERTEX, POLY_VERTEX, LINE, POLY_LINE, TRIANGLE, STRIP, POLYGON, PIXEL, QUAD, TETRA = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
_FLAT = (TRIANGLE, STRIP, POLYGON, PIXEL, QUAD)
_IGNORED = (0, VERTEX, POLY_VERTEX, LINE, POLY_LINE)


def to_simplices(types: np.ndarray, offsets: np.ndarray, nodes: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Cells (C,) of VTK `types` with `nodes[offsets[i]:offsets[i+1]]` -> cells (M, 3 or 4), the file's cell each came from (M,), notes.

    Tetrahedra win over triangles (those are then the boundary). Quads, polygons and strips are split, a polygon as a fan.
    """
    if len(offsets) and (offsets[-1] > len(nodes) or np.any(np.diff(offsets) < 0)):
        raise InputError(path, "its cell list is inconsistent", found=f"{len(nodes)} indices for {offsets[-1]}", fix="export it again")
    strange = sorted(set(types.tolist()) - set(_FLAT) - set(_IGNORED) - {TETRA})
    if strange:
        fix = "convert it to linear triangles or tetrahedra"
        raise InputError(path, "has cells other than triangles and tetrahedra", found=f"VTK cell type {strange[0]}", fix=fix)
    if np.any(types == TETRA):
        chosen = np.flatnonzero(types == TETRA)
        flat = int(np.isin(types, _FLAT).sum())
        notes = (f"{flat} triangles beside {chosen.size} tetrahedra were taken as the boundary and left out",) if flat else ()
        return nodes[offsets[chosen][:, None] + np.arange(4)], chosen, notes
    pieces, origins = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    size = np.diff(offsets)
    split = 0
    for code in _FLAT:
        for corners in np.unique(size[types == code]):
            chosen = np.flatnonzero((types == code) & (size == corners))
            fan = _split(code, int(corners))
            pieces.append(nodes[offsets[chosen][:, None, None] + fan].reshape(-1, 3))
            origins.append(np.repeat(chosen, len(fan)))
            split += len(chosen) if len(fan) > 1 else 0
    origin = np.concatenate(origins)
    order = np.argsort(origin, kind="stable")
    notes = (f"{split} cells with more than three corners were split into triangles",) if split else ()
    return np.concatenate(pieces)[order], origin[order], notes


def _split(code: int, corners: int) -> np.ndarray:
    """(T, 3) corners of the triangles that make up one cell."""
    steps = np.arange(max(corners - 2, 0))
    if code == STRIP:  # every second triangle of a strip is turned round
        return np.stack([steps + steps % 2, steps + 1 - steps % 2, steps + 2], axis=1)
    if code == PIXEL:
        return np.array([[0, 1, 3], [0, 3, 2]])
    return np.stack([0 * steps, steps + 1, steps + 2], axis=1)
