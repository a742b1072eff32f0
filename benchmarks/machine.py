"""Where and with what the figures were made, and how long something takes."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy
import torch

import pinn_engine

T = TypeVar("T")


def one_thread() -> None:
    torch.set_num_threads(1)


def best_of(count: int, work: Callable[[], T]) -> tuple[float, T]:
    """The shortest time of `count` runs, in CPU seconds of this process, and the last result.

    With one thread that is the time on an idle machine; wall time on a shared one would measure its other users.
    """
    shortest = float("inf")
    for _ in range(count):
        start = time.process_time()
        result = work()
        shortest = min(shortest, time.process_time() - start)
    return shortest, result


def description() -> list[str]:
    """Sentences on machine, date, commit and versions; no names of machines or people."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU at hand"
    load = f", load average at the start {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"Machine: {_processor()}, {os.cpu_count()} cores{_memory()}, {platform.system()}; one thread used{load}; {gpu}.",
        f"Date {date.today().isoformat()}, commit {_commit()}, pinn_engine {pinn_engine.__version__}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}.",
    ]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return ""


def _commit() -> str:
    """The short hash, with a note where tracked files of the engine differ from it."""
    here = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "pinn_engine")
        return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with uncommitted changes in pinn_engine" if changed else "")
    except OSError:
        return "unknown"
