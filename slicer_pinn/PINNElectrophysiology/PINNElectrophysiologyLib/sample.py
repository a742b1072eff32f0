"""A sample made on the spot: an egg-shaped shell with activation times at some nodes, whose true speed is known everywhere.

The wave starts at the tip of a surface of revolution, so its paths are the meridians and the activation time is the integral of ds / CV
along them: exact, whatever the band of slow conduction round the middle.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

LENGTH, WIDTH = 30.0, 20.0  # mm, half axes
FAST, SLOW = 0.8, 0.4  # m/s
BAND = (0.45, 0.65)  # of the way from tip to tip
RINGS, AROUND = 40, 64
SHARE, NOISE = 0.25, 2.0  # of the nodes that carry a time; ms


def shell(rings: int = RINGS, around: int = AROUND, share: float = SHARE, noise: float = NOISE, seed: int = 0):
    """(polydata in RAS with point data LAT and truth_CV, true LAT (N,) ms, true CV (N,) m/s)."""
    angle = np.linspace(0.0, np.pi, 4001)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(LENGTH * np.cos(angle)), np.diff(WIDTH * np.sin(angle))))])
    part = way / way[-1]
    speed = np.where((part > BAND[0]) & (part < BAND[1]), SLOW, FAST)
    late = np.concatenate([[0.0], np.cumsum(np.diff(way) / (0.5 * (speed[1:] + speed[:-1])))])
    at = np.interp(np.linspace(0.0, way[-1], rings + 1), way, angle)
    turn = 2.0 * np.pi * np.arange(around) / around
    ring = np.repeat(at[1:-1], around)
    points = [
        (LENGTH, 0.0, 0.0),
        *zip(
            LENGTH * np.cos(ring),
            WIDTH * np.sin(ring) * np.cos(np.tile(turn, rings - 1)),
            WIDTH * np.sin(ring) * np.sin(np.tile(turn, rings - 1)),
            strict=True,
        ),
        (-LENGTH, 0.0, 0.0),
    ]
    where = np.concatenate([[at[0]], ring, [at[-1]]])
    LAT, CV = np.interp(where, angle, late), np.interp(where, angle, speed)
    generator = np.random.default_rng(seed)
    seen = np.where(generator.random(len(LAT)) < share, LAT + noise * generator.normal(size=len(LAT)), np.nan)
    mesh = vtk.vtkPolyData()
    vtk_points = vtk.vtkPoints()
    vtk_points.SetData(numpy_to_vtk(np.array(points), deep=True))
    mesh.SetPoints(vtk_points)
    mesh.SetPolys(_triangles(rings, around))
    for name, values in (("LAT", seen), ("truth_CV", CV)):
        array = numpy_to_vtk(values, deep=True)
        array.SetName(name)
        mesh.GetPointData().AddArray(array)
    return mesh, LAT, CV


def make_node(name: str = "PINN heart sample", **options):
    """The shell as a model node, coloured by its activation times."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAndObserveMesh(shell(**options)[0])
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetActiveScalar("LAT", vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarVisibility(True)
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    display.SetScalarRange(0.0, 140.0)
    return node


def _triangles(rings: int, around: int):
    last = 1 + (rings - 1) * around
    cells = vtk.vtkCellArray()
    for i in range(around):
        j = (i + 1) % around
        _add(cells, 0, 1 + i, 1 + j)
        _add(cells, last, last - around + j, last - around + i)
        for ring in range(rings - 2):
            a, b = 1 + ring * around + i, 1 + ring * around + j
            _add(cells, a, a + around, b)
            _add(cells, b, a + around, b + around)
    return cells


def _add(cells, *corners: int) -> None:
    cells.InsertNextCell(3)
    for corner in corners:
        cells.InsertCellPoint(corner)
