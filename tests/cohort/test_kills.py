"""Processes that die: workers, whole runs, a subject that takes its worker with it. Nothing is lost, no file is half."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from poison import Deadly

from pinn_engine.asl.phantom import make, write_bids
from pinn_engine.cli import main
from pinn_engine.cohort.ledger import Ledger
from pinn_engine.cohort.one import Task
from pinn_engine.cohort.run import Way, run_study
from pinn_engine.cohort.study import make_job

SUBJECTS, KILLS = 4, 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Small scans of subjects 01 to 04 in a folder with a space and an umlaut."""
    home = tmp_path_factory.mktemp("data") / "Müller study"
    for number in range(1, SUBJECTS + 1):
        made = tmp_path_factory.mktemp("made")
        write_bids(make((10, 12, 6), seed=number, repeats=2), made)
        for file in (made / "sub-01" / "perf").iterdir():
            target = home / f"sub-{number:02}" / "perf" / file.name.replace("sub-01", f"sub-{number:02}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return home


def written(out: Path) -> list[Path]:
    """Maps, tables and pages: all but logs. While a run writes, what is listed may be gone when it is opened."""
    return [path for path in out.rglob("*") if path.is_file() and "logs" not in path.relative_to(out).parts]


def results(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in written(out)}


def bids(dataset: Path, out: Path, *options: str) -> list[str]:
    return ["bids", str(dataset), str(out), "participant", "--method", "nlls", "--progress", "none", *options]


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(bids(dataset, out)) == 0
    return results(out)


def jobs_of(dataset: Path, out: Path):
    scans = sorted(dataset.glob("sub-*/perf/*_asl.nii.gz"))
    return [make_job(path.parts[-3], f"{path.parts[-3]}/perf", out, Task(str(path), "", {}, {"method": "nlls"})) for path in scans]


def test_processes_write_the_same_as_one(dataset, undisturbed, tmp_path):
    assert main(bids(dataset, tmp_path, "--nprocs", "2")) == 0
    assert results(tmp_path) == undisturbed


def test_runs_killed_at_any_moment_end_in_the_same_maps(dataset, undisturbed, tmp_path):
    chance = random.Random(5)
    kills = 0
    while kills < KILLS:
        options = bids(dataset, tmp_path, *(("--nprocs", "2") if kills % 2 else ()))
        run = subprocess.Popen([sys.executable, "-m", "pinn_engine", *options], stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            # From the first marker on, so that the kills fall into the work and not into the imports.
            seen, until = len(written(tmp_path)), time.monotonic() + 60
            while len(written(tmp_path)) <= seen + chance.randrange(20) and run.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
        finally:
            if kills % 2:
                os.kill(run.pid, signal.SIGKILL)  # the parent alone: its workers must end with it
            else:
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        kills += 1
        for file in tmp_path.rglob("*.json"):
            assert file.read_text(encoding="utf-8").rstrip().endswith("}")
        if kills % 2 == 0:  # begin anew now and then, else the later kills would find nothing to disturb
            shutil.rmtree(tmp_path / "sub-02", ignore_errors=True)
    assert main(bids(dataset, tmp_path)) == 0
    assert results(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_subject_that_kills_its_worker_is_named_and_the_others_finish(dataset, undisturbed, tmp_path):
    jobs = jobs_of(dataset, tmp_path)
    jobs[1] = replace(jobs[1], task=replace(jobs[1].task, read=Deadly(os.getpid())))
    found = {result.id: result for result in run_study(jobs, Ledger(tmp_path), Way(processes=2))}
    assert [found[job.id].state for job in jobs] == ["done", "failed", "done", "done"]
    assert "sub-02_asl.nii.gz: ended the process that fitted it 3 times (killed" in found["sub-02"].message
    there = results(tmp_path)
    assert {name: undisturbed[name] for name in there} == there
    well = jobs_of(dataset, tmp_path)
    assert [result.state for result in run_study(well, Ledger(tmp_path), Way())] == ["done"] * SUBJECTS  # no --retry-failed needed


def test_a_worker_killed_once_is_replaced(dataset, undisturbed, tmp_path):
    jobs = jobs_of(dataset, tmp_path / "out")
    jobs[2] = replace(jobs[2], task=replace(jobs[2].task, read=Deadly(os.getpid(), str(tmp_path / "struck"))))
    found = run_study(jobs, Ledger(tmp_path / "out"), Way(processes=2))
    assert (tmp_path / "struck").exists()
    assert [result.state for result in found] == ["done"] * SUBJECTS


def test_workers_get_the_environment_of_their_number(dataset, tmp_path):
    from pinn_engine.cohort.run import one_gpu_each

    assert [one_gpu_each(2)(number)["CUDA_VISIBLE_DEVICES"] for number in range(4)] == ["0", "1", "0", "1"]
    assert one_gpu_each(0)(1) == {}


def test_ctrl_c_leaves_whole_files(dataset, tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-m", "pinn_engine", *bids(dataset, tmp_path, "--nprocs", "2")], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("*_cbf.nii.gz")) and time.monotonic() < until:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopped: files under their final names are whole" in said
    assert "Traceback" not in said
