"""One run of a panel: install what is missing, write the inputs, fit in a subprocess, make nodes of what came out."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import engine
from .explain import INSTALL, RETRY_ON_CPU, Problem, explain
from .install import InstallLogic, NotInstalled
from .job import Job
from .signal import Signal

IDLE, INSTALLING, RUNNING, CANCELLING, DONE, FAILED = "idle", "installing", "running", "cancelling", "done", "failed"
BUSY = (INSTALLING, RUNNING, CANCELLING)
INTERVAL = 50  # ms between two looks at the subprocess


@dataclass(frozen=True)
class Work:
    """What a panel asks for. `prepare(folder)` writes the inputs into a private folder and returns the engine's arguments without the
    device; `collect(folder)` makes nodes of the outputs and returns one sentence. Both raise Problem with one sentence for the person."""

    prepare: Callable[[Path], Sequence[str]]
    collect: Callable[[Path], str]
    device: str | None = "auto"  # None: a command that takes neither device nor progress
    words: Callable[[str, str], str] = lambda sentence, folder: sentence  # the engine's line and the folder, in the panel's words


class Run:
    """States: idle, installing, running, cancelling, done, failed. All signals come on the main thread."""

    def __init__(self, install: InstallLogic | None = None, command: Callable[[Sequence[str]], list[str]] = engine.command) -> None:
        self.install = install or InstallLogic()
        self.command = command
        self.stateChanged, self.progressed, self.logged = Signal(), Signal(), Signal()
        self.state, self.message = IDLE, ""
        self.seconds = 0.0  # from the start to the last change of state
        self._timer: object = None
        self._job: Job | None = None
        self._work: Work | None = None
        self._folder: Path | None = None
        self._arguments: list[str] = []
        self._device: str | None = "auto"
        self._begin = 0.0

    @property
    def busy(self) -> bool:
        return self.state in BUSY

    def start(self, work: Work, *, wait: bool = False) -> bool:
        """Begin, and return; with `wait`, return at the end. True unless it failed or was cancelled by then."""
        if self.busy:
            raise RuntimeError("A fit is running; cancel it first.")
        self._work, self._device, self._begin = work, work.device, time.monotonic()
        try:
            if self.install.missing():
                self._to(INSTALLING, "Installing what the engine needs …")
                self.install.install()
            self._to(RUNNING, "Writing the inputs …")
            self._folder = Path(tempfile.mkdtemp(prefix="pinn-"))
            self._arguments = list(work.prepare(self._folder))
            self._launch()
        except (NotInstalled, Problem, OSError) as error:
            self._remove_folder()
            self._to(FAILED, str(error))
        except BaseException:
            self._remove_folder()
            self._to(FAILED, "This is a fault of ours: see the Python console.")
            raise
        if wait:
            while self.state in (RUNNING, CANCELLING):
                self.poll()
                time.sleep(0.02)
        elif self.busy:
            self._start_timer()
        return self.state not in (FAILED, IDLE)

    def cancel(self) -> None:
        """Stop the subprocess and its children; the state is cancelling until they are gone, then idle."""
        if self.state == RUNNING and self._job is not None:
            self._to(CANCELLING, "Cancelling …")
            self._job.cancel()

    def poll(self) -> None:
        """Look at the subprocess; called by the timer."""
        if self._job is not None:
            self._job.poll()

    def close(self) -> None:
        """Cancel and wait until nothing runs: for the end of the panel or of Slicer."""
        self.cancel()
        while self.state == CANCELLING:
            self.poll()
            time.sleep(0.01)

    def _launch(self) -> None:
        assert self._folder is not None
        options = [] if self._device is None else ["--device", self._device, "--progress", "json"]
        self._job = Job(self.command([*self._arguments, *options]), self._folder / "log.txt", engine.environment())
        self._job.progressed.connect(self._on_progress)
        self._job.logged.connect(self.logged.emit)
        self._job.ended.connect(self._on_end)
        self._job.start()

    def _on_progress(self, done: float, message: str) -> None:
        if self.state == RUNNING:
            self.message = message
            self.progressed.emit(done, message)

    def _on_end(self, code: int) -> None:
        assert self._job is not None
        assert self._work is not None
        assert self._folder is not None
        job, self._job = self._job, None
        if self.state == CANCELLING:
            self._finish(IDLE, "Cancelled.")
            return
        if code != 0:
            self._failed(job.lines, code)
            return
        try:
            sentence = self._work.collect(self._folder)
        except Problem as error:
            self._keep_folder(str(error))
        except BaseException:
            self._keep_folder("This is a fault of ours: see the Python console.")
            raise
        else:
            self._finish(DONE, sentence)

    def _failed(self, lines: Sequence[str], code: int) -> None:
        found = explain(lines, code)
        if found.action == RETRY_ON_CPU and self._device not in ("cpu", None):
            self._device = "cpu"
            self.logged.emit(f"{found.sentence} Trying again on the CPU.")
            self._launch()
            return
        advice = f" {self.install.report()}." if found.action == INSTALL else ""
        assert self._work is not None
        self._keep_folder(self._work.words(found.sentence, str(self._folder)) + advice)

    def _keep_folder(self, sentence: str) -> None:
        """After a failure inputs and log stay, and the log says where: they may be needed to find the cause."""
        self.logged.emit(f"Inputs and log of the failed run are kept in {self._folder}")
        self._folder = None
        self._finish(FAILED, sentence)

    def _finish(self, state: str, sentence: str) -> None:
        self._stop_timer()
        self._remove_folder()
        self._to(state, sentence)

    def _to(self, state: str, message: str) -> None:
        self.state, self.message, self.seconds = state, message, time.monotonic() - self._begin
        self.stateChanged.emit(state, message)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start_timer(self) -> None:
        import qt

        if self._timer is None:
            timer = qt.QTimer()
            timer.setInterval(INTERVAL)
            timer.connect("timeout()", self.poll)
            self._timer = timer
        self._timer.start()  # type: ignore[attr-defined]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()  # type: ignore[attr-defined]
