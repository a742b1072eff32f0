"""DICOM folders: voxels where they belong, timings only where the files are sure of them, nothing of the patient."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_series import PATIENT, write_series

from pinn_engine.asl.acquisition import AcquisitionOptions
from pinn_engine.asl.scan import read
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files import dicom

pytest.importorskip("dcm2niix")

SHAPE, PLDS = (7, 6, 4), (0.5, 1.0, 1.5)
LEFT = np.array([[-3.0, 0, 0, 20], [0, 3.5, 0, -15], [0, 0, 5.0, 7], [0, 0, 0, 1.0]])
TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN @ TILT @ np.diag([2.5, 3.0, 6.0]), (-9, 4, -12)
CORONAL = np.array([[3.0, 0, 0, -10], [0, 0, 5.0, 4], [0, -3.0, 0, 20], [0, 0, 0, 1.0]])
GRIDS = {"left-handed": LEFT, "oblique": OBLIQUE, "coronal": CORONAL}

PCASL = [(0x18, 0x9250, "CS", "PSEUDOCONTINUOUS"), (0x18, 0x9258, "UL", 1800)]


def series(repeats: int = 2) -> np.ndarray:
    """(X, Y, Z, V) whole numbers, another in every voxel and volume; control and label alternate."""
    first = 1000 + np.arange(np.prod(SHAPE)).reshape(SHAPE) * 3
    return np.stack([first + 600 * (v % 2 == 0) + v for v in range(2 * len(PLDS) * repeats)], axis=-1)


def inversions(repeats: int = 2):
    return [[(0x18, 0x82, "DS", 1000 * pld)] for pld in PLDS * repeats for _ in "CL"]


TIMED = AcquisitionOptions(plds=PLDS * 2, volumes="control-label")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A pCASL series and its M0, as exported: one folder."""
    write_series(tmp_path / "export", series(), LEFT, extra=PCASL, per_volume=inversions())
    return write_series(tmp_path / "export", series()[..., 0] * 2, LEFT, number=6, description="M0 calibration")


def at_millimetres(data: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], np.ndarray]:
    """What stands at each place."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in data.shape[:3]), indexing="ij"), axis=-1).reshape(-1, 3)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    return dict(zip(map(tuple, (places.round(2) + 0.0).tolist()), data.reshape(len(index), -1), strict=True))


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS.keys())
def test_every_voxel_of_every_volume_is_where_it_was(affine, tmp_path):
    data, grid, sidecar, name = dicom.read(write_series(tmp_path / "d", series(), affine))
    before, after = at_millimetres(series(), affine), at_millimetres(data, grid.affine)
    assert name == "5"
    assert before.keys() == after.keys()
    for place, values in before.items():
        np.testing.assert_array_equal(after[place], values)
    assert (grid.qform_code, grid.sform_code) == (1, 1)
    assert sidecar.number("MagneticFieldStrength") == 3


def test_a_folder_is_fitted_like_a_file(folder, tmp_path):
    call = ["asl", folder, "--series", "5", "--m0-series", "6", "--plds", "0.5,1,1.5,0.5,1,1.5", "--volumes", "control-label"]
    assert main([str(c) for c in [*call, "--out", tmp_path / "out", "--method", "nlls"]]) == 0
    cbf = nib.load(tmp_path / "out" / "series-5_cbf.nii.gz")
    assert at_millimetres(cbf.get_fdata(), cbf.affine).keys() == at_millimetres(series(), LEFT).keys()
    constants = json.loads((tmp_path / "out" / "series-5_cbf.json").read_text())["Constants"]
    assert constants["labeling"] == {"Value": "PCASL", "Units": "", "Origin": "DICOM series 5: ArterialSpinLabelingType"}
    assert constants["label_duration"]["Value"] == 1.8  # (0018,9258), which dcm2niix calls a delay
    assert constants["post_labeling_delay"]["Origin"] == "option --plds"
    assert constants["m0_repetition_time"] == {"Value": 4.8, "Units": "s", "Origin": "DICOM series 6: RepetitionTime"}


def test_nothing_of_the_patient_is_written_and_no_temporary_file_stays(folder, tmp_path, monkeypatch):
    renamed = folder.rename(folder.parent / "QUILLON_19700131")  # a folder called after the patient
    call = ["asl", renamed, "--series", "5", "--m0-series", "6", "--plds", "0.5,1,1.5,0.5,1,1.5", "--volumes", "control-label"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert main([str(c) for c in [*call, "--out", tmp_path / "out", "--method", "nlls"]]) == 0
    assert not list((tmp_path / "temporary").iterdir())
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 15
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        secrets = [PATIENT.split("^")[0], "774411", "20200101", "101010"]
        secrets += ["19700131", "QUILLON"] * (file.parent.name != "logs")  # the log holds the call as it was given
        for secret in secrets:
            assert secret.encode() not in content, f"{secret} in {file.name}"
            assert secret not in file.name


def test_a_bids_name_of_the_folder_is_kept(folder):
    renamed = folder.rename(folder.parent / "sub-07_run-2_asl")
    scan = read(renamed, series="5", options=TIMED)
    assert (scan.prefix, scan.source) == ("sub-07_run-2", "DICOM series 5")


def test_a_protocol_file_beside_the_folder_says_what_the_elements_do_not(folder):
    delays = [pld for pld in PLDS * 2 for _ in "CL"]
    Path(f"{folder}.json").write_text(json.dumps({"PostLabelingDelay": delays, "LabelingDuration": 1.5}))
    Path(f"{folder}_aslcontext.tsv").write_text("volume_type\n" + "control\nlabel\n" * 6)
    scan = read(folder, series="5")
    np.testing.assert_array_equal(scan.acquisition.pld, PLDS * 2)
    np.testing.assert_array_equal(scan.acquisition.label_duration, 1.5)
    assert scan.acquisition.origins["label_duration"].origin == "export.json: LabelingDuration"
    assert scan.difference.min() > 0


def test_one_delay_that_nothing_contradicts_is_used(tmp_path):
    """GE: label duration and delay have elements of their own."""
    ge = [(8, 0x70, "LO", "GE MEDICAL SYSTEMS"), (0x18, 0x9250, "CS", "PSEUDOCONTINUOUS"), (0x18, 0x82, "DS", 2025)]
    private = [(0x43, 0x10, "LO", "GEMS_PARM_01"), (0x43, 0x10A5, "IS", 1450)]
    path = write_series(tmp_path / "ge", series(1), LEFT, extra=[*ge, *private])
    scan = read(path, options=AcquisitionOptions(volumes="control-label"))
    np.testing.assert_allclose(scan.acquisition.pld, 2.025)
    np.testing.assert_allclose(scan.acquisition.label_duration, 1.45)
    assert scan.acquisition.origins["post_labeling_delay"].origin == "DICOM series 5: PostLabelingDelay"


TWO = [(0x18, 0x9250, "CS", "PSEUDOCONTINUOUS"), (0x18, 0x82, "DS", 2000), (0x18, 0x9258, "UL", 800)]
DOUBTS = {  # elements of all files, of each volume: what the line must say
    "no delay": ([(0x18, 0x9250, "CS", "PSEUDOCONTINUOUS")], None, "no such elements|--plds, --label-duration"),
    "only the label duration": (PCASL, None, "1.8 s, which is the label duration of element (0018,9258)|give --plds"),
    "its value as the delay": (TWO, None, "0.8 s, which is the label duration|give --plds"),
    "a delay a volume, one in the sidecar": (PCASL, inversions(), "3 inversion times in the files (0.5, 1, 1.5 s)|give --plds"),
    "no labelling": ([], None, "--labeling, --plds and --label-duration (PASL: --tis and --bolus-duration)"),
    "pulsed": ([(0x18, 0x9250, "CS", "PULSED")], None, "--tis, --bolus-duration"),
}


@pytest.mark.parametrize(("extra", "per_volume", "words"), DOUBTS.values(), ids=DOUBTS.keys())
def test_delays_that_are_absent_or_conflict_are_asked_for(extra, per_volume, words, tmp_path):
    path = write_series(tmp_path / "d", series(), LEFT, extra=extra, per_volume=per_volume)
    with pytest.raises(InputError) as caught:
        read(path, options=AcquisitionOptions(volumes="control-label"))
    assert "DICOM series 5" in str(caught.value)
    for word in words.split("|"):
        assert word in str(caught.value)


def test_a_field_that_dcm2niix_writes_twice_is_in_doubt(tmp_path):
    file = tmp_path / "5.json"
    file.write_text('{"PostLabelingDelay": 2.0, "Modality": "MR", "PostLabelingDelay": 1.8}')
    pairs = dicom._pairs(file)
    assert [value for name, value in pairs if name == "PostLabelingDelay"] == [2.0, 1.8]
    one = dicom.Series("5", "", "", file, dict(pairs), {"PostLabelingDelay": [2.0, 1.8]})
    assert dicom._doubts(one, dicom.Elements(1, 1, set(), set(), set()), dict(pairs)) == {"PostLabelingDelay": "2.0 and 1.8"}


def test_a_series_that_becomes_several_images_is_chosen_by_count(tmp_path):
    """Two studies in one folder with the same series number."""
    write_series(tmp_path / "d" / "a", series(1), LEFT)
    other = [(0x20, 0xE, "UI", "1.2.826.0.1.3680043.10.1.7.5"), (0x20, 0xD, "UI", "1.2.826.0.1.3680043.10.1.7")]
    write_series(tmp_path / "d" / "b", series(1) + 7, LEFT, extra=other)
    with pytest.raises(InputError, match=r"2 series, found 5-1 .*5-2 .*--series"):
        dicom.read(tmp_path / "d")
    one, two = (dicom.read(tmp_path / "d", series=name)[0] for name in ("5-1", "5-2"))
    np.testing.assert_array_equal(np.abs(two - one), 7)


def test_without_dcm2niix_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"needs dcm2niix, found not installed; .*pinn-engine\[dicom\]"):
        dicom.read(write_series(tmp_path / "d", series(1), LEFT))
