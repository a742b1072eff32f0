"""VTK's files (legacy .vtk, .vtp, .vtu) and .ply, .stl: in and out, through the vtk package (imported when used: it is heavy)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .cells import to_simplices
from .mesh import FIBRE_NAMES, Mesh
from .output import write_file

READERS = {
    ".vtk": ("vtkmodules.vtkIOLegacy", "vtkGenericDataObjectReader"),
    ".vtp": ("vtkmodules.vtkIOXML", "vtkXMLPolyDataReader"),
    ".vtu": ("vtkmodules.vtkIOXML", "vtkXMLUnstructuredGridReader"),
    ".ply": ("vtkmodules.vtkIOPLY", "vtkPLYReader"),
    ".stl": ("vtkmodules.vtkIOGeometry", "vtkSTLReader"),
}
CRASHING = (".vtp", ".vtu", ".ply")  # of damaged files; the last with VTK 9.6, which Slicer 5.12 has
TRIAL = """import importlib, signal, sys
module, name, path, patience = sys.argv[1:]
if hasattr(signal, "alarm"):
    signal.alarm(int(patience) + 1)  # ends it even where the process that waits for it was killed
reader = getattr(importlib.import_module(module), name)()
reader.SetFileName(path)
reader.Update()
"""


def read(path: Path) -> Mesh:
    """Read one file; nodes in the file's order (an STL has none: its corners are merged in order of appearance)."""
    if not path.is_file():
        raise InputError(path, "no such file", fix="check the path")
    dataset, header, complaints = _load(path)
    if "error" in complaints.lower():
        fix = "the file is cut short or damaged: export it again"
        raise InputError(path, "could not be read whole", found=_first_sentence(complaints), fix=fix)
    if not (dataset.IsA("vtkPolyData") or dataset.IsA("vtkUnstructuredGrid")):
        fix = "export the surface as polydata or the volume mesh as an unstructured grid"
        raise InputError(path, "is not a mesh", found=dataset.GetClassName(), fix=fix)
    types, offsets, nodes = _polydata_cells(dataset) if dataset.IsA("vtkPolyData") else _grid_cells(dataset)
    cells, origin, notes = to_simplices(types, offsets, nodes, path)
    points = _numpy(dataset.GetPoints().GetData()) if dataset.GetPoints() else np.zeros((0, 3))
    fields, strings = _arrays(dataset.GetFieldData())
    point_data = _arrays(dataset.GetPointData())[0]
    if path.suffix.lower() == ".ply":
        point_data |= _of_ply(path, dataset)
    return Mesh(
        points=points.astype(np.float64),
        cells=cells,
        point_data=point_data,
        cell_data={name: array[origin] for name, array in _arrays(dataset.GetCellData())[0].items()},
        field_data=fields,
        space=_space(header + " " + strings.get("SPACE", "")),
        source=path.name,
        notes=notes,
    )


def write(mesh: Mesh, path: str | Path, *, ascii_text: bool = False) -> Path:
    """Write .vtp (triangles) or .vtu (triangles or tetrahedra) with the mesh's nodes and cells in their order."""
    return write_file(path, encode(mesh, path, ascii_text=ascii_text))


def encode(mesh: Mesh, path: str | Path, *, ascii_text: bool = False) -> bytes:
    """The bytes of the file that `path` names by its suffix; the same mesh, the same bytes."""
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter, vtkXMLUnstructuredGridWriter

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".vtp", ".vtu") or (suffix == ".vtp" and not mesh.is_surface):
        fix = ".vtp for triangles, .vtu for triangles or tetrahedra"
        raise InputError(path, "cannot hold this mesh", found=suffix or "no extension", fix=fix)
    writer = vtkXMLPolyDataWriter() if suffix == ".vtp" else vtkXMLUnstructuredGridWriter()
    writer.SetInputData(to_vtk(mesh, polydata=suffix == ".vtp"))
    writer.SetDataModeToAscii() if ascii_text else writer.SetDataModeToBinary()
    writer.WriteToOutputStringOn()
    if writer.Write() != 1:
        raise RuntimeError(f"{path}: VTK could not encode the mesh")
    return re.sub(r"\s*<InformationKey.*?</InformationKey>", "", writer.GetOutputString(), flags=re.DOTALL).encode("utf-8")


def to_vtk(mesh: Mesh, *, polydata: bool | None = None) -> Any:
    """The mesh as vtkPolyData (default for triangles) or vtkUnstructuredGrid, arrays and all; what the report draws."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints, vtkStringArray
    from vtkmodules.vtkCommonDataModel import VTK_TETRA, VTK_TRIANGLE, vtkCellArray, vtkPolyData, vtkUnstructuredGrid

    polydata = mesh.is_surface if polydata is None else polydata
    points, cells = vtkPoints(), vtkCellArray()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(mesh.points, dtype=np.float64), deep=True))
    corners = mesh.cells.shape[1]
    offsets = np.arange(0, mesh.cells.size + 1, corners, dtype=np.int64)
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(mesh.cells.astype(np.int64).ravel(), deep=True))
    dataset: Any = vtkPolyData() if polydata else vtkUnstructuredGrid()
    dataset.SetPoints(points)
    dataset.SetPolys(cells) if polydata else dataset.SetCells(VTK_TRIANGLE if corners == 3 else VTK_TETRA, cells)
    cell_data = dict(mesh.cell_data)
    if mesh.fibres is not None and not any(name.lower() in FIBRE_NAMES for name in cell_data):
        cell_data["fibres"] = mesh.fibres
    owners = (dataset.GetPointData(), dataset.GetCellData(), dataset.GetFieldData())
    for owner, arrays in zip(owners, (mesh.point_data, cell_data, mesh.field_data), strict=True):
        for name, values in arrays.items():
            owner.AddArray(_named(numpy_to_vtk(_plain(values), deep=True), name))
    if mesh.space:
        text = _named(vtkStringArray(), "SPACE")
        text.InsertNextValue(f"SPACE={mesh.space}")
        dataset.GetFieldData().AddArray(text)
    return dataset


def _load(path: Path) -> tuple[Any, str, str]:
    """Run VTK's reader: (data set, title line of a legacy file, everything VTK complained of)."""
    import importlib

    module, name = READERS[path.suffix.lower()]
    if path.suffix.lower() in CRASHING:
        _try_elsewhere(path, module, name)
    reader = getattr(importlib.import_module(module), name)()
    reader.SetFileName(str(path))
    for kind in ("Scalars", "Vectors", "Normals", "Tensors", "TCoords", "Fields"):  # a legacy reader otherwise keeps the first of each
        switch: Callable[[], None] | None = getattr(reader, f"ReadAll{kind}On", None)
        if switch:
            switch()
    with _overheard() as window:
        reader.Update()
    header = reader.GetHeader() or "" if hasattr(reader, "GetHeader") else ""
    return reader.GetOutputDataObject(0), header, _serious(window.GetOutput())


def _of_ply(path: Path, dataset: Any) -> dict[str, np.ndarray]:
    """The numbers of a .ply's vertices that VTK passes over. Raises InputError where there are fewer faces than its header says."""
    from .ply import vertex_data

    values, counts = vertex_data(path)
    faces, found = counts.get("face", 0), dataset.GetNumberOfCells()
    if found < faces:
        raise InputError(path, "is cut short", found=f"{found} faces where the header says {faces}", fix="export it again")
    return {name: array for name, array in values.items() if len(array) == dataset.GetNumberOfPoints()}


def _try_elsewhere(path: Path, module: str, name: str) -> None:
    """These readers crash on, or never come back from, some damaged files: so another process tries first."""
    patience = 20 + int(path.stat().st_size / 1e6)
    try:
        run = subprocess.run([sys.executable, "-c", TRIAL, module, name, str(path), str(patience)], capture_output=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise InputError(path, f"could not be read within {patience} s", fix="the file is damaged: export it again") from None
    if run.returncode:
        raise InputError(path, "crashes VTK's reader", found=f"exit {run.returncode}", fix="the file is damaged: export it again")


def _serious(complaints: str | bytes) -> str:
    """Without those about the range of an array, which VTK writes as text that it cannot read again where every row has a NaN."""
    text = complaints if isinstance(complaints, str) else complaints.decode("utf-8", "replace")  # bytes: VTK quotes a damaged file
    return "".join(part for part in re.split(r"(?=^ERROR: )", text, flags=re.MULTILINE) if "InformationKey" not in part)


@contextmanager
def _overheard() -> Iterator[Any]:
    """Collect VTK's messages instead of letting them run over the terminal."""
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    before, window, verbosity = vtkOutputWindow.GetInstance(), vtkStringOutputWindow(), vtkLogger.GetCurrentVerbosityCutoff()
    vtkOutputWindow.SetInstance(window)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield window
    finally:
        vtkOutputWindow.SetInstance(before)
        vtkLogger.SetStderrVerbosity(verbosity)


def _first_sentence(complaints: str) -> str:
    """VTK prints `ERROR: In file.cxx, line n`, then `vtkClass (0x...): the sentence`."""
    said = [line.split("): ", 1)[-1].strip() for line in complaints.splitlines() if line.strip() and ".cxx, line" not in line]
    return (said or ["an unreadable file"])[0].rstrip(".!")[:120]


def _polydata_cells(dataset: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Types, offsets and nodes of all cells of polydata, in the order of its cell data: vertices, lines, polygons, strips."""
    types, offsets, nodes, shift = [], [np.zeros(1, np.int64)], [], 0
    for array, code in ((dataset.GetVerts(), 2), (dataset.GetLines(), 4), (dataset.GetPolys(), 7), (dataset.GetStrips(), 6)):
        if array is None or array.GetNumberOfCells() == 0:
            continue
        types.append(np.full(array.GetNumberOfCells(), code))
        offsets.append(_numpy(array.GetOffsetsArray()).astype(np.int64)[1:] + shift)
        nodes.append(_numpy(array.GetConnectivityArray()).astype(np.int64))
        shift = offsets[-1][-1]
    none = np.zeros(0, np.int64)
    return np.concatenate(types or [none]), np.concatenate(offsets), np.concatenate(nodes or [none])


def _grid_cells(dataset: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cells = dataset.GetCells()
    count = dataset.GetNumberOfCells()
    if cells is None or count == 0:
        return np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64)
    types = np.fromiter((dataset.GetCellType(i) for i in range(count)), np.int64, count)  # the bulk getter was renamed in 9.6
    return types, _numpy(cells.GetOffsetsArray()).astype(np.int64), _numpy(cells.GetConnectivityArray()).astype(np.int64)


def _arrays(owner: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Numeric arrays and texts of point, cell or field data, by name."""
    numbers: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    for i in range(owner.GetNumberOfArrays()):
        array = owner.GetAbstractArray(i)
        name = array.GetName() or f"array_{i}"
        if array.IsA("vtkDataArray"):
            numbers[name] = _numpy(array)
        elif array.IsA("vtkStringArray") and array.GetNumberOfValues():
            texts[name] = array.GetValue(0)
    return numbers, texts


def _numpy(array: Any) -> np.ndarray:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return np.array(vtk_to_numpy(array))  # a copy: the reader's memory goes with the reader


def _plain(values: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(values)
    return array.astype(np.uint8) if array.dtype == bool else array.reshape(len(array), -1) if array.ndim > 2 else np.atleast_1d(array)


def _named(array: Any, name: str) -> Any:
    array.SetName(name)
    return array


def _space(text: str) -> str:
    return next((space for space in ("LPS", "RAS") if f"SPACE={space}" in text or text.strip() == space), "")
