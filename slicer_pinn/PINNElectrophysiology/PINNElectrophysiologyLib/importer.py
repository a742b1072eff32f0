"""CARTO 3, openCARP and VTK files as model nodes, read by the engine's readers in a process of their own.

Slicer reads no CARTO and no openCARP files, and of a .vtk file only some of the arrays; after this the arrays (activation times, V, the
measured points of CARTO, fibres) are on the node, where the panel shows them by name.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import slicer
import vtk
from PINNCommonLib import engine
from PINNCommonLib.explain import Problem, explain

SCRIPT = Path(__file__).with_name("convert_mesh.py")
SUFFIXES = (".vtk", ".vtp", ".vtu", ".ply", ".stl", ".pts", ".mesh")
LONGEST = 600  # s


def load(path: Path | str, space: str = "LPS"):
    """A model node of a file. `space`: of coordinates where the file does not say; LPS is Slicer's own rule. Raises Problem."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise Problem(f"{path.name}: not a file of this module; it reads {' '.join(SUFFIXES)}.")
    with tempfile.TemporaryDirectory(prefix="pinn-") as folder:
        call = [engine.python(), str(SCRIPT), str(engine.engine_folder()), str(path), folder, space]
        run = subprocess.run(call, capture_output=True, timeout=LONGEST, env=engine.environment(), check=False)
        lines = run.stderr.decode("utf-8", errors="replace").splitlines()
        if run.returncode:
            raise Problem(explain(lines, run.returncode).sentence)
        mesh = _read(next(Path(folder).glob("mesh.vt?")))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", slicer.mrmlScene.GenerateUniqueName(path.stem))
    node.SetAndObserveMesh(mesh)
    node.CreateDefaultDisplayNodes()
    node.SetDescription("\n".join(lines))
    return node


def _read(path: Path):
    """The converted file: written by us, points in RAS."""
    reader = vtk.vtkXMLPolyDataReader() if path.suffix == ".vtp" else vtk.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(path))
    reader.Update()
    mesh = reader.GetOutput()
    mesh.GetFieldData().RemoveArray("SPACE")
    return mesh
