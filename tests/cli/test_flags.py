"""Every flag that --help shows does something: a table flag -> what it must change. A flag without a row fails."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from runs import run, write_scan, written

from pinn_engine.cli import demo, parser


def flags(*command: str) -> set[str]:
    """All long options of a command, --help left out."""
    level: argparse.ArgumentParser = parser()
    for word in command:
        (choices,) = [action for action in level._actions if isinstance(action, argparse._SubParsersAction)]
        level = choices.choices[word]
    return {option for action in level._actions for option in action.option_strings if option.startswith("--")} - {"--help"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("scans")
    pasl = write_scan(folder / "pasl", labeling="PASL", plds=(0.7, 1.2, 1.7, 2.2))
    single = write_scan(folder / "single", plds=(1.8,))
    return {"pcasl": write_scan(folder / "pcasl"), "pasl": pasl, "single": single, "spoilt": spoil(write_scan(folder / "spoilt"))}


def spoil(paths: dict[str, str]) -> dict[str, str]:
    """The scan with one label image half lost."""
    image = nib.load(paths["asl"])
    data = image.get_fdata(dtype=np.float32)
    data[::2, ..., 5] *= 0.5
    nib.save(nib.Nifti1Image(data, image.affine, image.header), paths["asl"])
    return paths


@pytest.fixture(scope="module")
def plain(scans, tmp_path_factory):
    """What a run writes with given standing arguments, remembered."""
    done: dict[tuple, dict[str, bytes]] = {}

    def get(kind: str, standing: tuple[str, ...] = ()) -> dict[str, bytes]:
        if (kind, standing) not in done:
            out = tmp_path_factory.mktemp("plain")
            assert run("asl", scans[kind]["asl"], "--out", out, *(word.format(**scans[kind]) for word in standing)) == 0
            done[kind, standing] = written(out)
        return done[kind, standing]

    return get


CBF, ATT, MASK, STD = (f"sub-01_{name}.nii.gz" for name in ("cbf", "att", "desc-brain_mask", "desc-std_cbf"))
SIDECAR = "sub-01_cbf.json"
MLP = ("--network", "mlp")

ASL = {  # flag: (scan, standing arguments, its values, a file that must change); {name} stands for a file of the scan
    "--m0": ("pcasl", (), ("1000",), CBF),
    "--mask": ("pcasl", (), ("{half}",), MASK),
    "--preset": ("pasl", ("--unknown", "cbf"), ("infant",), CBF),  # the joint fit itself: the demo below, tests/asl/test_subject.py
    "--unknown": ("pcasl", (), ("cbf",), ATT),
    "--model": ("pasl", (), ("simplified",), CBF),
    "--method": ("pcasl", (), ("nlls",), CBF),
    "--network": ("pcasl", (), ("mlp",), CBF),
    "--model-error": ("pcasl", (), ("0.6",), CBF),
    "--spatial": ("pcasl", (), (), CBF),
    "--no-spatial": ("pcasl", ("--spatial",), (), CBF),
    "--weigh-volumes": ("spoilt", ("--no-weigh-volumes",), (), CBF),
    "--no-weigh-volumes": ("spoilt", (), (), CBF),
    "--seed": ("pcasl", MLP, ("3",), CBF),
    "--labeling": ("pcasl", (), ("casl",), SIDECAR),
    "--label-duration": ("pcasl", (), ("1.5",), CBF),
    "--plds": ("pcasl", (), ("0.3,0.3,0.6,0.6,1.1,1.1,1.6,1.6,2.1,2.1,2.6,2.6",), ATT),
    "--tis": ("pasl", (), ("0.8,0.8,1.3,1.3,1.8,1.8,2.3,2.3",), ATT),
    "--bolus-duration": ("pasl", (), ("0.7",), CBF),
    "--volumes": ("pcasl", (), ("label-control",), CBF),
    "--slice-timing": ("pcasl", (), ("0.05",), ATT),
    "--alpha": ("pcasl", (), ("0.7",), CBF),
    "--t1b": ("pcasl", (), ("1.5",), CBF),
    "--t1-tissue": ("pcasl", (), ("1.1",), CBF),
    "--t1-map": ("pcasl", (), ("{t1}",), CBF),
    "--tissue": ("pcasl", (), ("{tissue_maps}",), CBF),
    "--att-map": ("single", (), ("{att}",), CBF),
    "--att-sd": ("single", ("--att-map", "{att}"), ("0.5",), STD),
    "--m0-region": ("pcasl", (), ("{half}",), CBF),
    "--m0-tissue": ("pcasl", ("--m0-region", "{half}"), ("wm",), CBF),
    "--flip-angle": ("pcasl", (), ("30",), CBF),
    "--lambda": ("pcasl", (), ("0.98",), CBF),
    "--m0-scale": ("pcasl", (), ("2.0",), CBF),
}
DICOM = {"--series", "--m0-series"}  # tests/files/test_dicom.py: without them the folder is refused
REGIONS = {"--labels", "--label-names"}  # tests/asl/test_quality.py: tables only, no map changes
ELSEWHERE = {"--out", "--device", "--threads", "--progress"}  # tested one by one below


def test_every_flag_has_a_test():
    assert flags("asl") == set(ASL) | ELSEWHERE | DICOM | REGIONS
    assert flags("phantom", "asl") == set(PHANTOM) | {"--out"}
    assert flags("phantom", "infant") == set(INFANT) | {"--out"}
    assert flags("demo", "asl") == set(DEMO) | ELSEWHERE
    assert flags() == {"--version"}


@pytest.mark.parametrize("flag", ASL)
def test_flag_of_asl(flag, scans, plain, tmp_path):
    kind, standing, values, file = ASL[flag]
    assert run("asl", scans[kind]["asl"], "--out", tmp_path, *(v.format(**scans[kind]) for v in (*standing, flag, *values))) == 0
    after, before = written(tmp_path), plain(kind, standing)
    assert after.get(file) != before[file]
    assert after[SIDECAR] != before[SIDECAR]  # every value used is written with its origin


def test_arterial_blood_volume_is_written(scans, tmp_path):
    assert run("asl", scans["pcasl"]["asl"], "--out", tmp_path, "--unknown", "cbf,att,abv") == 0
    units = {
        name: json.loads(written(tmp_path)[f"sub-01_{name}.json"])["Units"] for name in ("abv", "abat", "desc-std_abv", "desc-std_abat")
    }
    assert units == {"abv": "fraction", "abat": "s", "desc-std_abv": "fraction", "desc-std_abat": "s"}


CHANGES = {  # flag and value: what CBF must do, as a factor
    ("--alpha", "0.425"): 2.0,
    ("--m0-scale", "2"): 0.5,
    ("--lambda", "0.45"): 0.5,  # tissue M0 / lambda; T1' changes by less than 1 % as well
    ("--volumes", "label-control"): -1.0,
}


@pytest.mark.parametrize(("flag", "value"), CHANGES)
def test_flag_changes_cbf_by_the_right_factor(flag, value, scans, tmp_path):
    outs = tmp_path / "a", tmp_path / "b"
    for out, extra in zip(outs, ((), (flag, value)), strict=True):
        assert run("asl", scans["pcasl"]["asl"], "--out", out, "--method", "nlls", "--mask", scans["pcasl"]["mask"], *extra) == 0
    before, after = (nib.load(out / CBF).get_fdata() for out in outs)
    sure = before > 30
    if flag == "--volumes":
        assert np.median(after[sure]) < 0
    else:
        assert np.median(after[sure] / before[sure]) == pytest.approx(CHANGES[flag, value], rel=0.02)


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("auto", 0), ("cuda:97", 2), ("tpu", 2)])
def test_device(device, code, scans, plain, tmp_path, capsys):
    assert run("asl", scans["pcasl"]["asl"], "--out", tmp_path, "--device", device) == code
    if code:
        assert f"--device {device}" in capsys.readouterr().err
        assert not any("cbf" in name for name in written(tmp_path))
    elif not torch.cuda.is_available():
        assert written(tmp_path) == plain("pcasl")
        assert json.loads(written(tmp_path)[SIDECAR])["Fit"]["device"] == "cpu"


def test_threads(scans, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run("asl", scans["pcasl"]["asl"], "--out", tmp_path, "--threads", "1") == 0
    assert asked == [1]
    for wrong in ("0", "-2"):
        assert run("asl", scans["pcasl"]["asl"], "--out", tmp_path, "--threads", wrong) == 2
        assert capsys.readouterr().err.startswith("error: --threads: must be at least 1, found")


def test_progress(scans, tmp_path, capsys):
    for kind in ("json", "bar", "none"):
        assert run("asl", scans["pcasl"]["asl"], "--out", tmp_path, "--method", "nlls", "--progress", kind) == 0
        err = capsys.readouterr().err
        if kind == "none":
            assert err == ""
        elif kind == "bar":
            assert "100%" in err
            assert "[########################]" in err
        else:
            told = [json.loads(line) for line in err.splitlines()]
            assert all(set(one) == {"stage", "done", "message"} for one in told)
            assert all(0 <= one["done"] <= 1 for one in told)
            assert list(dict.fromkeys(one["stage"] for one in told)) == ["read", "fit", "write"]
            for stage in ("read", "fit", "write"):
                done = [one["done"] for one in told if one["stage"] == stage]
                assert done == sorted(done)
                assert (done[0], done[-1]) == (0, 1)


PHANTOM = {  # flag: (its values, a file that must change)
    "--spacing": (("20",), "sub-01/perf/sub-01_asl.nii.gz"),
    "--labeling": (("pasl",), "sub-01/perf/sub-01_asl.json"),
    "--plds": (("0.5,1.5",), "sub-01/perf/sub-01_asl.json"),
    "--label-duration": (("1.4",), "sub-01/perf/sub-01_asl.json"),
    "--repeats": (("2",), "sub-01/perf/sub-01_aslcontext.tsv"),
    "--snr": (("50",), "sub-01/perf/sub-01_asl.nii.gz"),
    "--dispersion": (("0.2",), "sub-01/perf/sub-01_asl.nii.gz"),
    "--arterial": (("0.02",), "derivatives/truth/sub-01/perf/sub-01_abv.nii.gz"),
    "--slice-time": (("0.04",), "sub-01/perf/sub-01_asl.json"),
    "--no-lesions": ((), "derivatives/truth/sub-01/perf/sub-01_desc-lesion_dseg.nii.gz"),
    "--no-territories": ((), "derivatives/truth/sub-01/perf/sub-01_desc-territory_dseg.nii.gz"),
    "--seed": (("1",), "derivatives/truth/sub-01/perf/sub-01_cbf.nii.gz"),
}
COARSE = ("--spacing", "14")


@pytest.mark.parametrize("flag", PHANTOM)
def test_flag_of_phantom(flag, tmp_path):
    values, file = PHANTOM[flag]
    assert run("phantom", "asl", "--out", tmp_path / "a", *COARSE) == 0
    assert run("phantom", "asl", "--out", tmp_path / "b", *(COARSE if flag != "--spacing" else ()), flag, *values) == 0
    a, b = written(tmp_path / "a"), written(tmp_path / "b")
    assert b[file] != a.get(file)


def test_the_same_phantom_is_the_same_bytes(tmp_path):
    for name in "ab":
        assert run("phantom", "asl", "--out", tmp_path / name, *COARSE) == 0
    assert written(tmp_path / "a") == written(tmp_path / "b")


INFANT = {  # flag: (its values, a file that must change)
    "--noise": (("0.1",), "sub-01/perf/sub-01_asl.nii.gz"),
    "--t1b": (("2.2",), "derivatives/truth/sub-01/perf/sub-01_t1b.nii.gz"),
    "--fields": (("ramp",), "derivatives/truth/sub-01/perf/sub-01_att.nii.gz"),
    "--no-lesions": ((), "derivatives/truth/sub-01/perf/sub-01_desc-lesion_dseg.nii.gz"),
    "--seed": (("1",), "derivatives/truth/sub-01/perf/sub-01_cbf.nii.gz"),
}


@pytest.mark.parametrize("flag", INFANT)
def test_flag_of_the_infant_phantom(flag, tmp_path):
    values, file = INFANT[flag]
    assert run("phantom", "infant", "--out", tmp_path / "a") == 0
    assert run("phantom", "infant", "--out", tmp_path / "b", flag, *values) == 0
    a, b = written(tmp_path / "a"), written(tmp_path / "b")
    assert b[file] != a[file]


@pytest.mark.parametrize(("flag", "value"), [("--noise", "-1"), ("--noise", "nan"), ("--t1b", "1800"), ("--seed", "-1")])
def test_infants_that_cannot_be(flag, value, tmp_path, capsys):
    assert run("phantom", "infant", "--out", tmp_path / "x", f"{flag}={value}") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert flag in err


IMPOSSIBLE = [
    ("--spacing", "0"),
    ("--spacing", "nan"),
    ("--repeats", "0"),
    ("--snr", "-1"),
    ("--dispersion", "9"),
    ("--arterial", "2"),
    ("--slice-time", "-0.1"),
    ("--plds", "1800"),
    ("--label-duration", "1800"),
    ("--plds", "a,b"),
    ("--plds", ""),
    ("--seed", "-1"),
    ("--label-duration", "0"),
    ("--label-duration", "1.0,1.8"),
]


@pytest.mark.parametrize(("flag", "value"), IMPOSSIBLE)
def test_phantoms_that_cannot_be(flag, value, tmp_path, capsys):
    assert run("phantom", "asl", "--out", tmp_path / "x", *COARSE, f"{flag}={value}") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert flag in err


DEMO = {  # flag: (values, a file that must change)
    "--preset": (("infant",), CBF),
    "--unknown": (("cbf",), ATT),
    "--model": (("simplified",), CBF),
    "--method": (("nlls",), CBF),
    "--network": (("mlp",), CBF),
    "--model-error": (("0.6",), CBF),
    "--spatial": ((), CBF),
    "--no-spatial": ((), CBF),  # after --spatial, see below
    "--no-weigh-volumes": ((), SIDECAR),
    "--weigh-volumes": ((), CBF),  # after --no-weigh-volumes, see below
    "--seed": (("3",), SIDECAR),
}


@pytest.fixture(scope="module")
def coarse_demo(tmp_path_factory):
    """The demo on few voxels, and what it writes by default."""
    kept, demo.SPACING = demo.SPACING, 18.0
    out = tmp_path_factory.mktemp("demo")
    assert run("demo", "asl", "--out", out) == 0
    yield written(out)
    demo.SPACING = kept


@pytest.mark.parametrize("flag", [f for f in DEMO if f not in ("--model", "--no-spatial", "--weigh-volumes")])
def test_flag_of_demo(flag, coarse_demo, tmp_path):
    values, file = DEMO[flag]
    assert run("demo", "asl", "--out", tmp_path, flag, *values) == 0
    assert written(tmp_path).get(file) != coarse_demo[file]


def test_the_last_of_spatial_and_no_spatial_counts_in_the_demo(coarse_demo, tmp_path):
    switches = ("--spatial", "--no-spatial", "--no-weigh-volumes", "--weigh-volumes")
    assert run("demo", "asl", "--out", tmp_path, *switches) == 0
    assert written(tmp_path) == coarse_demo


def test_the_demo_of_the_simplified_model_is_a_pulsed_scan(coarse_demo, tmp_path):
    assert run("demo", "asl", "--out", tmp_path, "--model", "simplified") == 0
    about = json.loads((tmp_path / "phantom/sub-01/perf/sub-01_asl.json").read_text())
    assert about["ArterialSpinLabelingType"] == "PASL"
    assert written(tmp_path)[CBF] != coarse_demo[CBF]


def test_the_demo_writes_maps_truth_and_errors(coarse_demo):
    rows = [line.split("\t") for line in coarse_demo["accuracy.tsv"].decode().splitlines()]
    assert rows[0][:3] == ["map", "region", "method"]
    assert {row[2] for row in rows[1:]} >= {"pinn (features)", "closed form", "constant (true median)"}
    assert {row[0] for row in rows[1:]} == {"cbf", "att"}
    assert {"overview.png", "sub-01_report.html", CBF, "phantom/derivatives/truth/sub-01/perf/sub-01_cbf.nii.gz"} <= set(coarse_demo)
    assert coarse_demo["overview.png"].startswith(b"\x89PNG")


def test_the_demo_fits_all_voxels_together_and_shows_each_by_itself_beside(coarse_demo, tmp_path, monkeypatch):
    monkeypatch.setattr("pinn_engine.asl.choices.ENOUGH", 50)  # the coarse brain is small
    assert run("demo", "asl", "--out", tmp_path) == 0
    methods = {line.split("\t")[2] for line in written(tmp_path)["accuracy.tsv"].decode().splitlines()}
    assert {"pinn (features), all voxels together", "pinn (features), voxel by voxel", "closed form"} <= methods
    assert written(tmp_path)[CBF] != coarse_demo[CBF]


def test_the_demo_is_the_same_every_time(coarse_demo, tmp_path):
    assert run("demo", "asl", "--out", tmp_path) == 0
    assert written(tmp_path) == coarse_demo


@pytest.mark.parametrize("command", [("asl", "x.nii"), ("demo", "asl"), ("phantom", "asl")])
def test_out_is_needed(command, capsys):
    assert run(*command) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), ("asl",), ("phantom",), ("demo",), ("phantom", "asl"), ("phantom", "infant"), ("demo", "asl")])
def test_help_is_printed_and_names_every_flag(command, capsys):
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: pinn-engine")
    if command and command[-1] in ("asl", "infant"):
        assert all(flag in out for flag in flags(*command))


def test_version(capsys):
    import pinn_engine

    assert run("--version") == 0
    assert capsys.readouterr().out == f"pinn-engine {pinn_engine.__version__}\n"


def test_module_and_command_are_the_same(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["pinn_engine", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("pinn_engine", run_name="__main__")
    assert stop.value.code == 0
    assert Path(sys.modules["pinn_engine"].__file__).exists()
