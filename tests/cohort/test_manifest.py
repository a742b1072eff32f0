"""The table of a study and the series of a BIDS dataset."""

from __future__ import annotations

import pytest

from pinn_engine.cohort.manifest import read_manifest
from pinn_engine.errors import InputError
from pinn_engine.files.dataset import find_series

KNOWN = ("m0", "label-duration", "mask")


def write(folder, text, name="study.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows(tmp_path):
    path = write(tmp_path, '\ufeffid,input,--label_duration,mask\r\nMüller 1,"a, b.nii",1.8,\r\n\r\nx,../c.nii,"0.2,0.4",m.nii\r\n')
    first, second = read_manifest(path, KNOWN)
    assert (first.id, first.input, first.options, first.line) == ("Müller 1", str(tmp_path / "a, b.nii"), {"label-duration": "1.8"}, 2)
    assert second.options == {"label-duration": "0.2,0.4", "mask": "m.nii"}
    (row,) = read_manifest(write(tmp_path, "id\tinput\tm0\n1\tx.nii\t100\n", "t.tsv"), KNOWN)
    assert row.options == {"m0": "100"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "has no column id, found an empty file"),
        ("id,scan\n1,x", "has no column input, found id, scan"),
        ("id;input\n1;x", "cells are parted by commas or tabs, not by semicolons"),
        ("id,input,mask_\n1,x,y", "has an unknown column, found mask-; did you mean mask"),
        ("id,input,m0,--m0\n1,x,1,2", "has a column twice, found m0"),
        ("id,input\n1,x,3", "line 2 has 3 cells for 2 columns"),
        ("id,input\n../1,x", "line 2: id: is no usable identifier"),
        ("id,input\n1,", "line 2: has no input"),
        ("id,input\n", "has no subjects"),
        (b"id,input\n\xff,x", "is not UTF-8 text"),
    ],
)
def test_bad_manifest(text, line, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_manifest(path, KNOWN)
    assert str(caught.value).startswith(str(path))
    assert line in str(caught.value)


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match="cannot be read, found No such file"):
        read_manifest(tmp_path / "none.csv", KNOWN)


@pytest.fixture
def dataset(tmp_path):
    names = ["sub-01/perf/sub-01_asl.nii.gz", "sub-01/perf/sub-01_run-2_asl.nii", "sub-02/ses-a/perf/sub-02_ses-a_asl.nii.gz"]
    others = ["sub-01/perf/sub-01_m0scan.nii.gz", "sub-03/anat/sub-03_T1w.nii", "derivatives/x/sub-01/perf/sub-01_asl.nii", "sub-9_asl.nii"]
    for name in [*names, "sub-02/ses-b/perf/sub-02_ses-b_asl.nii", *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("participants", "sessions", "found"),
    [
        ((), (), ["sub-01", "sub-01_run-2", "sub-02_ses-a", "sub-02_ses-b"]),
        (("01",), (), ["sub-01", "sub-01_run-2"]),
        (("sub-02",), ("ses-b",), ["sub-02_ses-b"]),
        ((), ("a",), ["sub-02_ses-a"]),
    ],
)
def test_series(dataset, participants, sessions, found):
    series = find_series(dataset, participants, sessions)
    assert [one.id for one in series] == found
    assert all(one.path.is_file() for one in series)
    assert series[-1].where.endswith("perf")


@pytest.mark.parametrize(
    ("participants", "sessions", "line"),
    [
        (("04",), (), "--participant-label is not in the dataset, found 04; there are: 01, 02, 03"),
        ((), ("c",), "--session-label is not in the dataset, found c; there are: a, b"),
        (("03",), (), "holds no ASL series"),
    ],
)
def test_labels_that_are_not_there(dataset, participants, sessions, line):
    with pytest.raises(InputError, match=line):
        find_series(dataset, participants, sessions)


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="the dataset does not exist"):
        find_series(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the dataset is no folder"):
        find_series(tmp_path / "file")
