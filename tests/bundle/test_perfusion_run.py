"""`monai.bundle run` of the perfusion bundle: the same bytes as the command line's, every option, every refusal in one line."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundles import ASL, add_subject, config, run_bundle, write_scan, written
from monai.bundle import ConfigWorkflow, run_workflow

import pinn_engine
from pinn_engine import cli
from pinn_engine.bundle import PerfusionWorkflow, Settings
from pinn_engine.bundle.settings import options
from pinn_engine.cli import perfusion
from pinn_engine.errors import InputError

FAST = {"method": "nlls"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A dataset of one subject, in a folder whose name Fire would take for a number."""
    folder = tmp_path_factory.mktemp("study") / "10"
    write_scan(folder)
    return folder


@pytest.fixture(scope="module")
def by_command_line(study, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("cli")
    assert cli.main(["asl", str(study / "sub-01" / "perf" / "sub-01_asl.nii.gz"), "--out", str(out)]) == 0
    return maps(out)


def maps(folder: Path) -> dict[str, bytes]:
    """All that is written of a scan; what describes the dataset stands beside it, or at the study's root."""
    return {name: content for name, content in written(folder).items() if name not in ("dataset_description.json", ".bidsignore")}


def results(out: Path, subject: str = "01") -> dict[str, bytes]:
    return written(out / f"sub-{subject}" / "perf")


def test_from_another_folder_one_corrupt_subject_is_reported_and_the_rest_is_done(study, by_command_line, tmp_path):
    """The whole command in a process of its own; MONAI's ThreadDataLoader would lose subject 03 as well, and exit 0."""
    dataset = tmp_path / "7"
    write_scan(dataset)
    for name in ("02", "03"):
        add_subject(dataset, name)
    broken = dataset / "sub-02" / "perf" / "sub-02_asl.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", *config(ASL), "--bundle_root", str(ASL)]
    command += ["--dataset_dir", "7", "--output_dir", "1e3"]  # relative, and numbers to Fire
    environment = os.environ | {"PYTHONPATH": str(Path(pinn_engine.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "sub-02" in errors[0]
    assert "Traceback" not in done.stderr
    out = tmp_path / "1000.0"
    told = json.loads((out / "logs" / "run.json").read_text())
    assert told["done"] == ["sub-01", "sub-03"]
    assert list(told["failed"]) == ["sub-02"]
    assert results(out) == by_command_line
    assert set(results(out, "03")) == {name.replace("sub-01", "sub-03") for name in by_command_line}
    assert not any(name.endswith(".nii.gz") for name in results(out, "02"))


def test_a_study_is_that_of_the_command_line(study, tmp_path):
    assert cli.main(["bids", str(study), str(tmp_path / "cli"), "participant", "--method", "nlls"]) == 0
    assert run_bundle(ASL, dataset_dir=study, output_dir=tmp_path / "bundle", **FAST) == 0
    assert written(tmp_path / "bundle") == written(tmp_path / "cli")


def test_what_calls_for_care_is_told(study, tmp_path, capsys):
    """Control and label exchanged: a run that printed only `done` would hide that all flow is negative."""
    shutil.copytree(study / "sub-01", tmp_path / "bids" / "sub-01")
    context = tmp_path / "bids" / "sub-01" / "perf" / "sub-01_aslcontext.tsv"
    swapped = {"control": "label", "label": "control"}
    context.write_text("\n".join(swapped.get(line, line) for line in context.read_text().splitlines()) + "\n")
    assert run_bundle(ASL, dataset_dir=tmp_path / "bids", output_dir=tmp_path / "out", **FAST) == 0
    assert "caution: sub-01: The median perfusion is negative" in capsys.readouterr().out
    assert "negative" in " ".join(json.loads((tmp_path / "out" / "logs" / "run.json").read_text())["cautions"]["sub-01"])


def test_maps_stand_where_the_image_does(study, by_command_line, tmp_path):
    """Names, bytes, affine, codes and units: MONAI's own saver would lose the last, and the first without a word."""
    assert run_bundle(ASL, dataset_dir=study, output_dir=tmp_path) == 0
    assert results(tmp_path) == by_command_line
    source = nib.load(study / "sub-01" / "perf" / "sub-01_asl.nii.gz")
    for path in (tmp_path / "sub-01" / "perf").glob("*.nii.gz"):
        image = nib.load(path)
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
        assert (image.header["qform_code"], image.header["sform_code"]) == (3, 4)
        assert image.header.get_xyzt_units() == ("mm", "sec")


CONSTANTS = {"alpha": 0.7, "t1b": 1.5, "t1_tissue": 1.1, "lambda": 0.98, "m0_scale": 2.0, "model_error": 0.6}
OTHERS = {"unknown": ("cbf",), "m0": 1000, "label_duration": 1.5, "volumes": "label-control", "slice_timing": 0.05, "spatial": True}
PLDS = [0.3, 0.3, 0.6, 0.6, 1.1, 1.1, 1.6, 1.6, 2.1, 2.1, 2.6, 2.6]


@pytest.mark.parametrize(("key", "value"), [*CONSTANTS.items(), *OTHERS.items(), ("plds", PLDS), ("plds", tuple(PLDS))])
def test_every_constant_can_be_given(key, value, study, by_command_line, tmp_path):
    said = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    flag = "--" + key.replace("_", "-")
    image = str(study / "sub-01" / "perf" / "sub-01_asl.nii.gz")
    assert cli.main(["asl", image, "--out", str(tmp_path / "cli"), flag, *([] if value is True else [said])]) == 0
    assert run_bundle(ASL, dataset_dir=study, output_dir=tmp_path / "bundle", **{key: value}) == 0
    assert results(tmp_path / "bundle") == maps(tmp_path / "cli") != by_command_line


def test_the_options_are_the_command_lines_own(monkeypatch):
    """An option that the command line gains is one of the bundle's, without a line of ours."""
    assert {"alpha", "lambda", "t1_map", "spatial"} <= set(options("asl"))
    assert not {"out", "help", "input"} & set(options("asl"))
    real = perfusion.add_fit

    def with_one_more(p: argparse.ArgumentParser) -> None:
        real(p)
        p.add_argument("--haematocrit", type=float)

    monkeypatch.setattr(perfusion, "add_fit", with_one_more)
    assert Settings("asl", {"haematocrit": 0.4}).call.haematocrit == 0.4


def test_the_config_lists_real_options_and_every_constant():
    listed = {key for key, value in json.loads(Path(config(ASL)[0]).read_text()).items() if value is None}
    assert set(CONSTANTS) | {"t1_map"} <= listed
    assert listed <= set(options("asl")) | {"dataset_dir", "output_dir", "participant_label", "session_label"}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("alhpa", "alpha"), ("lamda", "lambda"), ("output", "output_dir"), ("plsd", "plds"), ("network_deff", "network_def")],
)
def test_a_mistyped_key_is_refused(key, nearest, study, tmp_path, capsys):
    assert run_bundle(ASL, dataset_dir=study, output_dir=tmp_path / "out", **{key: 5}) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: --{key}: no such key; did you mean {nearest}?"
    assert not (tmp_path / "out").exists()


def test_a_key_of_the_users_own_begins_with_an_underscore(study, tmp_path):
    assert run_bundle(ASL, dataset_dir=study, output_dir=tmp_path, _note="first try", **FAST) == 0


WRONG = {
    "value": ({"method": "bayes"}, "error: pinn-engine asl: argument --method: invalid choice"),
    "number": ({"alpha": "much"}, "error: pinn-engine asl: argument --alpha: invalid float value"),
    "switch": ({"spatial": "perhaps"}, "error: --spatial: must be true or false"),
    "bare flag": ({"alpha": True}, "error: --alpha: needs a value"),
    "threads": ({"threads": 0}, "error: --threads: must be at least 1"),
    "dataset": ({"dataset_dir": "nowhere"}, "error: nowhere: the dataset does not exist"),
    "no dataset": ({"dataset_dir": None}, "error: --dataset_dir: is missing"),
    "no output": ({"output_dir": None}, "error: --output_dir: is missing"),
    "label": ({"participant_label": "09"}, "error: "),
    "truth": ({"truth_dir": "nowhere"}, "error: nowhere/sub-01/perf/sub-01_cbf.nii.gz: no true map to compare with"),
}


@pytest.mark.parametrize(("given", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_one_line_and_exit_2(given, says, study, tmp_path, capsys):
    """MONAI alone would print a hundred lines that end in the expression instead of the cause, or nothing at all."""
    assert run_bundle(ASL, **({"dataset_dir": study, "output_dir": tmp_path / "out"} | given)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(says)
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_an_empty_dataset_is_not_a_success(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    assert run_bundle(ASL, dataset_dir=tmp_path / "data", output_dir=tmp_path / "out") == 2
    assert "holds no ASL series" in capsys.readouterr().err


def test_labels_that_look_like_numbers(tmp_path):
    dataset = tmp_path / "data"
    write_scan(dataset)
    for name in ("1", "2"):
        add_subject(dataset, name)
    for label, wanted in ((1, {"sub-1"}), ((1, 2), {"sub-1", "sub-2"}), ("01", {"sub-01"}), (["01", 2], {"sub-01", "sub-2"})):
        out = tmp_path / f"out{len(str(label))}{wanted}"
        assert run_bundle(ASL, dataset_dir=dataset, output_dir=out, participant_label=label, **FAST) == 0
        assert {path.name for path in out.iterdir() if path.name.startswith("sub-")} == wanted


def test_a_5d_image_is_that_subjects_failure(tmp_path, capsys):
    """MONAI's LoadImage takes (x, y, z, 1, t) as one volume of t slices, without a word."""
    dataset = tmp_path / "data"
    write_scan(dataset)
    path = add_subject(dataset, "02")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32)[:, :, :, None, :], image.affine), path)
    assert run_bundle(ASL, dataset_dir=dataset, output_dir=tmp_path / "out", **FAST) == 3
    assert "error: sub-02: " in (err := capsys.readouterr().err)
    assert "5-D" in err
    assert (tmp_path / "out" / "sub-01" / "perf" / "sub-01_cbf.nii.gz").is_file()


def test_one_series_without_a_dataset(study, by_command_line, tmp_path):
    assert run_bundle(ASL, dataset_dir=study / "sub-01" / "perf" / "sub-01_asl.nii.gz", output_dir=tmp_path) == 0
    assert maps(tmp_path) == by_command_line


@pytest.mark.parametrize("where", ["config", "python"])
def test_a_workflow_can_run_twice(where, study, tmp_path):
    """An engine of ignite that is run again would do nothing and report success."""
    given = {"dataset_dir": str(study), "output_dir": str(tmp_path), **FAST}
    if where == "config":
        workflow = ConfigWorkflow(config(ASL), logging_file=False, workflow_type="infer", bundle_root=str(ASL), **given)
    else:
        workflow = PerfusionWorkflow(**given)
    workflow.initialize()
    for _ in range(2):
        workflow.run()
        assert (tmp_path / "sub-01" / "perf" / "sub-01_cbf.nii.gz").is_file()
        (tmp_path / "sub-01" / "perf" / "sub-01_cbf.nii.gz").unlink()
        assert workflow.evaluator.state.iteration == 1
        assert workflow.evaluator.code == 0


def test_the_python_workflow_writes_the_same_bytes(study, by_command_line, tmp_path):
    run_workflow("pinn_engine.bundle.PerfusionWorkflow", dataset_dir=str(study), output_dir=str(tmp_path))
    assert results(tmp_path) == by_command_line


def test_the_python_workflow_refuses_and_reports(tmp_path, capsys):
    dataset = tmp_path / "data"
    write_scan(dataset)
    with pytest.raises(SystemExit, match="2"):
        run_workflow("pinn_engine.bundle.PerfusionWorkflow", dataset_dir=str(dataset), output_dir=str(tmp_path / "out"), alhpa=1)
    assert "did you mean alpha?" in capsys.readouterr().err
    add_subject(dataset, "02").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="3"):
        run_workflow("pinn_engine.bundle.PerfusionWorkflow", dataset_dir=str(dataset), output_dir=str(tmp_path / "out"), **FAST)
    assert "error: sub-02: " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        PerfusionWorkflow(bundle_root=str(tmp_path))
    assert "give --bundle_root" in capsys.readouterr().err


def test_a_fault_of_ours_is_told_and_does_not_stop_the_study(tmp_path, monkeypatch, capsys):
    from pinn_engine import asl

    dataset = tmp_path / "data"
    write_scan(dataset)
    add_subject(dataset, "02")
    real = asl.fit

    def broken(scan, **arguments):
        if scan.prefix == "sub-01":
            raise ZeroDivisionError("on a Monday")
        return real(scan, **arguments)

    monkeypatch.setattr(asl, "fit", broken)
    assert run_bundle(ASL, dataset_dir=dataset, output_dir=tmp_path / "out", **FAST) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "error: sub-01: ZeroDivisionError: on a Monday" in err
    assert (tmp_path / "out" / "sub-02" / "perf" / "sub-02_cbf.nii.gz").is_file()


def test_handlers_attach_to_the_engine(study, tmp_path):
    seen = []

    class Count:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["id"]))

    workflow = PerfusionWorkflow(dataset_dir=str(study), output_dir=str(tmp_path), **FAST)
    workflow.initialize()
    Count().attach(workflow.evaluator)
    workflow.run()
    assert seen == ["sub-01"]


def test_tracking_without_mlflow_is_refused_before_anything_is_fitted(study, tmp_path):
    if find_spec("mlflow"):
        pytest.skip("mlflow is installed")
    with pytest.raises(RuntimeError):
        run_bundle(ASL, dataset_dir=study, output_dir=tmp_path / "out", tracking="mlflow")
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_settings_are_for_configs_only():
    from pinn_engine.bundle import settings

    with pytest.raises(RuntimeError, match="make Settings"):
        settings("asl")
    with pytest.raises(InputError, match="did you mean alpha"):
        Settings("asl", {"alph": 1})


def test_errors_against_a_phantoms_truth(study, tmp_path):
    """The evaluate config: rows by map and tissue beside a constant, and the key metric of the engine is one of them."""
    workflow = ConfigWorkflow(
        config(ASL, "inference", "evaluate"), logging_file=False, workflow_type="infer", dataset_dir=str(study), output_dir=str(tmp_path)
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    with open(tmp_path / "accuracy.tsv") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {(row["id"], row["map"]) for row in rows} == {("sub-01", "cbf"), ("sub-01", "att")}
    grey = {row["map"]: row for row in rows if row["region"] == "Grey matter"}
    state = workflow.evaluator.state
    assert state.metrics["gm_cbf_median_abs_error"] == pytest.approx(float(grey["cbf"]["median_abs_error"]))
    assert state.metrics["gm_att_median_abs_error"] == pytest.approx(float(grey["att"]["median_abs_error"]))
    assert state.best_metric == state.metrics["gm_cbf_median_abs_error"]
    assert 0 < float(grey["cbf"]["median_abs_error"]) < 25
    assert float(grey["cbf"]["constant_rmse"]) > 0
    assert "truth" in (tmp_path / "sub-01" / "perf" / "sub-01_report.html").read_text().lower()
