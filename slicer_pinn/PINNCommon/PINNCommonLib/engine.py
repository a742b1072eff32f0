"""Where the engine is and how it is called: always in a process of its own, never inside Slicer's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "run_engine.py"
OWN_PYTHON = "PINN_ENGINE_PYTHON"  # environment variable: a Python that has torch, in place of Slicer's


def engine_folder() -> Path:
    """The folder that holds the package `pinn_engine`: shipped with the extension, else of the source tree it is in."""
    for folder in (HERE / "engine", HERE.parents[2]):
        if (folder / "pinn_engine" / "__init__.py").is_file():
            return folder
    raise FileNotFoundError(f"The extension is incomplete: no pinn_engine in {HERE / 'engine'}; install the extension again.")


def uses_own_python() -> bool:
    """True where the user gave a Python for the engine: then nothing is installed into Slicer's."""
    return bool(os.environ.get(OWN_PYTHON))


def python() -> str:
    """The user's Python for the engine, or PythonSlicer, or (outside of Slicer) this one."""
    return os.environ.get(OWN_PYTHON) or shutil.which("PythonSlicer") or sys.executable


def command(arguments: Sequence[str]) -> list[str]:
    """The full command line of `pinn-engine ARGUMENTS`."""
    return [python(), str(SCRIPT), str(engine_folder()), *arguments]


def environment() -> dict[str, str]:
    """As Slicer was started, so that no Python is misled by the paths of Slicer's own; without Slicer, this process's."""
    import slicer

    startup = getattr(getattr(slicer, "app", None), "startupEnvironment", None)
    env = dict(slicer.util.startupEnvironment()) if startup is not None else dict(os.environ)
    return env | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
