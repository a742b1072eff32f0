"""Images keep their values, their place and their header codes; the same input gives the same bytes."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.errors import InputError
from pinn_engine.files import nifti
from pinn_engine.files.grid import Grid

AFFINE = np.array([[0, -2.0, 0.1, 5], [2.0, 0, 0, -3], [0, 0.1, 4.0, 1], [0, 0, 0, 1]])
DATA = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("suffix", nifti.SUFFIXES)
@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (0, 2), (1, 0), (3, 4), (0, 0)])
def test_round_trip_keeps_values_affine_and_codes(tmp_path, suffix, qform, sform):
    straight = np.diag([2.0, 2, 4, 1]) + np.array([[0, 0, 0, 5.0], [0, 0, 0, -3], [0, 0, 0, 1], [0, 0, 0, 0]])
    affine = AFFINE if sform else straight  # a qform cannot hold shears
    path = tmp_path / f"x{suffix}"
    path.write_bytes(nifti.encode(DATA, Grid((2, 3, 4), affine, qform, sform), compress=suffix.endswith("gz")))
    data, grid = nifti.read(path)
    np.testing.assert_array_equal(data, DATA)
    assert (grid.qform_code, grid.sform_code) == (qform, sform)
    if qform or sform:  # with neither code the header says that its place is not known
        np.testing.assert_allclose(grid.affine, affine, atol=1e-5)
    header = nib.load(path).header
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header.get_data_dtype() == np.float32


def test_the_scanner_slope_is_applied(tmp_path):
    image = nib.Nifti1Image(np.array([[[0, 100, 200]]], np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "x.nii")
    raw = bytearray((tmp_path / "x.nii").read_bytes())
    raw[112:120] = np.array([0.5, 3], "<f4").tobytes()  # nibabel rescales on saving: set scl_slope, scl_inter by hand
    raw[352:358] = np.array([0, 100, 200], "<i2").tobytes()
    (tmp_path / "x.nii").write_bytes(raw)
    np.testing.assert_allclose(nifti.read(tmp_path / "x.nii")[0].ravel(), [3, 53, 103])


def test_bytes_are_the_same_every_time_and_name_no_file_or_date():
    grid = Grid((2, 3, 4), AFFINE)
    first, second = nifti.encode(DATA, grid), nifti.encode(DATA.copy(order="F"), grid)
    assert first == second
    assert first[3] == 0  # gzip flags: no file name
    assert first[4:8] == bytes(4)  # gzip time stamp
    assert len(gzip.decompress(first)) == 352 + DATA.size * 4


def test_labels_are_uint8_and_masks_count_as_labels(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(nifti.encode(DATA > 3, Grid((2, 3, 4), AFFINE), labels=True))
    image = nib.load(tmp_path / "x.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), DATA > 3)


REFUSED = {
    "NaN": (np.where(DATA == 3, np.nan, DATA), False),
    "Inf": (np.where(DATA == 3, np.inf, DATA), False),
    "beyond float32": (DATA.astype(float) * 1e39, False),
    "another grid": (DATA[:1], False),
    "labels above 255": (DATA + 250, True),
    "labels between whole numbers": (DATA + 0.5, True),
    "negative labels": (DATA - 1, True),
}


@pytest.mark.parametrize(("data", "labels"), REFUSED.values(), ids=REFUSED.keys())
def test_what_must_never_be_written(data, labels):
    with pytest.raises(ValueError, match=r"finite|fit|labels"):
        nifti.encode(data, Grid((2, 3, 4), AFFINE), labels=labels)


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    nib.save(nib.Nifti1Image(DATA.reshape(2, 3, 4, 1), AFFINE), tmp_path / "x.nii")
    assert nifti.read(tmp_path / "x.nii", ndim=(3,))[0].shape == (2, 3, 4)
    assert nifti.read(tmp_path / "x.nii")[0].shape == (2, 3, 4, 1)


def test_a_damaged_affine_is_refused(tmp_path):
    image = nib.Nifti1Image(DATA, np.eye(4))
    image.header["sform_code"], image.header["srow_x"] = 1, np.nan
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    with open(tmp_path / "x.nii", "r+b") as stream:
        stream.seek(280)  # srow_x
        stream.write(np.full(4, np.nan, "<f4").tobytes())
    with pytest.raises(InputError, match="affine"):
        nifti.read(tmp_path / "x.nii")


def test_other_formats_are_refused(tmp_path):
    nib.save(nib.MGHImage(DATA, AFFINE), tmp_path / "x.mgz")
    with pytest.raises(InputError, match="not NIfTI"):
        nifti.read(tmp_path / "x.mgz")


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (0.1, True), (0.5, False)])
def test_grids_match_within_a_tenth_of_a_voxel(shift, same):
    moved = AFFINE.copy()
    moved[0, 3] += shift
    assert Grid((2, 3, 4), AFFINE).matches(Grid((2, 3, 4), moved)) is same
    assert not Grid((2, 3, 4), AFFINE).matches(Grid((2, 3, 5), AFFINE))
