"""Progress on stderr: a bar for people, one JSON object a line for programs, or nothing."""

from __future__ import annotations

import json
import sys

from ..cohort.one import Progress

WIDTH = 24


def reporter(kind: str | None) -> Progress:
    """`kind`: bar, json or none; None = a bar on a terminal, nothing elsewhere."""
    if kind == "json":
        return _json
    if kind == "bar" or (kind is None and sys.stderr.isatty()):
        return _bar
    return lambda stage, done, message: None


def _json(stage: str, done: float, message: str) -> None:
    sys.stderr.write(json.dumps({"stage": stage, "done": round(done, 4), "message": message}) + "\n")
    sys.stderr.flush()


def _bar(stage: str, done: float, message: str) -> None:
    filled = round(WIDTH * done)
    sys.stderr.write(f"\r{message:<34} [{'#' * filled}{'.' * (WIDTH - filled)}] {done:4.0%}" + ("\n" if done >= 1 else ""))
    sys.stderr.flush()
