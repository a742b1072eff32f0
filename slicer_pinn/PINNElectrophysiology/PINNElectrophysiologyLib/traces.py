"""What was measured beside what was fitted, as a plot: V over time at the crosshair, or activation times one against the other."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from PINNCommonLib import nodes
from vtk.util.numpy_support import vtk_to_numpy

MEASURED = "measured"
GREY, RED = (0.15, 0.15, 0.15), (0.80, 0.25, 0.10)
OVER_TIME = (("measured", "time", "measured", GREY, True), ("fitted", "time", "fitted", RED, False))  # name, x, y, colour, dots or line
ONE_AGAINST_OTHER = (("nodes", "measured", "fitted", GREY, True), ("equal", "measured", "equal", RED, False))


def build(model, fitted, name: str, unit: str) -> dict[str, object]:
    """The plot's nodes, made once for an output model; empty where the input has nothing on its nodes to compare with."""
    data = model.GetMesh().GetPointData()
    if data.GetArray(MEASURED) is None:
        return {}
    over_time = data.GetArray("V") is not None
    plot = {
        "traces": _node(model, "traces", "vtkMRMLTableNode", f"{name} traces"),
        "chart": _node(model, "chart", "vtkMRMLPlotChartNode", f"{name} measured and fitted"),
    }
    plot["chart"].SetXAxisTitle(f"time ({unit})" if over_time else f"measured activation time ({unit})")
    plot["chart"].SetYAxisTitle("V (0 at rest, 1 at the peak)" if over_time else f"fitted activation time ({unit})")
    kind = slicer.vtkMRMLPlotSeriesNode
    for title, x, y, color, dots in OVER_TIME if over_time else ONE_AGAINST_OTHER:
        series = _node(model, f"series.{title}", "vtkMRMLPlotSeriesNode", title)
        series.SetAndObserveTableNodeID(plot["traces"].GetID())
        series.SetPlotType(kind.PlotTypeScatter)  # a line is a scatter plot with a line and no marker
        series.SetXColumnName(x)
        series.SetYColumnName(y)
        series.SetMarkerStyle(kind.MarkerStyleCircle if dots else kind.MarkerStyleNone)
        series.SetLineStyle(kind.LineStyleNone if dots else kind.LineStyleSolid)
        series.SetColor(*color)
        if not plot["chart"].HasPlotSeriesNodeID(series.GetID()):
            plot["chart"].AddAndObservePlotSeriesNodeID(series.GetID())
    if over_time:
        show_trace(model, most_observed(model))
    else:
        _scatter(model, plot)
    return plot


def has_traces(model) -> bool:
    """Whether the result holds V over time, of which a place can be chosen."""
    return model is not None and model.GetMesh() is not None and model.GetMesh().GetPointData().GetArray("V") is not None


def node_at(model, ras) -> int:
    """The mesh node nearest to a place in world RAS mm."""
    to_local = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, model.GetParentTransformNode(), to_local)
    local = np.array(to_local.TransformPoint(list(ras)))
    points = vtk_to_numpy(model.GetMesh().GetPoints().GetData())
    return int(np.argmin(((points - local) ** 2).sum(axis=1)))


def show_trace(model, index: int) -> bool:
    """Measured and fitted V of one mesh node; False where the result has none."""
    table, chart = model.GetNodeReference("PINN.traces"), model.GetNodeReference("PINN.chart")
    if not has_traces(model) or table is None or chart is None:
        return False
    data = model.GetMesh().GetPointData()
    columns = {
        "time": vtk_to_numpy(model.GetMesh().GetFieldData().GetArray("times")),
        "measured": vtk_to_numpy(data.GetArray(MEASURED))[index],
        "fitted": vtk_to_numpy(data.GetArray("V"))[index],
    }
    nodes.fill_table(table, {name: [float(value) for value in values] for name, values in columns.items()})
    chart.SetTitle(f"node {index}")
    return True


def most_observed(model) -> int:
    """The mesh node with the most samples of V: the first one to look at."""
    return int(np.isfinite(vtk_to_numpy(model.GetMesh().GetPointData().GetArray(MEASURED))).sum(axis=1).argmax())


def _scatter(model, plot) -> None:
    data = model.GetMesh().GetPointData()
    measured, fitted = (vtk_to_numpy(data.GetArray(name)).astype(float) for name in (MEASURED, "LAT"))
    use = np.isfinite(measured) & (vtk_to_numpy(data.GetArray("status")) != 0)
    order = np.flatnonzero(use)[np.argsort(measured[use], kind="stable")]
    columns = {"measured": measured[order], "fitted": fitted[order], "equal": measured[order]}
    nodes.fill_table(plot["traces"], {name: list(values) for name, values in columns.items()})
    plot["chart"].SetTitle(f"{len(order)} nodes with a measured time")


def _node(model, role: str, kind: str, name: str):
    node = model.GetNodeReference(f"PINN.{role}") or slicer.mrmlScene.AddNewNodeByClass(kind)
    node.SetName(name)
    model.SetNodeReferenceID(f"PINN.{role}", node.GetID())
    return node
