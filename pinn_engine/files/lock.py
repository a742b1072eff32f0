"""A lock on a file that the system itself lets go when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl

    def _lock(stream, wait: bool) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

except ImportError:  # Windows
    import msvcrt
    import time

    def _lock(stream, wait: bool) -> bool:
        while True:
            stream.seek(1 << 20)  # beyond what is written, so that others can read who holds it
            try:
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.2)


@contextlib.contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process got the lock; it says in the file who holds it. `wait`: until it does. The folder must exist.

    On a disk that knows no locks the answer is always yes: results are still written whole, at worst twice.
    """
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            mine = _lock(stream, wait)
        except OSError:  # ENOLCK, ENOTSUP
            mine = True
        if mine:
            stream.truncate(0)
            stream.write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
            stream.flush()
        yield mine


def holder(path: Path) -> str:
    """Who wrote itself into the lock last, in words."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"process {told['process']} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
