"""CARTO 3 text export: N-Map.mesh (surface and its colours) and N-Map_car.txt (the measured points), mm, mV, ms.

Layout read from a real export: latin-1, CRLF, `;` comments and blank lines anywhere, -10000 = invalid, 14 values a row for 13 colour names.
What is missing or odd becomes NaN and a sentence; it never stops the import.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import InputError
from .mesh import Mesh

INVALID = -9999.0  # -10000 with room for rounding
_CAR_COLUMNS = {"unipolar": 10, "bipolar": 11, "LAT": 12, "impedance": 13}  # after `P`: columns of VERSION_5_0


def read(path: Path) -> Mesh:
    """Read a .mesh; colours become point data (NaN = invalid), the points of NAME_car.txt field data measured_*."""
    text = path.read_text(encoding="latin-1")
    if "#TriangulatedMesh" not in text[:200]:
        found = text[:30].strip() or "an empty file"
        raise InputError(path, "is not a CARTO 3 triangulated mesh", found=found, fix="give the N-Map.mesh of a CARTO export")
    sections = _sections(text)
    header = dict(_pairs(sections.get("GeneralAttributes", [])))
    points, lost_points = _rows(sections.get("VerticesSection", []), 3)
    triangles, lost_cells = _rows(sections.get("TrianglesSection", []), 7)
    _whole(path, "vertices", header.get("NumVertex"), points)
    _whole(path, "triangles", header.get("NumTriangle"), triangles)
    cells, points = _kept(triangles, points)
    notes = [f"triangles left out: {len(triangles) - len(cells)}, cut away in CARTO, or unreadable"] if len(cells) < len(triangles) else []
    notes += [f"rows that could not be read and count as missing: {lost_points + lost_cells}"] if lost_points + lost_cells else []
    colours = _colours(sections.get("VerticesColorsSection", []), header, len(points))
    notes += [] if colours else ["this map has no colours (no voltage, no LAT) on its surface"]
    car = path.with_name(f"{path.stem}_car.txt")
    measured, remark = read_points(car)
    notes += [remark] if remark else []
    missing = "" if car.is_file() else car.name
    return Mesh(points, cells, colours, {}, measured, source=path.name, notes=tuple(notes), missing=missing)


def read_points(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Points of a _car.txt: measured_position (P, 3) mm, measured_LAT ms, measured_bipolar mV ... (P,), NaN = invalid; and a remark."""
    if not path.is_file():
        return {}, f"no measured points: {path.name} was expected beside the mesh"
    rows = [line.split() for line in path.read_text(encoding="latin-1").splitlines() if line[:1] == "P"]
    good = [row for row in rows if len(row) > 7 and np.isfinite([_number(word) for word in row[4:7]]).all()]
    if not good:
        return {}, f"{path.name} holds no measured points"
    data = {"measured_position": np.array([[_number(word) for word in row[4:7]] for row in good])}
    for name, column in _CAR_COLUMNS.items():
        data[f"measured_{name}"] = _valid(np.array([_number(row[column]) if len(row) > column else np.nan for row in good]))
    valid = int(np.isfinite(data["measured_LAT"]).sum())
    bad = len(rows) - len(good)
    return data, f"{len(good)} measured points, {valid} with a LAT" + (f"; {bad} unreadable rows skipped" if bad else "")


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith((";", "#")):
            current.append(line)
    return sections


def _pairs(lines: Iterable[str]) -> list[tuple[str, str]]:
    return [(key.strip(), value.strip()) for key, separator, value in (line.partition("=") for line in lines) if separator]


def _rows(lines: Iterable[str], columns: int) -> tuple[np.ndarray, int]:
    """`i = values` rows placed at index i -> (rows, columns), NaN where a row is missing or unreadable; and how many were."""
    found: dict[int, list[float]] = {}
    faults = 0
    for key, value in _pairs(lines):
        numbers = [_number(word) for word in value.split()[:columns]]
        if key.isdigit() and len(numbers) == columns:
            found[int(key)] = numbers
            faults += not np.isfinite(numbers).all()
        else:
            faults += 1
    count = min(max(found, default=-1) + 1, 2 * len(found) + 1000)  # a corrupt index must not ask for gigabytes
    table = np.full((count, columns), np.nan)
    for index, numbers in found.items():
        if index < count:
            table[index] = numbers
    return table, faults


def _kept(triangles: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles that stand (GroupID < 0 = cut away by the operator); points, the unreadable ones (now unused) moved to the centre."""
    lost = ~np.isfinite(points).all(axis=1)
    whole = triangles[np.isfinite(triangles).all(axis=1)] if len(triangles) else np.zeros((0, 7))
    cells = whole[whole[:, 6] >= 0, :3].astype(np.int64)
    cells = cells[((cells >= 0) & (cells < len(points))).all(axis=1)]
    return cells[~lost[cells].any(axis=1)], np.where(
        lost[:, None], points[~lost].mean(axis=0), points
    ) if lost.any() and not lost.all() else points


def _whole(path: Path, what: str, promised: str | None, rows: np.ndarray) -> None:
    if promised is not None and promised.isdigit() and len(rows) < int(promised):
        raise InputError(path, "is cut short", found=f"{len(rows)} {what} of {promised}", fix="export the study again")


def _colours(lines: list[str], header: dict[str, str], count: int) -> dict[str, np.ndarray]:
    """Point data by the header's names; a row's surplus values have no name and are ignored."""
    names = header.get("ColorsNames", "").split()
    names = [name if name.isascii() else "MicroBipolar" for name in names]
    if not names or not lines:
        return {}
    colours = {name: np.full(count, np.nan) for name in names}
    for key, value in _pairs(lines):
        if key.isdigit() and int(key) < count:
            for name, word in zip(names, value.split(), strict=False):
                colours[name][int(key)] = _number(word)
    return {name: _valid(values) for name, values in colours.items()}


def _valid(values: np.ndarray) -> np.ndarray:
    return np.where(values <= INVALID, np.nan, values)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return np.nan
