"""What one run writes, how it ends, and that stopping it at any moment leaves only whole files."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from runs import run, write_scan, written

import pinn_engine

NAMES = {  # DESIGN section 3: volumes, then what stands beside them
    "cbf": "mL/100 g/min",
    "att": "s",
    "desc-std_cbf": "mL/100 g/min",
    "desc-std_att": "s",
    "desc-brain_mask": None,
    "desc-status_dseg": None,
    "desc-misfit_cbf": "1",
    "desc-data_asl": "arbitrary",
    "desc-fit_asl": "arbitrary",
    "desc-fitstd_asl": "arbitrary",
}
TABLES = {
    f"sub-01_desc-{name}"
    for name in ("status_dseg.tsv", "qualitycontrol_cbf.tsv", "plausibility_cbf.tsv", "methods_cbf.txt", "weights_asl.tsv")
}
BESIDE = TABLES | {"sub-01_report.html", "dataset_description.json"}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> dict[str, str]:
    return write_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def out(scan, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    assert run("asl", scan["asl"], "--out", folder, "--mask", scan["mask"]) == 0
    return folder


def test_all_files_are_there_under_their_names(out):
    volumes = {f"sub-01_{name}.nii.gz" for name in NAMES}
    assert set(written(out)) == volumes | {name.replace(".nii.gz", ".json") for name in volumes} | BESIDE
    assert len(list((out / "logs").iterdir())) == 1
    assert not list(out.rglob("*.tmp"))


def test_nothing_stays_of_an_earlier_fit(scan, tmp_path):
    """Maps that the new options do not make would be taken for theirs; files that are not ours stay."""
    (tmp_path / "sub-01_notes.txt").write_text("mine")
    call = ("asl", scan["asl"], "--out", tmp_path, "--mask", scan["mask"])
    assert run(*call, "--spatial", "--labels", scan["mask"]) == 0
    assert {"sub-01_desc-disagreement_att.nii.gz", "sub-01_desc-roi_cbf.tsv"} <= set(written(tmp_path))
    assert run(*call, "--no-spatial", "--unknown", "cbf") == 0
    fresh = tmp_path / "fresh"
    assert run("asl", scan["asl"], "--out", fresh, "--mask", scan["mask"], "--no-spatial", "--unknown", "cbf") == 0
    assert {name for name in written(tmp_path) if not name.startswith("fresh")} == {*written(fresh), "sub-01_notes.txt"}


def test_exchanged_control_and_label_are_told(scan, tmp_path, capsys):
    """On the terminal, and there is no joint fit relative to a flow that is not there."""
    assert run("asl", scan["asl"], "--out", tmp_path, "--mask", scan["mask"], "--volumes", "label-control", "--spatial") == 0
    *cautions, last = capsys.readouterr().out.splitlines()
    assert cautions[0].startswith("caution: The median perfusion is negative")
    assert "; report: " in last
    about = json.loads((tmp_path / "sub-01_cbf.json").read_text())
    assert any("every voxel is fitted by itself" in note for note in about["Notes"])
    cbf, mask = (nib.load(tmp_path / f"sub-01_{name}.nii.gz").get_fdata() for name in ("cbf", "desc-brain_mask"))
    assert np.std(cbf[mask > 0]) > 5  # as different as the data are


@pytest.mark.parametrize("name", NAMES)
def test_volumes_are_where_the_input_is_finite_and_zero_outside_the_mask(name, scan, out):
    image, source = nib.load(out / f"sub-01_{name}.nii.gz"), nib.load(scan["asl"])
    mask = nib.load(out / "sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
    for form in ("qform", "sform"):
        (found, code), (expected, expected_code) = (getattr(i, f"get_{form}")(coded=True) for i in (image, source))
        assert code == expected_code != 0
        np.testing.assert_allclose(found, expected, atol=1e-4)
    labels = name in ("desc-brain_mask", "desc-status_dseg")
    assert image.get_data_dtype() == (np.uint8 if labels else np.float32)
    data = image.get_fdata()
    assert data.shape[:3] == source.shape[:3]
    assert np.isfinite(data).all()
    assert data.any()
    assert not data[~mask].any()
    assert image.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize(("name", "unit"), NAMES.items())
def test_every_map_has_a_sidecar_with_its_unit(name, unit, out):
    about = json.loads((out / f"sub-01_{name}.json").read_text())
    assert about["Description"]
    assert about["Sources"] == ["sub-01_asl.nii.gz"]
    if unit is not None:
        assert about["Units"] == unit


def test_the_sidecar_says_how_it_was_made(out):
    about = json.loads((out / "sub-01_cbf.json").read_text())
    assert about["PostLabelingDelay"] == [0.25, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert about["LabelingDuration"] == [1.8] * 6
    for name in ("alpha", "t1_blood", "t1_tissue", "partition", "label_duration", "post_labeling_delay", "mask"):
        assert about["Constants"][name]["Origin"], name
    assert about["Fit"]["method"] == "pinn"
    assert about["Fit"]["pinn_engine"] == pinn_engine.__version__
    assert about["Convergence"]["cost"]
    assert about["Notes"]


def test_curves_have_one_volume_a_delay(out):
    for name in ("data", "fit", "fitstd"):
        assert nib.load(out / f"sub-01_desc-{name}_asl.nii.gz").shape[3] == 6
        assert len(json.loads((out / f"sub-01_desc-{name}_asl.json").read_text())["PostLabelingDelay"]) == 6


def test_the_legend_names_every_status_in_the_map(out):
    rows = [line.split("\t") for line in (out / "sub-01_desc-status_dseg.tsv").read_text().splitlines()]
    assert rows[0] == ["index", "name"]
    legend = {int(code): meaning for code, meaning in rows[1:]}
    assert set(np.unique(nib.load(out / "sub-01_desc-status_dseg.nii.gz").get_fdata()).astype(int)) <= set(legend)
    assert all(meaning.endswith(".") for meaning in legend.values())


def test_the_quality_table_is_what_the_maps_say(out):
    names, values = ((out / "sub-01_desc-qualitycontrol_cbf.tsv").read_text().splitlines()[i].split("\t") for i in (0, 1))
    row = dict(zip(names, values, strict=True))
    mask = nib.load(out / "sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
    status = nib.load(out / "sub-01_desc-status_dseg.nii.gz").get_fdata()
    cbf, std = (nib.load(out / f"sub-01_{name}.nii.gz").get_fdata() for name in ("cbf", "desc-std_cbf"))
    assert int(row["voxels"]) == mask.sum()
    assert float(row["share_converged"]) == pytest.approx((status[mask] == 1).mean(), rel=1e-6)
    assert float(row["cbf_median"]) == pytest.approx(np.median(cbf[mask & (std > 0)]), rel=1e-6)
    assert float(row["cbf_share_negative"]) == pytest.approx(np.mean(cbf[mask & (std > 0)] < 0), rel=1e-6)


def test_the_same_command_gives_the_same_bytes_of_all_but_the_log(scan, out, tmp_path):
    assert run("asl", scan["asl"], "--out", tmp_path, "--mask", scan["mask"]) == 0
    assert written(tmp_path) == written(out)
    log = json.loads(next((tmp_path / "logs").iterdir()).read_text())
    assert log["outcome"]["code"] == 0
    assert {"read", "fit", "write"} <= set(log["outcome"]["seconds"])


def test_a_second_run_into_the_same_folder_replaces_the_first(scan, tmp_path):
    for method in ("pinn", "nlls"):
        assert run("asl", scan["asl"], "--out", tmp_path, "--method", method) == 0
    assert json.loads((tmp_path / "sub-01_cbf.json").read_text())["Fit"]["method"] == "nlls"


def test_every_run_has_its_log(scan, tmp_path):
    for _ in range(2):
        assert run("asl", scan["asl"], "--out", tmp_path, "--method", "nlls") == 0
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_without_m0_the_map_is_called_relative(scan, tmp_path):
    series = Path(scan["asl"])
    for suffix in ("asl.nii.gz", "asl.json", "aslcontext.tsv"):
        (tmp_path / f"sub-01_{suffix}").write_bytes((series.parent / f"sub-01_{suffix}").read_bytes())
    about = json.loads((tmp_path / "sub-01_asl.json").read_text())
    (tmp_path / "sub-01_asl.json").write_text(json.dumps(about | {"M0Type": "Absent", "BackgroundSuppression": True}))
    assert run("asl", tmp_path / "sub-01_asl.nii.gz", "--out", tmp_path / "out") == 0
    names = set(written(tmp_path / "out"))
    assert "sub-01_desc-relative_cbf.nii.gz" in names
    assert "sub-01_cbf.nii.gz" not in names


# --- exit codes --------------------------------------------------------------------------------------------------------


BAD = {  # the call ({name}: files of the scan, {tmp}: a folder), what the line must say
    "missing file": (("{tmp}/none_asl.nii.gz", "--out", "{tmp}/out"), "none_asl.nii.gz.*does not exist"),
    "missing mask": (("{asl}", "--out", "{tmp}/out", "--mask", "{tmp}/none.nii"), "none.nii.*does not exist"),
    "out is a file": (("{asl}", "--out", "{tmp}/file"), "file.*cannot be made.*--out"),
    "out below a file": (("{asl}", "--out", "{tmp}/file/below"), "--out"),
    "out cannot be written": (("{asl}", "--out", "/proc/pinn_engine_out"), "cannot be written.*--out"),
    "threads 0": (("{asl}", "--out", "{tmp}/out", "--threads", "0"), "--threads.*at least 1"),
    "unknown option": (("{asl}", "--out", "{tmp}/out", "--colour", "red"), "--colour"),
    "unknown choice": (("{asl}", "--out", "{tmp}/out", "--method", "bayes"), "--method.*bayes"),
    "unknown unknown": (("{asl}", "--out", "{tmp}/out", "--unknown", "cbf,t2"), "--unknown.*t2"),
    "unknown without cbf": (("{asl}", "--out", "{tmp}/out", "--unknown", "att"), "--unknown must include cbf"),
    "not a number": (("{asl}", "--out", "{tmp}/out", "--alpha", "high"), "--alpha.*high"),
    "not numbers": (("{asl}", "--out", "{tmp}/out", "--plds", "1;2"), "--plds"),
    "milliseconds": (("{asl}", "--out", "{tmp}/out", "--t1b", "1650"), "--t1b.*milliseconds"),
    "model of other data": (("{asl}", "--out", "{tmp}/out", "--model", "simplified"), "simplified is a model of PASL"),
    "model error": (("{asl}", "--out", "{tmp}/out", "--model-error", "0"), "--model-error"),
    "m0 0": (("{asl}", "--out", "{tmp}/out", "--m0", "0"), "--m0"),
}


CHEAP = {  # told in a tenth of a second, not after the seconds that torch takes to load
    "a scan": ("asl none_asl.nii.gz --out out", "none_asl.nii.gz: ASL series does not exist; check the path"),
    "a T1 map": (f"asl {__file__} --out out --t1-map none.nii", "none.nii: T1 map does not exist; check the path"),
    "a heart": ("cardiac fit none.vtk --out out", "none.vtk: the mesh or movie does not exist; check the path"),
    "a dataset": ("bids none out participant", "none: the dataset does not exist; give its root"),
    "processes": ("bids . out participant --nprocs 0", "--nprocs: must be at least 1, found 0; give the number of processes"),
    "a size": ("phantom asl --out out --spacing 0", "--spacing: is out of range, found 0.0; give a value from 0.9 to 20"),
    "an option": ("asl a.nii --out out --alhpa 1", "pinn-engine asl: unrecognized arguments: --alhpa 1 (did you mean --alpha?)"),
}


@pytest.mark.parametrize(("words", "says"), CHEAP.values(), ids=CHEAP.keys())
def test_cheap_refusals_do_not_wait_for_torch(words, says, tmp_path):
    """In a process of its own, for here torch is loaded already."""
    code = "import sys; from pinn_engine.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules)"
    root = Path(pinn_engine.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n"
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "says"), BAD.values(), ids=BAD.keys())
def test_bad_calls_end_in_one_line_and_exit_2(words, says, scan, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert run("asl", *(w.format(**scan, tmp=tmp_path) for w in words)) == 2
    io = capsys.readouterr()
    assert re.match(rf"error: .*{says}", io.err)
    assert io.err.count("\n") == 1
    assert "Traceback" not in io.err
    assert io.out == ""
    assert not list(tmp_path.rglob("*cbf*"))


def test_a_seed_beyond_all_numbers(scan, tmp_path, capsys):
    assert run("asl", scan["asl"], "--out", tmp_path, "--network", "mlp", "--seed", 10**20) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "in_the_way"), [("phantom", "sub-01"), ("demo", "phantom")])
def test_a_file_where_a_folder_must_be(command, in_the_way, tmp_path, capsys):
    (tmp_path / in_the_way).write_text("x")
    assert run(command, "asl", "--out", tmp_path, *(("--spacing", "14") if command == "phantom" else ())) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("bids",), ("phantom",), ("phantom", "cardiac"), ("demo", "x", "--out", "y")])
def test_unknown_commands(arguments, capsys):
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: pinn-engine")
    assert err.count("\n") == 1


def test_a_fault_of_ours_is_exit_1_with_its_detail(scan, tmp_path, capsys, monkeypatch):
    from pinn_engine import asl

    def broken(*_, **__):
        raise RuntimeError("the cat sat on it")

    monkeypatch.setattr(asl, "fit", broken)
    assert run("asl", scan["asl"], "--out", tmp_path) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "fault of ours" in err
    assert err.endswith("error: RuntimeError: the cat sat on it\n")


# --- stopped -----------------------------------------------------------------------------------------------------------


def start(scan, out, *extra: str) -> subprocess.Popen:
    call = [sys.executable, "-m", "pinn_engine", "asl", scan["asl"], "--out", str(out), "--progress", "json", "--threads", "1", *extra]
    return subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(pinn_engine.__file__).parents[1])


def whole(folder: Path) -> int:
    """Checks that every file under a final name is complete; how many there are."""
    for name, content in written(folder).items():
        if Path(name).name.startswith(".pinn_engine-"):
            continue  # a hidden temporary file: the next run removes it
        if name.endswith(".nii.gz"):
            image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
            assert np.isfinite(image.get_fdata()).all()
        elif name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".html"):
            assert content.rstrip().endswith(b"</html>")
        else:
            assert content.endswith(b"\n")
    return len([name for name in written(folder) if not Path(name).name.startswith(".pinn_engine-")])


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_any_moment_only_whole_files_stand_under_final_names(scan, out, tmp_path):
    """The kill falls into the writing, at another moment each time; the next run finishes and leaves nothing behind."""
    chance, counts = random.Random(0), []
    for _ in range(2):
        process = start(scan, tmp_path, "--mask", scan["mask"])
        for line in process.stderr:
            if json.loads(line)["stage"] == "write":
                break
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        counts.append(whole(tmp_path))
    assert run("asl", scan["asl"], "--out", tmp_path, "--mask", scan["mask"]) == 0
    assert written(tmp_path) == written(out)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_130(number, scan, tmp_path, monkeypatch, capsys, request):
    from pinn_engine import asl

    monkeypatch.setattr(asl, "fit", lambda *_, **__: signal.raise_signal(number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert run("asl", scan["asl"], "--out", tmp_path) == 130
    assert capsys.readouterr().err.startswith("stopped: ")
    assert written(tmp_path) == {}


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_program_that_is_stopped_says_so_in_a_sentence(scan, tmp_path):
    process = start(scan, tmp_path, "--network", "mlp")
    for line in process.stderr:
        if json.loads(line)["stage"] == "fit":
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if not line.startswith("{")]
    assert process.returncode == 130
    assert len(lines) == 1
    assert lines[0].startswith("stopped: ")
    assert "sub-01_cbf.nii.gz" not in written(tmp_path)
    assert not list(tmp_path.rglob(".pinn_engine-*"))
