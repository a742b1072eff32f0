"""Small hearts as model nodes, and what an engine would have written for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
EXTENSION = HERE.parents[1] / "slicer_pinn"
for _folder in ("PINNCommon", "PINNElectrophysiology"):
    if str(EXTENSION / _folder) not in sys.path:
        sys.path.append(str(EXTENSION / _folder))


def polydata(points, cells, **arrays):
    """Triangles with point data."""
    from pinn_engine.files.mesh import Mesh
    from pinn_engine.files.vtkmesh import to_vtk

    return to_vtk(Mesh(np.asarray(points, float), np.asarray(cells), dict(arrays)))


def sheet(n: int = 8, step: float = 2.0, shift=(30.0, -50.0, 70.0)):
    """(points, cells) of a flat sheet far from the origin: turned by 180 degrees about z it lies elsewhere."""
    x, y = np.meshgrid(np.arange(n) * step, np.arange(n) * step, indexing="ij")
    points = np.stack([x, y, 0.1 * x], axis=-1).reshape(-1, 3) + shift
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = (part.ravel() for part in (at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]))
    return points, np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def model_node(name: str = "heart map", speed: float = 0.5, **arrays):
    """A sheet with activation times of a plane wave along x (mm / ms = m/s), and more arrays."""
    import slicer

    points, cells = sheet()
    LAT = (points[:, 0] - points[:, 0].min()) / speed
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAndObserveMesh(polydata(points, cells, **({"LAT": LAT} | arrays)))
    node.CreateDefaultDisplayNodes()
    return node


def pretend_fit(folder: Path, model, *, with_V: bool = False) -> None:
    """Write into folder/out what the engine writes, with simple numbers: enough for what becomes nodes of it."""
    import nibabel
    from PINNElectrophysiologyLib.inputs import prefix

    from pinn_engine.files.mesh import Mesh
    from pinn_engine.files.vtkmesh import write

    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    points, cells = sheet()
    count = len(points)
    arrays = {key: np.linspace(low, high, count).astype(np.float32) for key, (low, high) in RANGES.items()}
    arrays["status"] = np.ones(count, np.uint8)
    fields = {}
    if with_V:
        arrays["V"] = np.tile(np.linspace(0, 1, 5, dtype=np.float32), (count, 1))
        fields["times"] = np.arange(5.0)
    name = prefix(model)
    write(Mesh(points, cells, arrays, {}, fields, space="RAS"), out / f"{name}_cardiac.vtp")
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = points.min(axis=0)
    for key in RANGES:
        image = nibabel.Nifti1Image(np.zeros((8, 5, 2), np.float32), affine)
        np.asarray(image.dataobj)[:] = arrays[key][: 8 * 5 * 2].max()
        image.dataobj[0] = 0.0
        file = f"{name}_desc-std_{key[:-4]}.nii.gz" if key.endswith("_std") else f"{name}_{key}.nii.gz"
        nibabel.save(image, out / file)
    numbers = {"k": {"value": 8.0, "std": 0.0, "unit": "1", "status": "given"}}
    (out / f"{name}_parameters.json").write_text(json.dumps({"parameters": numbers, "Fit": {"seed": 0}, "Notes": ["a note"]}))


RANGES = {"CV": (0.3, 0.7), "CV_std": (0.01, 0.1), "D": (1.0, 2.0), "D_std": (0.1, 0.4), "LAT": (1.0, 28.0), "LAT_std": (0.5, 1.0)}
