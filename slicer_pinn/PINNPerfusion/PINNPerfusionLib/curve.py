"""The curve of one voxel: measured differences, the fit and its band, as a table and a plot. Reads nodes only, no engine."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import slicer
import vtk
from PINNCommonLib import nodes

BAND = 1.96  # standard deviations on either side: 95 %
SERIES = {  # column: name, colour, scatter or line, dashed
    "data": ("measured", (0.15, 0.15, 0.15), True, False),
    "fit": ("fitted", (0.80, 0.25, 0.10), False, False),
    "low": ("95 % low", (0.80, 0.55, 0.40), False, True),
    "high": ("95 % high", (0.80, 0.55, 0.40), False, True),
}


def voxel_at(volume, ras) -> tuple[int, int, int] | None:
    """(i, j, k) of the voxel that holds a point in world RAS mm; None outside."""
    local = [0.0, 0.0, 0.0]
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volume.GetParentTransformNode(), transform)
    transform.TransformPoint(list(ras), local)
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    found = [round(value) for value in matrix.MultiplyPoint([*local, 1.0])[:3]]
    size = volume.GetImageData().GetDimensions()
    inside = all(0 <= index < count for index, count in zip(found, size, strict=True))
    return (found[0], found[1], found[2]) if inside else None


def curve_at(made: Mapping[str, object], ras) -> dict[str, np.ndarray] | None:
    """Columns delay (s, slice timing included), data, fit, low, high of the voxel at a point; None outside the mask."""
    voxel = voxel_at(made["mask"], ras)
    if voxel is None or made["mask"].GetImageData().GetScalarComponentAsDouble(*voxel, 0) == 0:
        return None
    data, fit, std = (_values(made[role], voxel) for role in ("data", "fit", "fitstd"))
    delays = np.array(json.loads(made["fit"].GetAttribute("PINN.Delays")))
    slices = json.loads(made["fit"].GetAttribute("PINN.SliceDelay"))
    index = voxel["ijk".index(made["fit"].GetAttribute("PINN.SliceAxis"))]
    late = slices[index] if index < len(slices) else 0.0
    order = np.argsort(delays, kind="stable")
    columns = {"delay": delays + late, "data": data, "fit": fit, "low": fit - BAND * std, "high": fit + BAND * std}
    return {name: values[order] for name, values in columns.items()}


def show_curve(made: Mapping[str, object], ras, plot: dict[str, object]) -> bool:
    """Fill the plot's nodes (made on first use, kept in `plot`) with the curve at a point; False outside the mask."""
    columns = curve_at(made, ras)
    if columns is None:
        return False
    if "chart" not in plot:
        _make(plot, made)
    nodes.fill_table(plot["table"], {name: list(values) for name, values in columns.items()})
    plot["chart"].SetTitle("R {:.0f}  A {:.0f}  S {:.0f} mm".format(*ras))
    plot["chart"].SetXAxisTitle(f"{made['fit'].GetIndexName()} + slice time (s)")
    return True


def _values(sequence, voxel: tuple[int, int, int]) -> np.ndarray:
    frames = (sequence.GetNthDataNode(index).GetImageData() for index in range(sequence.GetNumberOfDataNodes()))
    return np.array([frame.GetScalarComponentAsDouble(*voxel, 0) for frame in frames])


def _make(plot: dict[str, object], made: Mapping[str, object]) -> None:
    scene = slicer.mrmlScene
    plot["table"] = scene.AddNewNodeByClass("vtkMRMLTableNode", "ASL curve")
    plot["chart"] = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", "ASL curve")
    plot["chart"].SetYAxisTitle("control - label (scanner units)")
    kind = slicer.vtkMRMLPlotSeriesNode
    for column, (name, color, dots, dashed) in SERIES.items():
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(plot["table"].GetID())
        series.SetPlotType(kind.PlotTypeScatter)  # both columns are numbers; a line is a scatter plot with a line and no marker
        series.SetXColumnName("delay")
        series.SetYColumnName(column)
        series.SetMarkerStyle(kind.MarkerStyleCircle if dots else kind.MarkerStyleNone)
        series.SetLineStyle(kind.LineStyleNone if dots else kind.LineStyleDash if dashed else kind.LineStyleSolid)
        series.SetColor(*color)
        plot["chart"].AddAndObservePlotSeriesNodeID(series.GetID())
        plot[column] = series
