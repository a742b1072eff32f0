"""Nothing half-written stands under a final name, and nothing is written outside the folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.errors import InputError
from pinn_engine.files import output
from pinn_engine.files.grid import Grid
from pinn_engine.files.output import OutputFolder

GRID = Grid((2, 2, 2), np.diag([2.0, 2, 2, 1]))


def test_every_kind_of_file(tmp_path):
    out = OutputFolder(tmp_path / "new" / "folder")
    out.write_volume("x_cbf.nii.gz", np.ones((2, 2, 2)), GRID)
    out.write_json("x.json", {"b": np.float32(0.5), "a": np.arange(2), "é": True})
    out.write_tsv("x.tsv", [{"name": "gm", "mean": 51.25, "n": 3}, {"name": "a\tb", "mean": float("nan"), "n": None}])
    out.write_text("logs/run.txt", "one\n")
    assert np.all(nib.load(out.path / "x_cbf.nii.gz").get_fdata() == 1)
    text = (out.path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [0, 1], "b": 0.5, "é": True}
    assert text.index('"a"') < text.index('"b"')
    assert (out.path / "x.tsv").read_bytes() == b"name\tmean\tn\ngm\t51.25\t3\na b\tn/a\tn/a\n"
    assert (out.path / "logs/run.txt").read_bytes() == b"one\n"
    assert sorted(path.name for path in out.path.rglob("*")) == ["logs", "run.txt", "x.json", "x.tsv", "x_cbf.nii.gz"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name, order in (("a", (1, 2)), ("b", (2, 1))):
        out = OutputFolder(tmp_path / name)
        out.write_json("x.json", {str(key): key for key in order})
        out.write_volume("x.nii.gz", np.arange(8.0).reshape(2, 2, 2), GRID)
    for name in ("x.json", "x.nii.gz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "", ".", "..", "a//b", "C:/x", "C:x", "a\\b", "\\\\host\\x", "a\0b", "a/"])
def test_names_stay_inside(tmp_path, name):
    out = OutputFolder(tmp_path / "out")
    with pytest.raises(ValueError, match="inside the output folder"):
        out.write_text(name, "x")
    assert list(tmp_path.rglob("x")) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_lead_nowhere(tmp_path):
    outside, out = tmp_path / "outside", OutputFolder(tmp_path / "out")
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (out.path / "logs").symlink_to(outside, target_is_directory=True)
    (out.path / "report").symlink_to(outside / "kept")
    for name in ("logs/x", "logs/deeper/x"):
        with pytest.raises(InputError, match="outside the output folder"):
            out.write_text(name, "x")
    out.write_text("report", "new")  # replaces the link, does not follow it
    assert sorted(os.listdir(outside)) == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert (out.path / "report").read_text() == "new"


def test_what_is_not_finite_is_never_written(tmp_path):
    out = OutputFolder(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        out.write_volume("x.nii.gz", np.full((2, 2, 2), np.nan), GRID)
    with pytest.raises(ValueError, match=r"[Oo]ut of range float"):
        out.write_json("x.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


FAULTS = {  # the call that fails, with which error, and a word of the advice
    "disk full": ("fsync", errno.ENOSPC, "free space"),
    "quota": ("fsync", errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC, "free space"),
    "read-only": ("replace", errno.EROFS, "--out"),
    "not permitted": ("replace", errno.EACCES, "--out"),
}


@pytest.mark.parametrize(("call", "code", "advice"), FAULTS.values(), ids=FAULTS.keys())
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, call, code, advice):
    out = OutputFolder(tmp_path)
    out.write_text("x.txt", "old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(output.os, call, fail)
    with pytest.raises(InputError, match=advice):
        out.write_text("x.txt", "new")
    assert os.listdir(tmp_path) == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    out = OutputFolder(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(output.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        out.write_text("x.txt", "new")
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--out"):
            OutputFolder(path)
    (tmp_path / "out" / "x.json").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder of that name"):
        OutputFolder(tmp_path / "out").write_json("x.json", {})


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may write anywhere, so that a mode bit would prove nothing
    with pytest.raises(InputError, match=r"Permission denied.*--out"):
        OutputFolder(tmp_path)


def test_temporary_files_of_dead_runs_are_removed_and_no_others(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    host, token = output._HOST, "0123456789abcdef"
    names = {
        f".pinn_engine-{host}-{dead}-{token}.tmp": False,  # its process has ended
        f".pinn_engine-{host}-{os.getpid()}-{token}.tmp": False,  # our number, but of an earlier life: containers always have 1
        f".pinn_engine-{host}-{os.getppid()}-{token}.tmp": True,  # lives
        f".pinn_engine-00000000-{dead}-{token}.tmp": True,  # of another machine, recent
        f".pinn_engine-00000000-{dead}-{token[::-1]}.tmp": False,  # of another machine, old
        "notes.tmp": True,
        ".pinn_engine-important.tmp": True,
    }
    for name in names:
        (tmp_path / name).write_text("x")
    old = time.time() - 2 * 24 * 3600
    os.utime(tmp_path / f".pinn_engine-00000000-{dead}-{token[::-1]}.tmp", (old, old))
    OutputFolder(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


WRITER = """
import sys
from pinn_engine.files.output import OutputFolder
out = OutputFolder(sys.argv[1])
number = 0
while True:
    out.write_bytes("x.bin", bytes([65 + number % 26]) * 300_000)
    if not number:
        print("ready", flush=True)
    number += 1
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    for wait in (0.0, 0.013, 0.031):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = (tmp_path / "x.bin").read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    OutputFolder(tmp_path)
    assert os.listdir(tmp_path) == ["x.bin"]
