"""Maps lie on the input's grid, voxel for voxel, whatever the grid and the format."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from runs import run

from pinn_engine.asl.phantom import make
from pinn_engine.asl.phantom.bids import sidecar

SHAPE = (9, 8, 6)
TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
GRIDS = {
    "right-handed": np.diag([16.0, 16, 16]),
    "left-handed": np.diag([-16.0, 16, 16]),
    "oblique": TURN @ TILT @ np.diag([16.0, 16, 16]),
    "anisotropic": np.diag([3.4, 3.4, 8.0]),
    "oblique, left-handed, anisotropic": TURN @ TILT @ np.diag([-3.4, 3.4, 8.0]),
    "sagittal": np.array([[0, 0, 8.0], [-3.4, 0, 0], [0, 3.4, 0]]),
}


@pytest.fixture(scope="module")
def phantom():
    return make(SHAPE, seed=3, repeats=1, plds=(0.6, 1.4, 2.2))


def write(folder: Path, phantom, axes: np.ndarray, kind: str) -> dict[str, Path]:
    """Series and mask on a grid with these axes (RAS+), as .nii.gz or .nrrd (volumes as components, as 3D Slicer keeps them)."""
    folder.mkdir()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (30, -20, 10)
    n = phantom.control.shape[3]
    series = np.stack([phantom.control, phantom.label], axis=-1).reshape(*SHAPE, 2 * n)
    paths = {}
    for name, data in (("sub-01_asl", series), ("mask", phantom.mask)):
        path = paths[name] = folder / f"{name}.{kind}"
        if kind == "nii.gz":
            nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
            continue
        image = sitk.GetImageFromArray(np.moveaxis(data.astype(np.float32), (0, 1, 2), (2, 1, 0)), isVector=data.ndim == 4)
        lps = np.diag([-1.0, -1, 1]) @ axes
        image.SetSpacing(np.linalg.norm(lps, axis=0).tolist())
        image.SetDirection((lps / np.linalg.norm(lps, axis=0)).ravel().tolist())
        image.SetOrigin((-30.0, 20.0, 10.0))
        sitk.WriteImage(image, str(path))
    (folder / "sub-01_asl.json").write_text(json.dumps(sidecar(phantom) | {"M0Type": "Estimate", "M0Estimate": 1000.0}))
    (folder / "sub-01_aslcontext.tsv").write_text("volume_type\n" + "control\nlabel\n" * n)
    return paths | {"affine": affine}


def maps(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: nib.load(path).get_fdata() for path in folder.glob("*.nii.gz")}


@pytest.fixture(scope="module")
def reference(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    paths = write(folder / "in", phantom, GRIDS["right-handed"], "nii.gz")
    assert run("asl", paths["sub-01_asl"], "--out", folder / "out", "--mask", paths["mask"], "--method", "nlls") == 0
    return maps(folder / "out")


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd"])
@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS.keys())
def test_outputs_carry_the_input_s_geometry(axes, kind, phantom, reference, tmp_path):
    paths = write(tmp_path / "in", phantom, axes, kind)
    assert run("asl", paths["sub-01_asl"], "--out", tmp_path / "out", "--mask", paths["mask"], "--method", "nlls") == 0
    found = maps(tmp_path / "out")
    assert found.keys() == reference.keys()
    for name, data in found.items():
        np.testing.assert_array_equal(data, reference[name], err_msg=name)  # voxelwise: nothing depends on the grid
        image = nib.load(tmp_path / "out" / name)
        np.testing.assert_allclose(image.affine, paths["affine"], atol=1e-4)
        np.testing.assert_allclose(image.get_qform() if image.header["qform_code"] else image.affine, paths["affine"], atol=1e-4)
    assert found["sub-01_cbf.nii.gz"].any()
