"""`run_one(task) -> Outcome`: the only function that reads, fits, reports and writes; every door calls it."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import InputError

Progress = Callable[[str, float, str], None]  # stage, share done 0-1, message

DONE, FAULT, BAD_INPUT, SOME_FAILED = 0, 1, 2, 3  # exit codes of every door


@dataclass(frozen=True)
class Task:
    """One scan to fit. `read`, `fit` are the keyword arguments of the organ's read and fit; `truth` are files of a phantom's true maps.

    `organ`: "asl" or "cardiac"; `save`: keyword arguments of the organ's `save`; `logs`: folder of the run's record, default out/logs.
    """

    input: str
    out: str
    read: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, str] = field(default_factory=dict)
    keep: bool = False  # hand the fit itself back in the outcome
    organ: str = "asl"
    save: Mapping[str, Any] = field(default_factory=dict)
    logs: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: `code` as the exit codes, `message` one line, `files` written, `summary` the quality figures."""

    code: int
    message: str
    files: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()  # what a person must know before using the maps
    detail: str = ""  # the traceback of a fault of ours
    passing: bool = False  # it failed for want of a disk to write to, not by its input: worth another try
    fit: Any = None  # the result in memory, where the task asks to keep it


def run_one(task: Task, progress: Progress | None = None) -> Outcome:
    """Read, fit, report, write. Never raises for bad input or for a fault of ours: the outcome says so."""
    from ..files.output import NotWritten, OutputFolder, absent, remove_empty

    clock: dict[str, float] = {}
    folder = None
    new = absent(task.out)
    try:
        folder = OutputFolder(task.out)
        outcome = {"asl": _perfusion, "cardiac": _heart}[task.organ](task, folder, clock, progress or (lambda stage, done, message: None))
    except InputError as error:
        outcome = Outcome(BAD_INPUT, str(error), seconds=clock, passing=isinstance(error, NotWritten))
    except Exception as error:
        outcome = Outcome(FAULT, f"{type(error).__name__}: {error}", seconds=clock, detail=traceback.format_exc())
    refused = outcome.code == BAD_INPUT and task.logs is None  # a call by itself says all on stderr
    if folder is not None and not refused:
        _log(task, outcome)
    if outcome.code != DONE:
        remove_empty(new)
    return outcome


def _perfusion(task: Task, folder, clock: dict[str, float], progress: Progress) -> Outcome:
    from .. import asl
    from ..asl.quality import cautions, quality
    from ..asl.save import save
    from ..files import nifti
    from ..report.perfusion import write_report

    timed = _timer(clock, progress)
    end = timed("read", f"reading {Path(task.input).name}")
    scan = asl.read(task.input, **task.read)
    truth = {name: nifti.read(path, what=f"true {name}")[0] for name, path in task.truth.items()}
    end()
    voxels = int(scan.mask.sum())
    end = timed("fit", f"fitting {voxels:,} voxels")
    fit = asl.fit(scan, **task.fit, progress=lambda stage, done: progress(stage, done, f"fitting {voxels:,} voxels"))
    end()
    end = timed("write", f"writing {folder.path.name}")
    files = save(fit, folder, **task.save)
    files.append(folder.write_text(f"{scan.prefix}_report.html", write_report(fit, truth or None)))
    end()
    message = f"{voxels:,} voxels in {sum(clock.values()):.1f} s; report: {files[-1]}"
    told = tuple(cautions(fit))
    return Outcome(DONE, message, tuple(str(f) for f in files), quality(fit), dict(clock), told, fit=fit if task.keep else None)


def _heart(task: Task, folder, clock: dict[str, float], progress: Progress) -> Outcome:
    from ..cardiac.fit import fit as fit_heart
    from ..cardiac.read import read
    from ..cardiac.save import check_volumes, quality, save
    from ..report.heart import write_report

    timed = _timer(clock, progress)
    end = timed("read", f"reading {Path(task.input).name}")
    data = read(task.input, **task.read)
    lacking = check_volumes(data, **task.save)
    data = replace(data, notes=(*lacking, *data.notes))
    end()
    words = f"fitting {len(data.mesh.points):,} nodes"
    end = timed("fit", words)
    fit = fit_heart(data, **task.fit, progress=lambda stage, done: progress(stage, done, words))
    end()
    end = timed("write", f"writing {folder.path.name}")
    files = save(fit, folder, **task.save)
    files.append(folder.write_text(f"{data.prefix}_report.html", write_report(fit)))
    end()
    message = f"{len(data.mesh.points):,} nodes in {sum(clock.values()):.1f} s; report: {files[-1]}"
    return Outcome(DONE, message, tuple(str(f) for f in files), quality(fit), dict(clock), (*lacking, *fit.doubts))


def _timer(clock: dict[str, float], progress: Progress) -> Callable[[str, str], Callable[[], None]]:
    def timed(stage: str, message: str) -> Callable[[], None]:
        progress(stage, 0.0, message)
        begin = time.perf_counter()

        def end() -> None:
            clock[stage] = round(time.perf_counter() - begin, 3)
            progress(stage, 1.0, message)

        return end

    return timed


def _log(task: Task, outcome: Outcome) -> None:
    """Times and dates go to logs/ only, so that maps and tables of equal runs are equal bytes."""
    from ..files.output import OutputFolder

    now = datetime.now(timezone.utc)
    content = {"task": asdict(task), "outcome": asdict(replace(outcome, fit=None)), "time": now.isoformat(timespec="seconds")}
    try:
        OutputFolder(task.logs or Path(task.out) / "logs").write_json(f"{now:%Y%m%dT%H%M%S%f}.json", printable(content))
    except InputError:
        return  # the disk is full or gone: the outcome itself says it


def printable(value: object) -> Any:
    """What JSON can hold of it: numbers that are not finite, paths and all else as text."""
    if isinstance(value, Mapping):
        return {str(k): printable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [printable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
