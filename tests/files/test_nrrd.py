"""NRRD: voxels where ITK puts them, whatever the axes' order, the space and the encoding; and a file like any other for the fit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pinn_engine.asl.scan import read as read_scan
from pinn_engine.errors import InputError
from pinn_engine.files import load, nifti, nrrd
from pinn_engine.files.grid import Grid

SHAPE = (7, 6, 4)
DATA = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16) * 5 - 300
SERIES = np.stack([DATA + 1000 * v for v in range(6)], axis=-1)
TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
AXES = {
    "right-handed": np.diag([3.0, 3, 5]),
    "left-handed": np.diag([-3.0, 3, 5]),
    "oblique, anisotropic": TURN @ TILT @ np.diag([2.5, 3.0, 6.0]),
    "oblique, left-handed": TURN @ TILT @ np.diag([-2.5, 3.0, 6.0]),
    "sagittal": np.array([[0, 0, 4.0], [-2, 0, 0], [0, 3.0, 0]]),
}


def affine(axes: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = axes, (-20, 15, 7)
    return out


def header(a: np.ndarray, sizes, *, space="left-posterior-superior", first=None, last=None, kind="list", encoding="raw", **more) -> str:
    """NRRD text; `a` is RAS+. `first` or `last`: the number of volumes along an axis before or after the spatial ones."""
    signs = {"left-posterior-superior": (-1, -1, 1), "RAS": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}[space]
    b = np.diag([*signs, 1.0]) @ a
    vectors = [f"({','.join(f'{x:.12g}' for x in b[:3, i])})" for i in range(3)]
    kinds = ["domain"] * 3
    for place, count in ((0, first), (len(vectors), last)):
        if count is not None:
            vectors.insert(place, "none")
            kinds.insert(place, kind)
            sizes = [*sizes[:place], count, *sizes[place:]]
    fields = {
        "type": "short",
        "dimension": len(sizes),
        "space": space,
        "sizes": " ".join(map(str, sizes)),
        "space directions": " ".join(vectors),
        "kinds": " ".join(kinds),
        "endian": "little",
        "encoding": encoding,
        "space origin": f"({','.join(f'{x:.12g}' for x in b[:3, 3])})",
        **{name.replace("_", " "): value for name, value in more.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["NRRD0005", "# by a test", *lines, "somebody:=own: words"]) + "\n\n"


def write(path: Path, text: str, values: np.ndarray, encoding: str = "raw") -> Path:
    raw = np.asarray(values).tobytes(order="F")
    if encoding == "ascii":
        raw = " ".join(map(str, np.asarray(values).ravel(order="F"))).encode()
    path.write_bytes(text.encode() + (gzip.compress(raw) if encoding == "gzip" else raw))
    return path


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES.keys())
def test_what_itk_writes_is_read_where_itk_put_it(axes, tmp_path):
    lps = np.diag([-1.0, -1, 1]) @ axes
    spacing = np.linalg.norm(lps, axis=0)
    image = sitk.GetImageFromArray(DATA.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps / spacing).ravel().tolist())
    image.SetOrigin((20, -15, 7))
    sitk.WriteImage(image, str(tmp_path / "x.nrrd"), True)
    data, grid = nrrd.read(tmp_path / "x.nrrd")
    np.testing.assert_array_equal(data, DATA)
    np.testing.assert_allclose(grid.affine, affine(axes), atol=1e-9)
    for index in ((0, 0, 0), (6, 5, 3), (2, 4, 1)):
        np.testing.assert_allclose((grid.affine @ [*index, 1])[:3] * (-1, -1, 1), image.TransformIndexToPhysicalPoint(index), atol=1e-6)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES.keys())
def test_every_grid_comes_back_from_nrrd_through_our_nifti(axes, tmp_path):
    path = write(tmp_path / "x.nrrd", header(affine(axes), list(SHAPE)), DATA)
    data, grid = load.read(path)
    (tmp_path / "y.nii").write_bytes(nifti.encode(data, grid, compress=False))
    again, same = nifti.read(tmp_path / "y.nii")
    np.testing.assert_array_equal(again, DATA)
    assert grid.matches(same)
    np.testing.assert_allclose(same.affine, affine(axes), atol=1e-5)
    assert (grid.qform_code, grid.sform_code) == (same.qform_code, same.sform_code) == (1, 1)


VARIANTS = {
    "volumes first (Slicer)": ({"first": 6}, (3, 0, 1, 2)),
    "volumes last": ({"last": 6, "kind": "time"}, (0, 1, 2, 3)),
    "kind vector": ({"first": 6, "kind": "vector"}, (3, 0, 1, 2)),
    "RAS": ({"last": 6, "space": "RAS"}, (0, 1, 2, 3)),
    "LAS": ({"last": 6, "space": "left-anterior-superior"}, (0, 1, 2, 3)),
    "gzip": ({"last": 6, "encoding": "gzip"}, (0, 1, 2, 3)),
    "ascii": ({"last": 6, "encoding": "ascii"}, (0, 1, 2, 3)),
    "after a byte": ({"last": 6, "byte_skip": -1}, (0, 1, 2, 3)),
}


@pytest.mark.parametrize(("made", "order"), VARIANTS.values(), ids=VARIANTS.keys())
def test_the_volume_axis_may_be_anywhere(made, order, tmp_path):
    a = affine(AXES["oblique, left-handed"])
    path = write(tmp_path / "x.nrrd", header(a, list(SHAPE), **made), SERIES.transpose(order), made.get("encoding", "raw"))
    data, grid = nrrd.read(path)
    np.testing.assert_array_equal(data, SERIES)
    np.testing.assert_allclose(grid.affine, a, atol=1e-9)
    assert data.flags.c_contiguous


def test_detached_data_big_endian_and_other_units(tmp_path):
    a = affine(AXES["left-handed"])
    text = header(a, list(SHAPE), data_file="x.raw", endian="big", type="float")
    (tmp_path / "x.nhdr").write_text(text)
    (tmp_path / "x.raw").write_bytes(DATA.astype(">f4").tobytes(order="F"))
    data, grid = nrrd.read(tmp_path / "x.nhdr")
    np.testing.assert_array_equal(data, DATA)
    centimetres = header(np.diag([0.1, 0.1, 0.1, 1]) @ a, list(SHAPE), space_units='"cm" "cm" "cm"')
    _, other = nrrd.read(write(tmp_path / "cm.nrrd", centimetres, DATA))
    np.testing.assert_allclose(other.affine, grid.affine, atol=1e-9)


def test_a_series_with_its_sidecar_is_a_scan_like_the_nifti(tmp_path):
    a = affine(AXES["oblique, anisotropic"])
    control = 1000 + DATA[..., None] % 97 + np.zeros(6, np.int16)
    pairs = np.stack([control, control - 12 - np.arange(6)], axis=-1).reshape(*SHAPE, 12).astype(np.int16)
    about = {
        "ArterialSpinLabelingType": "PCASL", "LabelingDuration": 1.8, "PostLabelingDelay": [p for p in (0.5, 1, 1.5) * 2 for _ in "cl"],
        "BackgroundSuppression": False, "M0Type": "Absent", "MRAcquisitionType": "3D", "RepetitionTimePreparation": 6,
    }  # fmt: skip
    (tmp_path / "scan.json").write_text(json.dumps(about))
    (tmp_path / "scan_aslcontext.tsv").write_text("volume_type\n" + "control\nlabel\n" * 6)
    write(tmp_path / "scan.nrrd", header(a, list(SHAPE), first=12), pairs.transpose(3, 0, 1, 2))
    one = read_scan(tmp_path / "scan.nrrd")
    (tmp_path / "scan.nrrd").rename(tmp_path / "scan.seq.nrrd")
    assert read_scan(tmp_path / "scan.seq.nrrd").prefix == "scan"
    (tmp_path / "scan.nii").write_bytes(nifti.encode(pairs.astype(np.float32), Grid(SHAPE, a), compress=False))
    two = read_scan(tmp_path / "scan.nii")
    np.testing.assert_array_equal(one.difference, two.difference)
    np.testing.assert_array_equal(one.difference[0, 0, 0], 12 + np.arange(6))
    assert one.grid.matches(two.grid)
    assert (one.prefix, two.prefix, one.source) == ("scan", "scan", "scan.nrrd")
    np.testing.assert_array_equal(one.acquisition.pld, two.acquisition.pld)


def test_a_damaged_header_is_read_or_refused_in_one_line(tmp_path):
    """Letters changed, taken out and put in at random: never another exception, never more than a line."""
    a, path, refused = affine(AXES["oblique, left-handed"]), tmp_path / "x.nrrd", []
    sound = write(path, header(a, list(SHAPE), last=6), SERIES).read_bytes()
    end = sound.index(b"\n\n")
    rng = np.random.default_rng(4)
    for _ in range(300):
        damaged = bytearray(sound)
        for at in rng.integers(0, end - 20, rng.integers(1, 5)):
            damaged[at : at + rng.integers(0, 4)] = rng.integers(32, 127, rng.integers(0, 4)).astype("u1").tobytes()
        path.write_bytes(damaged)
        try:
            load.read(path)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("\n" not in line and ";" in line for line in refused)
