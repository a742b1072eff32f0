"""A heart as triangles or tetrahedra: one plain dataclass, whatever the file was."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError

FIBRE_NAMES = ("fibres", "fibers", "fibre", "fiber", "lon")

FARTHEST = 1e7  # mm; um read as mm stay below


@dataclass(frozen=True)
class Mesh:
    """Nodes in the order of the file; coordinates as in the file, in mm.

    `points` (N, 3) float64; `cells` (M, 3) triangles or (M, 4) tetrahedra, int64; `point_data` (N, ...), `cell_data` (M, ...);
    `field_data`: arrays that belong to neither (times of frames, measured points); `fibres` (M, 3): one vector a cell, zero = none.
    `space`: "LPS" or "RAS" where the file says so (3D Slicer writes LPS), else "". `notes`: plain sentences on what the reader did.
    `missing`: a file that belongs beside this one and is not there.
    """

    points: np.ndarray
    cells: np.ndarray
    point_data: dict[str, np.ndarray] = field(default_factory=dict)
    cell_data: dict[str, np.ndarray] = field(default_factory=dict)
    field_data: dict[str, np.ndarray] = field(default_factory=dict)
    fibres: np.ndarray | None = None
    space: str = ""
    source: str = "mesh"
    notes: tuple[str, ...] = ()
    missing: str = ""

    @property
    def is_surface(self) -> bool:
        """Triangles (True) or tetrahedra (False)."""
        return self.cells.shape[1] == 3

    @property
    def ras_points(self) -> np.ndarray:
        """(N, 3) points in RAS+ mm: x and y change sign where the file says LPS."""
        return self.points * (-1.0, -1.0, 1.0) if self.space == "LPS" else self.points

    def find(self, name: str) -> np.ndarray | None:
        """Point data by name; capitals do not matter."""
        return next((array for key, array in self.point_data.items() if key.lower() == name.lower()), None)

    def with_data(self, **point_data: np.ndarray) -> Mesh:
        """The same mesh with these point data added or replaced."""
        return replace(self, point_data={**self.point_data, **point_data})


def read(path: str | Path) -> Mesh:
    """Read .vtk .vtp .vtu .ply .stl, openCARP .pts/.elem[/.lon] (any of the three, or their common stem) or a CARTO 3 .mesh."""
    from . import carto, opencarp, vtkmesh  # here, since these modules build a Mesh

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in vtkmesh.READERS:
        reader = vtkmesh.read
    elif suffix in (".pts", ".elem", ".lon") or (not path.exists() and Path(f"{path}.pts").exists()):
        reader = opencarp.read
    elif suffix == ".mesh":
        reader = carto.read
    else:
        wanted = "give .vtk .vtp .vtu .ply .stl, openCARP .pts or CARTO 3 .mesh"
        raise InputError(path, "not a mesh file this program knows", found=suffix or "no extension", fix=wanted)
    if suffix and not path.is_file():
        raise InputError(path, "no such file", fix="check the path")
    return validated(_with_fibres(reader(path)))


def _with_fibres(mesh: Mesh) -> Mesh:
    """Take fibres from cell data (or, averaged over corners without regard to sign, from point data) where the file names them."""
    if mesh.fibres is not None:
        return mesh
    for name, array in mesh.cell_data.items():
        if name.lower() in FIBRE_NAMES and array.shape == (len(mesh.cells), 3):
            return replace(mesh, fibres=np.nan_to_num(array.astype(float)))
    for name, array in mesh.point_data.items():
        if name.lower() in FIBRE_NAMES and array.shape == (len(mesh.points), 3):
            corners = np.nan_to_num(array.astype(float))[mesh.cells]
            sign = np.sign(np.einsum("mci,mi->mc", corners, corners[:, 0]))
            return replace(mesh, fibres=(corners * sign[..., None]).mean(axis=1))
    return mesh


def validated(mesh: Mesh) -> Mesh:
    """Refuse what no method can use: no cells, coordinates that are not finite, cells that point outside the node list."""
    count = len(mesh.points)
    if count == 0:
        raise InputError(mesh.source, "has no points", fix="export the surface again")
    if len(mesh.cells) == 0:
        fix = "export the surface, not the point cloud"
        raise InputError(mesh.source, "has no triangles or tetrahedra", found=f"{count} points only", fix=fix)
    bad = np.flatnonzero(~np.isfinite(mesh.points).all(axis=1))
    if bad.size:
        found = f"the first is point {bad[0]}"
        raise InputError(mesh.source, f"{bad.size} points have coordinates that are not finite", found=found, fix="export again")
    if (size := float(np.abs(mesh.points).max())) > FARTHEST:
        raise InputError(mesh.source, "has a point absurdly far away", found=f"{size:.3g} mm", fix="check the unit, or export again")
    low, high = mesh.cells.min(), mesh.cells.max()
    if low < 0 or high >= count:
        found = f"index {low if low < 0 else high} with {count} points"
        raise InputError(mesh.source, "a cell uses a node that does not exist", found=found, fix="check 0- or 1-based numbering")
    return mesh
