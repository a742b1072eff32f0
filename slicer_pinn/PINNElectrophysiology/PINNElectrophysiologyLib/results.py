"""From the engine's files to nodes: a copy of the model with the maps as point scalars, volumes, the parameters' table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import slicer
import vtk
from PINNCommonLib import nodes
from PINNCommonLib.explain import Problem
from PINNCommonLib.specs import MapSpec
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import traces
from .inputs import output_folder, point_array, prefix
from .mapspecs import KEYS, manual_range, specs
from .options import Settings

MEASURED = "measured"  # array of the result: what was fitted (activation times or V), as the input has it


def collect(folder: Path, settings: Settings, model, reference=None, output=None) -> tuple[dict[str, object], str, list[str]]:
    """Nodes by role (model, table, chart, CV, CV_std, …), one sentence, the engine's notes. `output`: a model node to fill anew."""
    out = output_folder(folder, settings)
    file = out / f"{prefix(model)}_cardiac{'.vtp' if model.GetMesh().IsA('vtkPolyData') else '.vtu'}"
    if not file.is_file():
        file = file.with_suffix(".vtp")  # triangles in an unstructured grid
    if not file.is_file():
        raise Problem(f"The engine wrote no {file.name} into {out}.")
    fitted = read_mesh(file)
    table = specs(settings.timeUnit)
    made: dict[str, object] = {"model": fill_model(model, fitted, settings, output)}
    made["model"].SetAttribute("PINN.TimeUnit", settings.timeUnit)
    parameters = json.loads((out / f"{prefix(model)}_parameters.json").read_text(encoding="utf-8"))
    made["model"].SetAttribute("PINN.Fit", json.dumps(parameters.get("Fit", {})))
    item = nodes.folder_beside(model, f"{model.GetName()} PINN")
    nodes.place(made["model"], item)
    made["table"] = parameter_table(made["model"], parameters, model.GetName())
    for role, path in volume_files(out, prefix(model)).items():
        made[role] = nodes.read_volume(path, f"{model.GetName()} {table[role].title}", kept(made["model"], role))
        keep(made["model"], role, made[role])
        dress(made[role], table[role])
    made |= traces.build(made["model"], fitted, model.GetName(), table["LAT"].unit)
    for role in made:
        if role != "model":
            nodes.place(made[role], item)
    show(made["model"], "CV")
    shown = made.get("CV") or made.get("D")
    if shown is not None:
        nodes.show_layers(reference or shown, shown)
    return made, sentence(made["model"], fitted, table), list(parameters.get("Notes") or [])


def read_mesh(path: Path):
    """The engine's own file, as it stands: nodes in the order of the input's."""
    reader = vtk.vtkXMLPolyDataReader() if path.suffix == ".vtp" else vtk.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def fill_model(model, fitted, settings: Settings, output=None):
    """The input's own mesh with the maps instead of its arrays, under its transform: no point is moved, so none can be misplaced."""
    mesh = model.GetMesh()
    if fitted.GetNumberOfPoints() != mesh.GetNumberOfPoints():
        raise Problem(f"The fit has {fitted.GetNumberOfPoints()} nodes and {model.GetName()} {mesh.GetNumberOfPoints()}.")
    if output is model:
        raise Problem("The result would overwrite the input: choose another output model.")
    copy = mesh.NewInstance()
    copy.CopyStructure(mesh)
    data = copy.GetPointData()
    for index in range(fitted.GetPointData().GetNumberOfArrays()):
        data.AddArray(fitted.GetPointData().GetArray(index))
    add_measured(copy, mesh, settings)
    fields = vtk.vtkFieldData()
    if fitted.GetFieldData().GetArray("times") is not None:
        fields.AddArray(fitted.GetFieldData().GetArray("times"))
    copy.SetFieldData(fields)
    node = output or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", f"{model.GetName()} fit")
    node.SetAndObserveMesh(copy)
    parent = model.GetTransformNodeID()
    node.SetAndObserveTransformNodeID(parent)
    node.CreateDefaultDisplayNodes()
    return node


def add_measured(copy, mesh, settings: Settings) -> None:
    """What was fitted, as the input has it, to compare with."""
    names = [settings.array] if settings.array else ["LAT", "activation_time", "activation_times", "activation", "LAT_ms", "V"]
    values = next((found for name in names if (found := point_array(mesh, name)) is not None), None)
    if values is not None:
        array = numpy_to_vtk(np.ascontiguousarray(values, dtype=np.float32), deep=True)
        array.SetName(MEASURED)
        copy.GetPointData().AddArray(array)


def volume_files(out: Path, name: str) -> dict[str, Path]:
    """The maps on the voxel grid, by role."""
    files = {key: out / f"{name}_{key}.nii.gz" for key in KEYS} | {f"{key}_std": out / f"{name}_desc-std_{key}.nii.gz" for key in KEYS}
    return {role: path for role, path in files.items() if path.is_file()}


def dress(volume, spec: MapSpec) -> None:
    """Colours, codes, window over the tissue. 0 is outside; where tissue has times of 0 or less, nothing can be hidden by a threshold."""
    nodes.dress_volume(volume, spec, legend=False)
    values = slicer.util.arrayFromVolume(volume)
    display = volume.GetDisplayNode()
    display.SetWindowLevelMinMax(*manual_range(values, values != 0, spec))
    if values.min() < 0:
        display.ApplyThresholdOff()


def show(model, key: str) -> None:
    """Colour the model by one of its maps: manual range over the fitted tissue, legend with the unit. Where the fit made no such map
    (numbers have no CV), by the first that it made."""
    display = model.GetDisplayNode()
    data = model.GetMesh().GetPointData()
    key = next((one for one in (key, *KEYS) if data.GetArray(one) is not None), "")
    if not key:
        return
    spec = specs(model.GetAttribute("PINN.TimeUnit") or "ms")[key]
    display.SetActiveScalar(key, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarVisibility(True)
    colors = nodes.color_node(spec.colors)
    if colors is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    display.SetScalarRange(*manual_range(vtk_to_numpy(data.GetArray(key)), tissue_of(model.GetMesh()), spec))
    display.SetVisibility(True)
    nodes.add_legend(model, spec)


def tissue_of(mesh) -> np.ndarray:
    """(N,) bool: nodes that were fitted."""
    return vtk_to_numpy(mesh.GetPointData().GetArray("status")) != 0


def parameter_table(model, parameters: dict, name: str):
    """Value, standard deviation, unit and status of every number; given ones have no deviation."""
    node = kept(model, "table") or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetName(f"{name} parameters")
    rows = parameters["parameters"]
    columns = {
        "parameter": list(rows),
        "value": [row["value"] for row in rows.values()],
        "std": [row["std"] for row in rows.values()],
        "unit": [row["unit"] for row in rows.values()],
        "status": [row["status"] for row in rows.values()],
    }
    nodes.fill_table(node, columns)
    node.SetDescription(parameters.get("identifiability", ""))
    keep(model, "table", node)
    return node


def sentence(model, fitted, table: dict[str, MapSpec]) -> str:
    """With numbers: what was fitted, and how much of it can be trusted."""
    tissue = tissue_of(fitted)
    status = vtk_to_numpy(fitted.GetPointData().GetArray("status"))
    parts = [f"'{model.GetName()}': {int(tissue.sum())} of {len(tissue)} nodes fitted, {int((status[tissue] == 1).sum())} without a flag"]
    for key in ("CV", "D"):
        array = fitted.GetPointData().GetArray(key)
        if array is not None and tissue.any():
            spec = table[key]
            parts.append(f"median {key} {np.median(vtk_to_numpy(array)[tissue]):.{spec.decimals}f} {spec.unit}")
    return ", ".join(parts) + "."


def kept(model, role: str):
    """The node of an earlier run of the same output, to be filled anew: twenty runs leave what one run leaves."""
    return model.GetNodeReference(f"PINN.{role}")


def keep(model, role: str, node) -> None:
    model.SetNodeReferenceID(f"PINN.{role}", node.GetID())
