"""Names, inheritance and the m0scan that belongs to a series."""

from __future__ import annotations

import json

import pytest

from pinn_engine.errors import InputError
from pinn_engine.files import bids

PREFIXES = {
    "sub-01_asl.nii.gz": "sub-01",
    "sub-01_ses-a_run-2_asl.nii": "sub-01_ses-a_run-2",
    "perfusion.nii.gz": "perfusion",
    "asl.nii.gz": "asl",
    "_asl.nii.gz": "_asl",
    "my.scan_v2.nii": "my.scan_v2",
    "SUB.NII.GZ": "SUB",
}


@pytest.mark.parametrize(("name", "expected"), PREFIXES.items())
def test_prefix(name, expected):
    assert bids.prefix("/somewhere/" + name) == expected


def test_entities_and_suffix():
    assert bids.entities("sub-01_ses-a_run-2_asl.nii.gz") == {"sub": "01", "ses": "a", "run": "2"}
    assert bids.entities("my_scan.nii.gz") == {}
    assert (bids.suffix("sub-01_asl.nii.gz"), bids.suffix("sub-01.nii.gz")) == ("asl", "")


def dataset(root, files):
    """Write files given as path: JSON value or text; images are empty, for only their names matter here."""
    for name, content in {"dataset_description.json": {}, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root / "sub-01/ses-1/perf/sub-01_ses-1_run-1_asl.nii.gz"


def test_inheritance_from_the_root_down_and_only_what_applies(tmp_path):
    image = dataset(
        tmp_path / "data",
        {
            "asl.json": {"A": "root", "B": "root", "C": "root"},
            "run-2_asl.json": {"A": "another run"},
            "m0scan.json": {"A": "another suffix"},
            "sub-01/sub-01_asl.json": {"B": "subject"},
            "sub-01/ses-1/perf/sub-01_ses-1_asl.json": {"C": "session", "D": "session"},
            "sub-01/ses-1/perf/sub-01_ses-1_run-1_asl.json": {"D": "image", "E": None, "F": "n/a"},
            "../asl.json": {"A": "outside the dataset"},
        },
    )
    sidecar = bids.read_sidecar(image)
    assert [sidecar.get(field) for field in "ABCDEF"] == ["root", "subject", "session", "image", None, None]
    assert sidecar.origin("B") == "sub-01_asl.json: B"
    assert sidecar.home.endswith("sub-01_ses-1_run-1_asl.json")


def test_without_a_description_the_subject_tree_is_the_dataset(tmp_path):
    image = dataset(tmp_path / "a" / "b", {"asl.json": {"A": 1}, "../asl.json": {"A": 2, "B": 2}})
    (tmp_path / "a/b/dataset_description.json").unlink()
    sidecar = bids.read_sidecar(image)
    assert (sidecar.number("A"), sidecar.number("B")) == (1, None)


@pytest.mark.parametrize("content", ["volume_type\ncontrol\nlabel\n", "\ufeffvolume_type\tnote\r\ncontrol\ta\r\nlabel\tb\r\n\r\n\r\n"])
def test_aslcontext_dialects(tmp_path, content):
    image = dataset(tmp_path, {"sub-01/ses-1/perf/sub-01_ses-1_run-1_aslcontext.tsv": content})
    rows, file = bids.read_aslcontext(image)
    assert rows == ["control", "label"]
    assert file.name == "sub-01_ses-1_run-1_aslcontext.tsv"


PERF, FMAP = "sub-01/ses-1/perf/", "sub-01/ses-1/fmap/"
ASL = "sub-01_ses-1_run-1_asl.nii.gz"
M0SCAN = {  # files beside -> the one that belongs to run 1
    "same entities": ({PERF + "sub-01_ses-1_run-1_m0scan.nii.gz": ""}, "perf/sub-01_ses-1_run-1_m0scan.nii.gz"),
    "one for the session": ({PERF + "sub-01_ses-1_m0scan.nii.gz": ""}, "perf/sub-01_ses-1_m0scan.nii.gz"),
    "of another run": ({PERF + "sub-01_ses-1_run-2_m0scan.nii.gz": ""}, None),
    "none": ({}, None),
    "for another image": (
        {
            PERF + "sub-01_ses-1_m0scan.nii.gz": "",
            PERF + "sub-01_ses-1_m0scan.json": {"IntendedFor": "ses-1/perf/sub-01_ses-1_run-2_asl.nii.gz"},
        },
        None,
    ),
    "the claim goes before the name": (
        {
            PERF + "sub-01_ses-1_run-1_m0scan.nii.gz": "",
            PERF + "sub-01_ses-1_acq-b_m0scan.nii.gz": "",
            PERF + "sub-01_ses-1_acq-b_m0scan.json": {"IntendedFor": ["ses-1/perf/x.nii.gz", "ses-1/perf/" + ASL]},
        },
        "perf/sub-01_ses-1_acq-b_m0scan.nii.gz",
    ),
    "perf goes before fmap": (
        {PERF + "sub-01_ses-1_run-1_m0scan.nii.gz": "", FMAP + "sub-01_ses-1_run-1_m0scan.nii.gz": ""},
        "perf/sub-01_ses-1_run-1_m0scan.nii.gz",
    ),
    "in fmap": (
        {FMAP + "sub-01_ses-1_dir-PA_m0scan.nii.gz": "", FMAP + "sub-01_ses-1_dir-PA_m0scan.json": {"IntendedFor": "ses-1/perf/" + ASL}},
        "fmap/sub-01_ses-1_dir-PA_m0scan.nii.gz",
    ),
}


@pytest.mark.parametrize(("files", "expected"), M0SCAN.values(), ids=M0SCAN.keys())
def test_m0scan(tmp_path, files, expected):
    image = dataset(tmp_path, {PERF + ASL: "", **files})
    found = bids.find_m0scan(image)
    assert found == (None if expected is None else tmp_path / "sub-01/ses-1" / expected)


SPELLINGS = [
    "bids::sub-01/ses-1/perf/",
    "bids:raw:sub-01/ses-1/perf/",
    "ses-1/perf/",
    "perf/",
    "",
    "/sub-01/ses-1/perf/",
    "./ses-1/perf/",
    "ses-1\\perf\\",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", [ASL, ASL.removesuffix(".gz")])
def test_intended_for_in_its_spellings(tmp_path, spelling, name):
    claim = {PERF + "sub-01_ses-1_acq-x_m0scan.nii.gz": "", PERF + "sub-01_ses-1_acq-x_m0scan.json": {"IntendedFor": spelling + name}}
    assert bids.find_m0scan(dataset(tmp_path, {PERF + ASL: "", **claim})) is not None


def test_several_m0scans_that_fit_are_refused(tmp_path):
    claim = {"IntendedFor": "ses-1/perf/" + ASL}
    files = {f"{PERF}sub-01_ses-1_acq-{name}_m0scan{end}": claim if end == ".json" else "" for name in "ab" for end in (".json", ".nii.gz")}
    with pytest.raises(InputError, match=r"several m0scan.*--m0"):
        bids.find_m0scan(dataset(tmp_path, {PERF + ASL: "", **files}))
