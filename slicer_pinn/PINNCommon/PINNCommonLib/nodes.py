"""MRML: arrays to files and files to nodes, colours, codes, legends, tables, folders. Works in Slicer and in a bare MRML scene.

Positions are RAS and arrays are [k, j, i] as in slicer.util. Images go to the engine as NRRD written here, with exactly the node's matrix,
and come back as NIfTI read by MRML; both keep RAS whatever the handedness (MRML turns left-handed files around on reading).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk

from .explain import SHEARED, Problem
from .specs import MapSpec

TYPES = {"float32": "float", "uint8": "uchar", "int16": "short"}
SHEAR = 1e-3  # cosine between two axes of a grid that still counts as a right angle


def matrix_of(volume) -> np.ndarray:
    """(4, 4) voxel index (i, j, k) to RAS mm, without the parent transform. Raises Problem for a sheared or flat grid."""
    found = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(found)
    matrix = np.array([[found.GetElement(row, column) for column in range(4)] for row in range(4)])
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0:
        raise Problem(f"{volume.GetName()}: the voxels have no size; check its spacing in the Volumes module.")
    axes = matrix[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        raise Problem(f"{volume.GetName()}: its axes are not at right angles. Resample it first (Resample Scalar/Vector/DWI Volume).")
    return matrix


def right_handed(array: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The same image with a right-handed grid, as MRML makes it on reading; True where k was turned around. `array` (..., k, j, i)."""
    if np.linalg.det(matrix[:3, :3]) > 0:
        return array, matrix, False
    turned = matrix.copy()
    turned[:3, 3] = matrix[:3, 3] + (array.shape[-3] - 1) * matrix[:3, 2]
    turned[:3, 2] = -matrix[:3, 2]
    return array[..., ::-1, :, :], turned, True


def write_nrrd(path: Path, array: np.ndarray, matrix: np.ndarray) -> None:
    """`array` (k, j, i) or (volumes, k, j, i) of float32, uint8 or int16; `matrix` index to RAS."""
    data = np.ascontiguousarray(array)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    vectors = ["({})".format(",".join(repr(float(value)) for value in matrix[:3, axis])) for axis in range(4)]
    volumes = data.ndim - 3
    header = [
        "NRRD0004",
        f"type: {TYPES[data.dtype.name]}",
        f"dimension: {data.ndim}",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(size) for size in data.shape[::-1]),
        "space directions: " + " ".join([*vectors[:3], *["none"] * volumes]),
        "kinds: " + " ".join(["domain"] * 3 + ["list"] * volumes),
        "endian: little",
        "encoding: raw",
        f"space origin: {vectors[3]}",
    ]
    with open(path, "wb") as stream:
        stream.write(("\n".join(header) + "\n\n").encode("ascii"))
        stream.write(data.data)


def read_volume(path: os.PathLike[str] | str, name: str, node=None, *, labels: bool = False):
    """A node of a 3-D image file, or the given node filled anew. It has no storage node: Slicer is to save it, not to look for our file."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode" if labels else "vtkMRMLScalarVolumeNode")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    _read(storage, path, node)
    node.SetName(name)
    node.CreateDefaultDisplayNodes()
    return node


def read_sequence(path: os.PathLike[str] | str, name: str, node=None):
    """A sequence node of a 4-D image file, or the given node filled anew; no storage node, as in `read_volume`."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    node.RemoveAllDataNodes()
    _read(slicer.vtkMRMLVolumeSequenceStorageNode(), path, node)
    node.SetName(name)
    return node


def _read(storage, path: os.PathLike[str] | str, node) -> None:
    if not Path(path).is_file():
        raise Problem(f"{Path(path).name} cannot be read: there is no such file.")
    storage.SetFileName(str(path))
    slicer.mrmlScene.AddNode(storage)  # sequences are read in a scene only
    try:
        if not storage.ReadData(node):
            raise Problem(f"{Path(path).name} cannot be read as an image. {SHEARED}")
    finally:
        slicer.mrmlScene.RemoveNode(storage)


def coded(entry: tuple[str, str, str]):
    """A vtkCodedEntry of (code, scheme, meaning)."""
    made = slicer.vtkCodedEntry()
    made.SetValueSchemeMeaning(*entry)
    return made


def color_node(ids: Sequence[str]):
    """The first colour table of the list that this scene has."""
    found = (slicer.mrmlScene.GetNodeByID(one) for one in ids)
    return next((node for node in found if node is not None), None)


def window_of(values: np.ndarray) -> tuple[float, float]:
    """0 to the 98th percentile of what is not 0: for maps without a window of their own."""
    used = values[np.isfinite(values) & (values != 0)]
    high = float(np.percentile(used, 98)) if used.size else 1.0
    return (0.0, high) if high > 0 else (float(used.min()), 0.0) if used.size else (0.0, 1.0)


def dress_volume(volume, spec: MapSpec, *, legend: bool = True) -> None:
    """Codes, colours, fixed window (automatic windows fail on constant maps), transparency of the background, legend."""
    volume.SetVoxelValueQuantity(coded(spec.quantity))
    volume.SetVoxelValueUnits(coded(spec.ucum))
    display = volume.GetDisplayNode()
    colors = color_node(spec.colors)
    if colors is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
    low, high = spec.window or window_of(slicer.util.arrayFromVolume(volume))
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.AutoThresholdOff()
    display.SetThreshold(spec.threshold, 1e12)
    display.ApplyThresholdOn()
    display.InterpolateOff()
    if legend:
        add_legend(volume, spec)


def add_legend(node, spec: MapSpec):
    """A colour legend with the unit, where this scene can have one; returns its display node."""
    logic = slicer.vtkSlicerColorLogic
    made = logic.GetColorLegendDisplayNode(node) or logic.AddDefaultColorLegendDisplayNode(node)
    if made is not None:
        made.SetTitleText(f"{spec.title}\n{spec.unit}" if spec.unit else spec.title)
        made.SetLabelFormat(f"%.{spec.decimals}f")
        made.SetNumberOfLabels(6)
    return made


def fill_table(node, columns: Mapping[str, Sequence[object]], units: Mapping[str, str] | None = None) -> None:
    """Columns of text or numbers; `units` by column."""
    table = vtk.vtkTable()
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values)
        column = vtk.vtkStringArray() if is_text else vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(str(value) if is_text else float(value))  # type: ignore[arg-type]
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    node.SetUseColumnTitleAsColumnHeader(True)
    for name, unit in (units or {}).items():
        node.SetColumnUnitLabel(name, unit)


def place(node, folder: int) -> None:
    """Put a node into a folder of the subject hierarchy."""
    hierarchy = subject_hierarchy()
    item = hierarchy.GetItemByDataNode(node)
    if item in (0, hierarchy.GetInvalidItemID()):
        hierarchy.CreateItem(folder, node)
    else:
        hierarchy.SetItemParent(item, folder)


def folder_beside(node, name: str) -> int:
    """The subject-hierarchy folder of that name beside a node; made where there is none."""
    hierarchy = subject_hierarchy()
    invalid = hierarchy.GetInvalidItemID()
    item = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(item) if item not in (0, invalid) else hierarchy.GetSceneItemID()
    found = hierarchy.GetItemChildWithName(parent, name)
    return found if found not in (0, invalid) else hierarchy.CreateFolderItem(parent, name)


def subject_hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def show_layers(background, foreground, opacity: float = 1.0) -> None:
    """In all slice views; the views are fitted where there is an application."""
    composites = slicer.mrmlScene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    composites.UnRegister(None)
    for index in range(composites.GetNumberOfItems()):
        composite = composites.GetItemAsObject(index)
        composite.SetBackgroundVolumeID(background.GetID() if background is not None else None)
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(opacity)
    if getattr(getattr(slicer, "app", None), "layoutManager", None) is not None and slicer.app.layoutManager() is not None:
        slicer.util.resetSliceViews()
