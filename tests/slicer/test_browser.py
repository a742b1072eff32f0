"""L4: maps in a browser by real clicks, with slice and 3D rendering. Runs where PINN_BROWSER_PYTHON names a Python that has
trame-slicer[standalone], nibabel and playwright, and where chromium is installed. See docs/slicer.md."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("PINN_BROWSER_PYTHON")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not (PYTHON and CHROMIUM), reason="PINN_BROWSER_PYTHON names no Python with trame-slicer, or no chromium")
HERE = Path(__file__).resolve().parent


def perfusion(folder: Path) -> Path:
    """M0 and maps on an oblique, anisotropic grid: a ball of tissue with a known median."""
    import nibabel

    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.array([[-3 * c, -3 * s, 0, 60], [-3 * s, 3 * c, 0, -50], [0, 0, 5, -40], [0, 0, 0, 1.0]])
    i, j, k = np.indices((32, 36, 16))
    ball = ((i - 15.5) / 13) ** 2 + ((j - 17.5) / 15) ** 2 + ((k - 7.5) / 7) ** 2 < 1
    core = ((i - 15.5) / 8) ** 2 + ((j - 17.5) / 9) ** 2 + ((k - 7.5) / 4) ** 2 < 1
    for name, inner, outer in (("sub-01_m0scan", 900, 1200), ("sub-01_cbf", 25, 60), ("sub-01_att", 1.4, 0.9)):
        values = np.where(ball, np.where(core, inner, outer), 0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
    return folder


def heart(folder: Path) -> Path:
    """The sample with its true speed and times, as the engine would write it."""
    import vtk
    from heart_models import EXTENSION  # noqa: F401  # puts the module's folder on the path
    from PINNElectrophysiologyLib.sample import shell
    from vtk.util.numpy_support import numpy_to_vtk

    mesh, LAT, CV = shell()
    mesh.GetPointData().Initialize()
    for name, values in (("CV", CV), ("D", CV**2), ("LAT", LAT), ("status", np.ones(len(CV)))):
        array = numpy_to_vtk(values, deep=True)
        array.SetName(name)
        mesh.GetPointData().AddArray(array)
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetFileName(str(folder / "heart_cardiac.vtp"))
    writer.SetInputData(mesh)
    writer.Write()
    return folder / "heart_cardiac.vtp"


def test_clicks_show_the_maps(shim, tmp_path):
    maps, model = perfusion(tmp_path), heart(tmp_path)
    call = [PYTHON, str(HERE / "browser" / "clicks.py"), CHROMIUM, str(tmp_path / "pictures"), "--m0", str(maps / "sub-01_m0scan.nii.gz")]
    env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "QT_QPA_PLATFORM", "PYTHONPATH")}
    run = subprocess.run([*call, "--maps", str(maps), "--heart", str(model)], capture_output=True, text=True, timeout=280, env=env)
    sys.stderr.write(run.stderr[-3000:])
    assert run.returncode == 0
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["show-cbf"] == "Cerebral blood flow: median 60 mL/100 g/min"
    assert said["color-CV"] == "Conduction velocity: colours from 0.00 to 0.80 m/s"
    assert said["changed"]["show-cbf"] > 0.02  # share of the picture that the click changed
    assert said["changed"]["color-CV"] > 0.005
