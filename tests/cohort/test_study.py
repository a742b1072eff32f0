"""What is a job, when it is done, what a rerun does: the ledger with a fit that only counts."""

from __future__ import annotations

import csv
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pinn_engine.cohort import ledger as module
from pinn_engine.cohort.group import title, without_folders, write_dataset, write_group
from pinn_engine.cohort.ledger import Ledger
from pinn_engine.cohort.one import BAD_INPUT, DONE, FAULT, Outcome, Task
from pinn_engine.cohort.run import Way, refuse_impossible, run_study
from pinn_engine.cohort.study import checked_identifier, input_files, key, make_job, refuse_doubles, shard
from pinn_engine.errors import InputError
from pinn_engine.files.output import OutputFolder


@pytest.fixture
def scans(tmp_path) -> Path:
    home = tmp_path / "in put ü"
    home.mkdir()
    for name in ("a", "b", "c"):
        (home / f"{name}_asl.nii").write_text(name)
        (home / f"{name}_asl.json").write_text("{}")
    (home / "mask.nii").write_text("mask")
    return home


@pytest.fixture
def jobs(scans, tmp_path):
    tasks = {name: Task(str(scans / f"{name}_asl.nii"), "", {"mask": str(scans / "mask.nii")}, {"seed": 0}) for name in "abc"}
    return [make_job(name, f"sub-{name}/perf", tmp_path / "out", task) for name, task in tasks.items()]


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """Names of the scans that were really fitted; `b` fails."""
    fitted: list[str] = []

    def fit(task, progress):
        name = Path(task.input).name[0]
        fitted.append(name)
        if progress:
            progress("fit", 0.5, "half way")
        if name == "b":
            return Outcome(BAD_INPUT, "b: is bad")
        file = OutputFolder(task.out).write_text(f"{name}.txt", name)
        return Outcome(DONE, "fine", (str(file),), {"cbf_median": 50.0}, {"fit": 0.1})

    monkeypatch.setattr(module, "run_one", fit)
    return fitted


def again(jobs, tmp_path, fits, **way):
    fits.clear()
    results = run_study(jobs, Ledger(tmp_path / "out"), Way(**way))
    return "".join(fits), {result.id: result.state for result in results}


def test_a_rerun_does_only_what_is_missing_or_changed(jobs, scans, tmp_path, fits, monkeypatch):
    states = {"a": "done", "b": "failed", "c": "done"}
    assert again(jobs, tmp_path, fits) == ("abc", states)
    assert again(jobs, tmp_path, fits) == ("", states)
    assert again(jobs, tmp_path, fits, retry_failed=True) == ("b", states)
    (scans / "a_asl.json").write_text('{"x": 1}')
    assert again(jobs, tmp_path, fits) == ("a", states)
    (scans / "c_aslcontext.tsv").write_text("volume_type")  # a new companion
    assert again(jobs, tmp_path, fits) == ("c", states)
    (scans / "mask.nii").write_text("another")
    assert again(jobs, tmp_path, fits) == ("abc", states)
    seeded = [replace(job, task=replace(job.task, fit={"seed": 1})) for job in jobs]
    assert again(seeded, tmp_path, fits) == ("abc", states)
    (tmp_path / "out" / "sub-a" / "perf" / "a.txt").unlink()
    assert again(seeded, tmp_path, fits) == ("a", states)
    (tmp_path / "out" / "logs" / "jobs" / "c.json").write_text('{"id": "c", "state": "done"')  # half a marker
    assert again(seeded, tmp_path, fits) == ("c", states)
    monkeypatch.setattr("pinn_engine.cohort.study.__version__", "99")
    assert again(seeded, tmp_path, fits) == ("abc", states)


def test_the_key_does_not_depend_on_where_the_study_stands(jobs, scans, tmp_path):
    before = [key(job) for job in jobs]
    assert len({*before}) == 3
    moved = scans.rename(tmp_path / "elsewhere")
    tasks = [Task(str(moved / f"{name}_asl.nii"), "", {"mask": str(moved / "mask.nii")}, {"seed": 0}) for name in "abc"]
    assert [key(make_job(name, "x", tmp_path / "new", task)) for name, task in zip("abc", tasks, strict=True)] == before


def test_inputs_are_the_scan_what_lies_beside_it_and_what_options_name(tmp_path):
    names = ["sub-1_asl.nii.gz", "sub-1_asl.json", "sub-1_aslcontext.tsv", "sub-1_m0scan.nii.gz", "sub-1_m0scan.json", "sub-10_asl.json"]
    for name in [*names, "sub-1_task.json"]:
        (tmp_path / name).write_text("{}")
    (tmp_path / "asl.json").write_text("{}")
    (tmp_path / "t1.nii").write_text("")
    task = Task(str(tmp_path / names[0]), "", {"t1_map": str(tmp_path / "t1.nii"), "options": {"plds": [1.8]}}, {"seed": "0"})
    assert {path.name for path in input_files(task)} == {*names[:-1], "sub-1_task.json", "asl.json", "t1.nii"}


def test_what_failed_for_want_of_a_disk_is_tried_again(jobs, tmp_path, fits, monkeypatch):
    """It was not the input's fault: no --retry-failed needed once there is space."""
    fine = module.run_one
    full = Outcome(BAD_INPUT, "x: cannot be written, found No space left on device", passing=True)
    monkeypatch.setattr(module, "run_one", lambda task, progress: full)
    assert {result.state for result in run_study(jobs, Ledger(tmp_path / "out"), Way())} == {"failed"}
    monkeypatch.setattr(module, "run_one", fine)
    assert again(jobs, tmp_path, fits) == ("abc", {"a": "done", "b": "failed", "c": "done"})


def test_cautions_are_kept(jobs, tmp_path, monkeypatch):
    """They are a fit's own words against its maps; a rerun and the group's table still have them."""
    careful = Outcome(DONE, "fine", cautions=("CBF is negative.", "The fit did not settle."))
    monkeypatch.setattr(module, "run_one", lambda task, progress: careful)
    assert run_study(jobs[:1], Ledger(tmp_path / "out"), Way())[0].cautions == careful.cautions
    rerun = run_study(jobs[:1], Ledger(tmp_path / "out"), Way())[0]
    assert (rerun.again, rerun.cautions) == (True, careful.cautions)
    write_group(Ledger(tmp_path / "out"))
    row = next(csv.DictReader((tmp_path / "out/group_desc-qualitycontrol_cbf.tsv").open(encoding="utf-8"), delimiter="\t"))
    assert row["cautions"] == "CBF is negative. | The fit did not settle."
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.index("Read before use") < page.index("CBF is negative.") < page.index("The fit did not settle.")


@pytest.mark.parametrize(("file", "table"), [("a_cardiac.vtp", "qualitycontrol_cardiac"), ("a_cbf.nii.gz", "qualitycontrol_cbf")])
def test_the_groups_table_is_called_after_what_was_fitted(jobs, tmp_path, monkeypatch, file, table):
    """A table of hearts had been called one of CBF."""

    def fit(task, progress):
        return Outcome(DONE, "fine", (str(OutputFolder(task.out).write_text(file, "x")),), {"CV_median": 0.6})

    monkeypatch.setattr(module, "run_one", fit)
    run_study(jobs[:1], Ledger(tmp_path / "out"), Way())
    write_group(Ledger(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("group_*")] == [f"group_desc-{table}.tsv"]


def test_a_vanished_input_is_told_in_one_line(jobs, scans, tmp_path, fits):
    (scans / "a_asl.nii").unlink()
    results = run_study(jobs, Ledger(tmp_path / "out"), Way())
    assert results[0].state == "failed"
    assert results[0].message.startswith(str(scans / "a_asl.nii"))
    assert "No such file" in results[0].message
    (scans / "a_asl.nii").write_text("a")  # it is back: no --retry-failed needed
    assert again(jobs, tmp_path, fits)[0] == "a"


def test_a_fault_of_ours_is_kept_with_its_traceback(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_one", lambda task, progress: Outcome(FAULT, "ValueError: x", detail="Traceback …"))
    result = run_study(jobs[:1], Ledger(tmp_path / "out"), Way())[0]
    assert (result.state, result.fault) == ("failed", True)
    assert json.loads((tmp_path / "out/logs/jobs/a.json").read_text())["detail"] == "Traceback …"


def test_a_marker_that_cannot_be_written_is_a_failure(jobs, tmp_path, fits, monkeypatch):
    book = Ledger(tmp_path / "out")

    def full(name, content):
        raise InputError(name, "cannot be written", found="No space left on device", fix="free space")

    monkeypatch.setattr(book.jobs, "write_json", full)
    book.work = OutputFolder(tmp_path / "work")
    result = book.run(jobs[0])
    assert result.state == "failed"
    assert "No space left" in result.message


def test_jobs_that_a_run_died_on_come_last(jobs, tmp_path, fits):
    book = Ledger(tmp_path / "out")
    book.work.write_json("a.begun", {"times": 2})
    told = []
    run_study(jobs, book, Way(), lambda *event: told.append(event))
    assert "".join(fits) == "bca"
    assert [message for stage, _, message in told if stage == "note"] == ["a: 2 run(s) ended abruptly while fitting it; it is taken last"]
    assert book.begun(jobs[0]) == 0
    shares = [done for stage, done, _ in told if stage == "study"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "3 of 3 done, 1 failed" in told[-1][2]


def test_two_runs_notice_each_other(jobs, tmp_path, fits):
    """While another process holds a job, this one does the others, then waits for it, and does not fit it again."""
    context = __import__("multiprocessing").get_context("fork")
    mine, theirs = context.Pipe()

    def other_run():
        def slow(task, progress):
            theirs.send("begun")
            time.sleep(1.0)
            return Outcome(DONE, "by the other")

        module.run_one = slow
        Ledger(tmp_path / "out").run(jobs[0])
        os._exit(0)

    process = context.Process(target=other_run)
    process.start()
    assert mine.recv() == "begun"
    told = []
    results = run_study(jobs, Ledger(tmp_path / "out"), Way(), lambda *event: told.append(event))
    process.join()
    assert "".join(fits) == "bc"
    assert results[0].message == "by the other"
    assert any(f"is being fitted by process {process.pid}" in message for _, _, message in told)


@pytest.mark.parametrize(("part", "ids"), [("1/1", "abc"), ("1/2", "ac"), ("2/2", "b"), ("3/5", "c"), ("5/5", "")])
def test_shard(jobs, part, ids):
    assert "".join(job.id for job in shard(jobs[::-1], part)) == ids


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "", "1/0", "1/2/3"])
def test_impossible_shard(jobs, part):
    with pytest.raises(InputError, match=r"^--shard: is no part of a whole"):
        shard(jobs, part)


@pytest.mark.parametrize("text", ["sub-01", "sub-01_ses-2", "Müller 3", "被験者1", "a.b", " x "])
def test_usable_identifiers(text):
    assert checked_identifier(text, "x") == text.strip()


@pytest.mark.parametrize(
    "text", ["", " ", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a\0b", "x" * 121, "LOGS", "a:b", "a\nb", "CON."]
)
def test_identifiers_cannot_climb(text):
    with pytest.raises(InputError, match="is no usable identifier"):
        checked_identifier(text, "table.csv: line 2")


def test_doubles_differing_in_capitals_are_refused(jobs):
    refuse_doubles(jobs, "x")
    with pytest.raises(InputError, match="two rows have one identifier, found a and A"):
        refuse_doubles([*jobs, replace(jobs[0], id="A")], "x")


@pytest.mark.parametrize(
    ("way", "line"),
    [
        (Way(processes=0), "--nprocs: must be at least 1"),
        (Way(scheduler="tcp://x:1"), "--scheduler: is for --cluster dask"),
        (Way(slurm={"queue": "x"}, cluster="dask"), "--slurm: is for --cluster slurm"),
    ],
)
def test_ways_that_cannot_be_gone(way, line):
    with pytest.raises(InputError, match=line):
        refuse_impossible(way)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "/data/my study/sub-1_asl.json: PostLabelingDelay is missing; give mL/g",
            "sub-1_asl.json: PostLabelingDelay is missing; give mL/g",
        ),
        (r"C:\data\sub-1_asl.nii: is bad, found /tmp/x.nii; give cbf/att", "sub-1_asl.nii: is bad, found x.nii; give cbf/att"),
        ("sub-1: a value of 3 / 4", "sub-1: a value of 3 / 4"),
    ],
)
def test_the_page_does_not_say_where_the_data_lie(message, shown):
    assert without_folders(message) == shown


def test_a_study_is_called_after_its_dataset(tmp_path):
    assert title(tmp_path) == tmp_path.name
    write_dataset(OutputFolder(tmp_path), tmp_path / "my data ü", "maps")
    assert title(tmp_path) == "my data ü"
