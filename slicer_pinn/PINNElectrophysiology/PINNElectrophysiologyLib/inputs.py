"""From the chosen nodes to the files and options of one call of the engine: everything in world RAS, and said so in the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import slicer
import vtk
from PINNCommonLib import nodes
from PINNCommonLib.explain import Problem
from vtk.util.numpy_support import vtk_to_numpy

from .options import AUTOMATIC, Settings, arguments, frame_times

LAT_NAMES = ("LAT", "activation_time", "activation_times", "activation", "LAT_ms")
FIBRES = ("fibres", "fibers", "fibre", "fiber", "lon")
MOST_FRAMES = 4096


def export(folder: Path, settings: Settings, model, reference=None) -> list[str]:
    """Write the files and return the arguments of the call, the output folder included. Raises Problem."""
    mesh = check_model(model)
    call = [
        "cardiac",
        "fit",
        str(write_mesh(folder, world_mesh(model, mesh), prefix(model))),
        "--out",
        str(output_folder(folder, settings)),
    ]
    call += arguments(settings)
    if settings.array != AUTOMATIC:
        if settings.array not in array_names(model) and f"{settings.array}_0" not in array_names(model):
            raise Problem(f"{model.GetName()}: it has no point scalars {settings.array}; it has {', '.join(array_names(model)) or 'none'}.")
        call += ["--array", settings.array]
    if settings.times.strip():
        path = folder / "times.txt"
        path.write_text("\n".join(repr(one) for one in frame_times(settings.times)) + "\n", encoding="utf-8")
        call += ["--times", str(path)]
    if reference is None:
        return [*call, "--spacing", repr(settings.spacing)]
    if reference.GetParentTransformNode() is not None:
        raise Problem(f"{reference.GetName()} stands under a transform: harden it first (Transforms module), or choose another reference.")
    if reference.GetImageData() is None:
        raise Problem(f"{reference.GetName()}: the reference volume is empty.")
    dimensions = reference.GetImageData().GetDimensions()
    path = folder / "reference.nrrd"
    nodes.write_nrrd(path, np.ones(dimensions[::-1], np.uint8), nodes.matrix_of(reference))  # only its grid is asked for
    return [*call, "--reference", str(path)]


def check_model(model):
    """The model's mesh. Raises Problem where there is none."""
    if model is not None and not model.IsA("vtkMRMLModelNode"):
        raise Problem(f"{model.GetName()}: it is no model; choose a surface or a volume mesh.")
    mesh = model.GetMesh() if model is not None else None
    if mesh is None or mesh.GetNumberOfPoints() == 0 or mesh.GetNumberOfCells() == 0:
        raise Problem(f"{model.GetName() if model is not None else 'Input'}: the model has no surface and no cells.")
    return mesh


def array_names(model) -> list[str]:
    """Point scalars of a model that can be fitted, by name; one array a frame (V_0, V_1 …) counts as one."""
    mesh = model.GetMesh() if model is not None else None
    if mesh is None:
        return []
    data = mesh.GetPointData()
    found = [data.GetArray(index) for index in range(data.GetNumberOfArrays())]
    names = [one.GetName() for one in found if one is not None and one.GetName() and one.GetNumberOfComponents() != 3]
    return list(dict.fromkeys(re.sub(r"_?\d+$", "", name) if re.fullmatch(r"V_?\d+", name) else name for name in names))


def has_data(model) -> bool:
    """Whether the engine would find something to fit by itself."""
    mesh = model.GetMesh() if model is not None else None
    if mesh is None:
        return False
    wanted = {name.lower() for name in LAT_NAMES} | {"v"}
    measured = mesh.GetFieldData().GetAbstractArray("measured_LAT") is not None
    return measured or any(name.lower() in wanted for name in array_names(model))


def world_mesh(model, mesh):
    """A copy of the mesh with its points in world RAS: the parent transform is applied."""
    copy = mesh.NewInstance()
    copy.ShallowCopy(mesh)
    parent = model.GetParentTransformNode()
    if parent is None:
        return copy
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, to_world)
    points = vtk.vtkPoints()
    points.SetDataTypeToDouble()
    to_world.TransformPoints(mesh.GetPoints(), points)
    copy.SetPoints(points)
    positions = copy.GetFieldData().GetArray("measured_position")
    names = [copy.GetCellData().GetArrayName(index) for index in range(copy.GetCellData().GetNumberOfArrays())]
    if positions is not None or any(name.lower() in FIBRES for name in names if name):
        what = "measured points" if positions is not None else "fibres"
        raise Problem(
            f"{model.GetName()} has {what} and stands under a transform: these would not be turned with it. Remove the transform."
        )
    return copy


def write_mesh(folder: Path, mesh, name: str) -> Path:
    """.vtp or .vtu with field data SPACE=RAS: without it a model file would be taken as LPS, turned by 180 degrees about z."""
    surface = mesh.IsA("vtkPolyData")
    fields = vtk.vtkFieldData()
    fields.ShallowCopy(mesh.GetFieldData())
    fields.RemoveArray("SPACE")
    space = vtk.vtkStringArray()
    space.SetName("SPACE")
    space.InsertNextValue("SPACE=RAS")
    fields.AddArray(space)
    mesh.SetFieldData(fields)
    writer = vtk.vtkXMLPolyDataWriter() if surface else vtk.vtkXMLUnstructuredGridWriter()
    path = folder / f"{name}{'.vtp' if surface else '.vtu'}"
    writer.SetFileName(str(path))
    writer.SetInputData(mesh)
    if writer.Write() != 1:
        raise Problem(f"{path}: the model could not be written; is the disk full?")
    return path


def output_folder(folder: Path, settings: Settings) -> Path:
    """Where the engine writes: the person's folder, else in the run's private one."""
    return Path(settings.outputFolder).expanduser() if settings.outputFolder.strip() else folder / "out"


def prefix(model) -> str:
    """What the files are called after: the node's name as far as a file can have it."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", model.GetName() or "").strip("_.") or "heart"


def point_array(mesh, name: str) -> np.ndarray | None:
    """(N,) or (N, frames); one array a frame is put together."""
    data = mesh.GetPointData()
    one = data.GetArray(name)
    if one is not None:
        return np.array(vtk_to_numpy(one), dtype=float)
    frames = []
    for index in range(MOST_FRAMES):
        one = data.GetArray(f"{name}_{index}") or data.GetArray(f"{name}{index}")
        if one is None:
            break
        frames.append(vtk_to_numpy(one))
    return np.stack(frames, axis=1).astype(float) if frames else None
