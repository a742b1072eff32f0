"""One call of the engine as a subprocess: started, watched, cancelled with its children.

Its output goes to a file in the run's private folder, and what is new in it is read from time to time on the main thread. No pipes, no
threads, nothing that differs between Slicer versions or operating systems; and after a failure the whole log is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .signal import Signal

GRACE = 3.0  # s between asking the engine to stop and killing it
TAIL = 400  # lines kept in memory
STAGES = {"read": (0.0, 0.1), "fit": (0.1, 0.8), "write": (0.9, 0.1)}  # where a stage of the engine begins, and its share of the bar


class Job:
    """`progressed(done 0-1, message)`, `logged(line)`, `ended(code)` are emitted by `poll`, on the thread that calls it."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = Path(log)
        self.environment = None if environment is None else dict(environment)
        self.progressed, self.logged, self.ended = Signal(), Signal(), Signal()
        self.lines: list[str] = []  # the last lines that were no progress
        self.code: int | None = None
        self._process: subprocess.Popen | None = None
        self._engine: int | None = None  # process id of the engine itself, which is not the launcher's
        self._read, self._partial = 0, b""
        self._cancelled: float | None = None
        self._asked = False

    def start(self) -> None:
        """Raises OSError where the command cannot be started."""
        options: dict = {}
        if os.name == "nt":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW
        with open(self.log, "wb") as output:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment, **options
            )

    @property
    def cancelled(self) -> bool:
        return self._cancelled is not None

    def cancel(self) -> None:
        """Ask the engine to stop; `poll` kills it where it does not within GRACE."""
        if self.code is None and not self.cancelled:
            self._cancelled = time.monotonic()
            self._stop()

    def poll(self) -> bool:
        """Emit what is new; True while the subprocess runs. The last thing emitted is `ended`."""
        if self.code is not None or self._process is None:
            return False
        code = self._process.poll()
        self._read_new()
        if code is None:
            if self.cancelled:
                self._stop()
            return True
        self.code = code
        if self.cancelled and self._engine is not None:
            _signal_group(self._engine, force=True)  # children that did not listen
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        self.ended.emit(code)
        return False

    def wait(self, interval: float = 0.02) -> int:
        """Poll until the end; returns the exit code."""
        while self.poll():
            time.sleep(interval)
        assert self.code is not None
        return self.code

    def _stop(self) -> None:
        """Once politely, then by force. The engine's id is told in the first line; until then there is nothing worth killing."""
        assert self._process is not None
        assert self._cancelled is not None
        late = time.monotonic() - self._cancelled > GRACE
        if self._engine is not None:
            if not self._asked or late:
                _signal_group(self._engine, force=late)
                self._asked = True
        elif late:
            self._process.kill()
        if late and time.monotonic() - self._cancelled > 2 * GRACE:
            self._process.kill()  # a launcher that outlives the engine

    def _read_new(self) -> None:
        with open(self.log, "rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        self._read += len(new)
        *whole, self._partial = (self._partial + new).split(b"\n")
        for line in whole:
            self._line(line)

    def _line(self, raw: bytes) -> None:
        text = raw.decode("utf-8", errors="replace").rstrip()
        said = _json(text)
        if "pid" in said:
            self._engine = int(said["pid"])
        elif "done" in said:
            begin, share = STAGES.get(str(said.get("stage")), (0.0, 1.0))
            self.progressed.emit(begin + share * float(said["done"]), str(said.get("message", "")))
        elif text:
            self.lines = [*self.lines[-TAIL:], text]
            self.logged.emit(text)


def _json(text: str) -> dict:
    """The object on a line of progress; empty for any other line."""
    if not text.startswith("{"):
        return {}
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _signal_group(pid: int, *, force: bool) -> None:
    """Stop a process and its children; it leads a group of its own (see run_engine.py)."""
    if os.name == "nt":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW
        )
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # already gone
        os.killpg(pid, signals.SIGKILL if force else signals.SIGTERM)
