"""What is known of each job of a study: done, failed, being fitted, or begun by a run that died. Plain files, no database.

`logs/jobs/ID.json` is the marker, written last, after every result: a job is done when its marker carries the key of the job as it is
asked now and every file that it names stands there. `ID.lock` is held by the process that fits it. `ID.begun` counts beginnings that
have not ended.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from .. import __version__
from ..errors import InputError
from ..files.lock import held, holder
from ..files.output import OutputFolder
from .one import BAD_INPUT, DONE, FAULT, Outcome, Progress, printable, run_one
from .study import Job, key

State = Literal["new", "done", "failed", "changed"]


@dataclass(frozen=True)
class Result:
    """What became of a job. `state`: done, failed, or busy (another run holds it); `again`: nothing had to be fitted."""

    id: str
    state: Literal["done", "failed", "busy"]
    message: str
    seconds: float = 0.0
    again: bool = False
    fault: bool = False  # ours, not the input's
    summary: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    files: Mapping[str, int] = field(default_factory=dict)  # of the study's folder: name, bytes
    cautions: tuple[str, ...] = ()  # what a person must know before using the maps


class Ledger:
    """The markers of one study's folder; `work` holds locks and beginnings (default: beside the markers)."""

    def __init__(self, out: str | Path, work: str | Path | None = None):
        self.out = OutputFolder(out).path
        self.jobs = OutputFolder(self.out / "logs" / "jobs")
        self.work = OutputFolder(work) if work else self.jobs

    @property
    def place(self) -> tuple[str, str | None]:
        """The arguments that make this ledger again in another process."""
        return str(self.out), None if self.work is self.jobs else str(self.work.path)

    def state(self, job: Job) -> tuple[State, Result | None]:
        """`changed`: done or failed with other inputs, options or version, or some of its files are gone."""
        marker = self._read(self.jobs.path / f"{job.id}.json")
        if marker is None:
            return "new", None
        last = _result(marker)
        if last is None:
            return "new", None
        try:
            same = marker.get("key") == key(job)
        except OSError:
            same = False
        if not same or (last.state == "done" and not self._whole(last)):
            return "changed", last
        return ("done" if last.state == "done" else "failed"), last

    def results(self) -> list[Result]:
        """Of every marker, whoever wrote it, in the order of identifiers."""
        read = (self._read(path) for path in sorted(self.jobs.path.glob("*.json")))
        return [result for marker in read if marker is not None and (result := _result(marker)) is not None]

    def begun(self, job: Job) -> int:
        """How often the job was begun without coming to an end since it last did."""
        told = self._read(self.work.path / f"{job.id}.begun")
        times = told.get("times") if told else 0
        return times if isinstance(times, int) else 0

    def run(self, job: Job, progress: Progress | None = None, *, retry_failed: bool = False, wait: bool = False) -> Result:
        """Fit the job unless that is done already, by whoever; never raises but for KeyboardInterrupt."""
        try:
            with held(self.work.path / f"{job.id}.lock", wait=wait) as mine:
                if not mine:
                    return Result(job.id, "busy", f"is being fitted by {holder(self.work.path / (job.id + '.lock'))}", where=job.where)
                return self._run(job, progress, retry_failed)
        except InputError as error:
            return Result(job.id, "failed", str(error), where=job.where)
        except OSError as error:
            return Result(job.id, "failed", f"{self.work.path}: {error.strerror or error}", where=job.where)

    def _run(self, job: Job, progress: Progress | None, retry_failed: bool) -> Result:
        state, last = self.state(job)
        if last is not None and (state == "done" or (state == "failed" and not retry_failed)):
            return Result(**{**vars(last), "again": True})
        self.work.write_json(f"{job.id}.begun", {"times": self.begun(job) + 1})
        try:
            asked = key(job)
        except OSError as error:
            name = error.filename or job.task.input
            missing = InputError(name, "cannot be read", found=error.strerror or error, fix="check the path and its permissions")
            return self.record(job, None, Outcome(BAD_INPUT, str(missing)))
        outcome = run_one(job.task, progress)
        return self.record(job, None if outcome.passing else asked, outcome)

    def record(self, job: Job, asked: str | None, outcome: Outcome) -> Result:
        """Write the marker; where that is impossible the job has failed."""
        files = {Path(file).relative_to(self.out).as_posix(): Path(file).stat().st_size for file in outcome.files}
        result = Result(
            job.id,
            "done" if outcome.code == DONE else "failed",
            outcome.message,
            round(sum(outcome.seconds.values()), 3),
            fault=outcome.code == FAULT,
            summary=printable(outcome.summary),
            where=job.where,
            files=files,
            cautions=outcome.cautions,
        )
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = {**vars(result), "key": asked, "version": __version__, "time": now, "detail": outcome.detail}
        try:
            self.jobs.write_json(f"{job.id}.json", content)
        except InputError as error:
            return Result(job.id, "failed", str(error), where=job.where)
        with contextlib.suppress(OSError):
            (self.work.path / f"{job.id}.begun").unlink(missing_ok=True)
        return result

    def died(self, job: Job, how: str) -> Result:
        """The process that fitted the job died every time. The next run tries again, for no input need be wrong (memory, power)."""
        return self.record(job, None, Outcome(BAD_INPUT, how))

    def _whole(self, result: Result) -> bool:
        try:
            return all((self.out / name).stat().st_size == size for name, size in result.files.items())
        except OSError:
            return False

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None


def _result(marker: Mapping[str, Any]) -> Result | None:
    """None for a file that is no marker of ours: the job is then fitted again."""
    texts, others = ("id", "state", "message", "where"), {"seconds": (int, float), "fault": bool, "summary": dict, "files": dict}
    kinds: dict[str, Any] = dict.fromkeys(texts, str) | others
    if not all(isinstance(marker.get(name), kind) for name, kind in kinds.items()) or marker["state"] not in ("done", "failed"):
        return None
    told = marker.get("cautions")
    cautions = tuple(map(str, told)) if isinstance(told, list) else ()
    return Result(**{name: marker[name] for name in kinds}, cautions=cautions)
