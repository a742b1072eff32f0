"""openCARP meshes: NAME.pts (um), NAME.elem, NAME.lon (fibres), .dat nodal values. Format: opencarp.org/documentation, "File formats"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .mesh import Mesh
from .output import write_file

UM_PER_MM = 1000.0
_CORNERS = {"Tr": 3, "Tt": 4, "Ln": 2, "Qd": 4, "Py": 5, "Pr": 6, "Hx": 8}


def read(path: Path) -> Mesh:
    """Read the .pts and .elem (and .lon where it stands) that share this stem; um become mm. Tags go to cell data "tag"."""
    stem = path.with_suffix("") if path.suffix in (".pts", ".elem", ".lon") else path
    points = _read_points(_beside(stem, ".pts"))
    cells, tags, kept, total, notes = _read_elements(_beside(stem, ".elem"))
    lon = Path(f"{stem}.lon")
    fibres = _read_fibres(lon, total)[kept] if lon.is_file() else None
    values = {name: read_dat(Path(f"{stem}.{name}.dat"), len(points)) for name in ("LAT", "V") if Path(f"{stem}.{name}.dat").is_file()}
    cell_data = {"tag": tags}
    if fibres is not None and fibres.shape[1] == 6:
        cell_data["sheets"] = fibres[:, 3:]
    return Mesh(points, cells, values, cell_data, fibres=None if fibres is None else fibres[:, :3], source=f"{stem.name}.pts", notes=notes)


def write(mesh: Mesh, stem: str | Path) -> None:
    """Write STEM.pts, .elem and, where there are fibres, .lon; mm become um."""
    tags = mesh.cell_data.get("tag", np.ones(len(mesh.cells), int)).astype(int)
    word = "Tr" if mesh.is_surface else "Tt"
    texts = {
        ".pts": [f"{len(mesh.points)}", *(" ".join(f"{x:.6f}" for x in row) for row in mesh.points * UM_PER_MM)],
        ".elem": [f"{len(mesh.cells)}", *(f"{word} {' '.join(map(str, row))} {tag}" for row, tag in zip(mesh.cells, tags, strict=True))],
    }
    if mesh.fibres is not None:
        texts[".lon"] = ["1", *(" ".join(f"{x:.6f}" for x in row) for row in mesh.fibres)]
    for suffix, lines in texts.items():
        write_file(f"{stem}{suffix}", ("\n".join(lines) + "\n").encode())  # no blank line at the end: TorchCor counts lines


def read_dat(path: Path, nodes: int) -> np.ndarray:
    """A .dat: one value a node -> (N,)."""
    values = _numbers(path, _lines(path), 1)[:, 0]
    if len(values) != nodes:
        found = f"{len(values)} for {nodes}"
        raise InputError(path, "has another number of values than the mesh has nodes", found=found, fix="give one value per node")
    return values


def _read_points(path: Path) -> np.ndarray:
    lines = _lines(path)
    count = _count(path, lines)
    rows = lines[1 : 1 + count]
    if len(rows) < count and count != 3 * (len(lines) - 1):  # a known exporter writes 3 N in the header
        raise InputError(path, "is cut short", found=f"{len(rows)} points where the first line says {count}", fix="export it again")
    return _numbers(path, rows, 3) / UM_PER_MM


def _read_elements(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, tuple[str, ...]]:
    lines = _lines(path)
    count = _count(path, lines)
    rows = [line.split() for line in lines[1 : 1 + count]]
    if len(rows) < count:
        raise InputError(path, "is cut short", found=f"{len(rows)} elements where the first line says {count}", fix="export it again")
    kinds = np.array([row[0] for row in rows])
    unknown = sorted(set(kinds.tolist()) - set(_CORNERS))
    if unknown:
        raise InputError(path, "has an element type that openCARP does not", found=unknown[0], fix="use Tr or Tt")
    word = "Tt" if np.any(kinds == "Tt") else "Tr"
    kept = np.flatnonzero(kinds == word)
    if kept.size == 0:
        found = ", ".join(sorted(set(kinds.tolist()))) or "no elements"
        raise InputError(path, "has no triangles (Tr) or tetrahedra (Tt)", found=found, fix="export linear elements")
    corners = _CORNERS[word]
    short = next((i for i in kept if len(rows[i]) < corners + 1), None)
    if short is not None:
        raise InputError(path, f"element {short} has too few numbers", found=" ".join(rows[short]), fix=f"give {corners} nodes and a tag")
    try:
        cells = np.array([rows[i][1 : corners + 1] for i in kept], dtype=np.int64)
        tags = np.array([int(rows[i][corners + 1]) if len(rows[i]) > corners + 1 else 0 for i in kept])
    except (ValueError, OverflowError) as fault:
        raise InputError(path, "has an element that is not made of whole numbers", found=str(fault)[-40:], fix="export it again") from None
    others = count - kept.size
    notes = (f"{others} elements other than {word} were left out",) if others else ()
    return cells, tags, kept, count, notes


def _read_fibres(path: Path, elements: int) -> np.ndarray:
    lines = _lines(path)
    first = lines[0].split()
    vectors = int(first[0]) if len(first) == 1 and first[0] in ("1", "2") else 0
    fibres = _numbers(path, lines[1:] if vectors else lines, 3 * vectors if vectors else len(first))
    if len(fibres) != elements or fibres.shape[1] not in (3, 6):
        found = f"{len(fibres)} rows of {fibres.shape[1]} for {elements} elements"
        raise InputError(path, "does not give one fibre an element", found=found, fix="write 3 or 6 numbers for each line of the .elem")
    return fibres


def _beside(stem: Path, suffix: str) -> Path:
    path = Path(f"{stem}{suffix}")
    if not path.is_file():
        raise InputError(path, "no such file", fix="openCARP meshes are NAME.pts and NAME.elem side by side")
    return path


def _lines(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="latin-1").splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(path, "is empty", fix="export it again")
    return lines


def _count(path: Path, lines: list[str]) -> int:
    try:
        return int(lines[0].split()[0])
    except ValueError:
        raise InputError(path, "does not begin with the number of lines", found=lines[0][:40], fix="export it again") from None


def _numbers(path: Path, lines: list[str], columns: int) -> np.ndarray:
    """(rows, columns) floats, or the first line that is not."""
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        if len(values) < columns:
            raise InputError(path, f"row {number} does not hold {columns} numbers", found=line.strip()[:40], fix="export it again")
        rows.append(values[:columns])
    return np.array(rows, dtype=float).reshape(-1, columns)
