"""run_one: the one way from a task to its outcome, which never raises for bad input or a fault of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pinn_engine import asl
from pinn_engine.asl.acquisition import AcquisitionOptions
from pinn_engine.asl.phantom import make, write_bids
from pinn_engine.cohort.one import BAD_INPUT, DONE, FAULT, Outcome, Task, run_one


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> dict[str, str]:
    phantom = make((12, 14, 8), seed=41, repeats=2)
    return {name: str(path) for name, path in write_bids(phantom, tmp_path_factory.mktemp("scan")).items()}


def log(folder: Path) -> dict:
    (path,) = (folder / "logs").iterdir()
    return json.loads(path.read_text())


def test_done(scan, tmp_path):
    told = []
    task = Task(scan["asl"], str(tmp_path), fit={"method": "nlls"}, truth={name: scan[name] for name in ("cbf", "att", "tissue")})
    outcome = run_one(task, lambda *event: told.append(event))
    assert outcome.code == DONE
    assert "voxels" in outcome.message
    assert "\n" not in outcome.message
    assert outcome.files
    assert all(Path(file).is_file() for file in outcome.files)
    assert outcome.summary["cbf_median"] > 0
    assert set(outcome.seconds) == {"read", "fit", "write"}
    assert outcome.detail == ""
    assert {stage for stage, _, _ in told} == {"read", "fit", "write"}
    assert "truth" in (tmp_path / "sub-01_report.html").read_text().lower()


def test_the_log_holds_the_task_as_it_was_asked(scan, tmp_path):
    options = AcquisitionOptions(alpha=0.8, plds=None)
    assert run_one(Task(scan["asl"], str(tmp_path), {"options": options}, {"method": "nlls"})).code == DONE
    kept = log(tmp_path)
    assert kept["task"]["input"] == scan["asl"]
    assert kept["task"]["fit"] == {"method": "nlls"}
    assert kept["task"]["read"]["options"]["alpha"] == 0.8
    assert kept["outcome"]["code"] == 0
    assert kept["time"].startswith("20")


BAD = {
    "missing": (lambda scan: Task("none_asl.nii.gz", ""), "none_asl.nii.gz: .*does not exist"),
    "mask": (lambda scan: Task(scan["asl"], "", {"mask": "none.nii"}), "none.nii: "),
    "option": (lambda scan: Task(scan["asl"], "", {}, {"method": "bayes"}), "--method is unknown"),
    "truth": (lambda scan: Task(scan["asl"], "", truth={"cbf": "none.nii"}), "none.nii: true cbf does not exist"),
}


@pytest.mark.parametrize(("make_task", "says"), BAD.values(), ids=BAD.keys())
def test_bad_input(make_task, says, scan, tmp_path):
    task = make_task(scan)
    outcome = run_one(Task(task.input, str(tmp_path), task.read, task.fit, task.truth, logs=str(tmp_path / "logs")))
    assert outcome.code == BAD_INPUT
    assert outcome.detail == ""
    assert outcome.files == ()
    assert "\n" not in outcome.message
    import re

    assert re.search(says, outcome.message)
    assert log(tmp_path)["outcome"]["code"] == BAD_INPUT
    assert not list(tmp_path.glob("*.nii.gz"))


@pytest.mark.parametrize("task", [{"read": {"m0_scale": float("inf")}}, {"fit": {"model_error": float("inf")}}], ids=["read", "fit"])
def test_infinite_options_are_bad_input(task, scan, tmp_path):
    outcome = run_one(Task(scan["asl"], str(tmp_path), **task, logs=str(tmp_path / "logs")))
    assert outcome.code == BAD_INPUT
    assert log(tmp_path)["outcome"]["code"] == BAD_INPUT


def test_a_folder_that_cannot_be_used_is_bad_input(scan, tmp_path):
    (tmp_path / "file").write_text("x")
    outcome = run_one(Task(scan["asl"], str(tmp_path / "file")))
    assert outcome.code == BAD_INPUT
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("where", ["read", "fit"])
def test_a_fault_of_ours_has_its_traceback(where, scan, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("on a Monday")

    monkeypatch.setattr(asl, where, broken)
    outcome = run_one(Task(scan["asl"], str(tmp_path)))
    assert outcome == Outcome(FAULT, "ZeroDivisionError: on a Monday", seconds=outcome.seconds, detail=outcome.detail)
    assert "Traceback" in outcome.detail
    assert "on a Monday" in outcome.detail
    assert log(tmp_path)["outcome"]["detail"] == outcome.detail
    assert not list(tmp_path.glob("*.nii.gz"))


def test_a_disk_that_fills_up_is_bad_input_and_leaves_whole_files(scan, tmp_path, monkeypatch):
    import errno
    import os

    from pinn_engine.files import output

    real, count = os.replace, []

    def full(source, target):
        count.append(target)
        if len(count) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(output.os, "replace", full)
    outcome = run_one(Task(scan["asl"], str(tmp_path), fit={"method": "nlls"}))
    assert outcome.code == BAD_INPUT
    assert "No space left" in outcome.message
    assert "--out" in outcome.message
    assert outcome.passing  # a study tries again once there is space
    assert not run_one(Task(str(tmp_path / "no.nii.gz"), str(tmp_path))).passing
    assert not list(tmp_path.rglob("*.tmp"))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6


def test_an_interrupt_is_not_swallowed(scan, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(asl, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_one(Task(scan["asl"], str(tmp_path)))


def test_the_door_is_light_until_it_is_used():
    import subprocess

    code = "import pinn_engine.cohort.one, sys; print('torch' in sys.modules, 'nibabel' in sys.modules)"
    root = Path(asl.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout == "False False\n"
