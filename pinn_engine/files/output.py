"""The one place that writes: each file appears under its final name whole or not at all, and only inside the output folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

from ..errors import InputError
from . import nifti
from .grid import Grid

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\.pinn_engine-([0-9a-f]{8})-(\d+)-([0-9a-f]{16})\.tmp")
_OLD = 24 * 3600.0  # s; a temporary file of another machine, whose processes we cannot ask, is given up after this
_in_use: set[str] = set()  # temporary files of this very process


class NotWritten(InputError):
    """The disk is full or may not be written to: no fault of what was read, and another try may end otherwise."""


class OutputFolder:
    """A folder for results; created if need be. Names are relative, with `/` between folders, and never lead outside.

    Raises InputError where the folder cannot be made or written to, where a file stands in its place, or when the disk is full.
    A run that was killed leaves at most hidden temporary files, which the next run removes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.abspath(path))
        self._cleaned: set[Path] = set()
        if self.path.exists() and not self.path.is_dir():
            raise InputError(path, "the output folder cannot be made", found="a file of that name", fix="give another folder with --out")
        self._prepare(self.path)
        # os.access says yes to root on read-only disks: only a real file tells.
        temporary = self._temporary(self.path)
        try:
            with self._faults_are_input(self.path), open(temporary, "wb"):
                pass
        finally:
            self._discard(temporary)

    def write_volume(self, name: str, data: np.ndarray, grid: Grid, *, labels: bool = False, description: str = "") -> Path:
        """A NIfTI image, float32 or (labels) uint8; ValueError if any value is not finite, for no such map may ever be written."""
        return self.write_bytes(
            name, nifti.encode(data, grid, labels=labels, description=description, compress=not name.lower().endswith(".nii"))
        )

    def write_json(self, name: str, content: Mapping[str, object]) -> Path:
        """Sorted keys, NumPy values as plain ones; ValueError for NaN and Inf, which JSON does not have."""
        text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
        return self.write_text(name, text + "\n")

    def write_tsv(self, name: str, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> Path:
        """A BIDS table, one mapping a row; columns in the order given or of the first row, n/a for None and what is not finite."""
        columns = list(columns if columns is not None else rows[0])
        lines = ["\t".join(columns), *("\t".join(_cell(row.get(column)) for column in columns) for row in rows)]
        return self.write_text(name, "\n".join(lines) + "\n")

    def write_description(self, about: Mapping[str, object]) -> bool:
        """dataset_description.json of a dataset that we made; one that is not ours stays as it is. True where it is ours."""
        target = self.locate("dataset_description.json")
        with self._faults_are_input(target):
            if target.is_file() and "pinn_engine" not in target.read_text(encoding="utf-8", errors="replace"):
                return False
        self.write_json(target.name, about)
        return True

    def write_text(self, name: str, text: str) -> Path:
        """UTF-8 with \\n line ends on every system."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write beside the target, flush to the disk, then rename over it."""
        target = self.locate(name)
        self._prepare(target.parent)
        self._refuse_escape(target, name)
        if target.is_dir() and not target.is_symlink():
            raise InputError(target, "cannot be written", found="a folder of that name", fix="move it away")
        temporary = self._temporary(target.parent)
        try:
            with self._faults_are_input(target):
                with open(temporary, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
                _sync_folder(target.parent)
        finally:
            self._discard(temporary)
        return target

    def remove(self, name: str) -> None:
        """Delete a file of this folder (or a link of that name, not what it leads to); nothing where there is none."""
        target = self.locate(name)
        self._refuse_escape(target, name)
        with self._faults_are_input(target):
            target.unlink(missing_ok=True)

    def locate(self, name: str) -> Path:
        """The path that `name` would be written to; ValueError if it leads outside (names are ours, so that is our fault)."""
        windows = PureWindowsPath(name)
        parts = name.split("/")
        if windows.drive or windows.root or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a name inside the output folder: {name!r}")
        return self.path.joinpath(*parts)

    def _refuse_escape(self, target: Path, name: str) -> None:
        """A link among the folders may lead outside; a link as the last part is replaced by the rename, never followed."""
        root, parent = self.path.resolve(), target.parent.resolve()
        if parent != root and root not in parent.parents:
            raise InputError(target.parent, f"a link leads outside the output folder: {name} not written", fix="remove the link")

    def _prepare(self, folder: Path) -> None:
        if folder != self.path:
            self._refuse_escape(folder, folder.name)  # before anything is created beyond a link
        if folder in self._cleaned and folder.is_dir():
            return
        with self._faults_are_input(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # another run has just tidied an empty parent away
                folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder)
        self._cleaned.add(folder)

    def _temporary(self, folder: Path) -> Path:
        name = f".pinn_engine-{_HOST}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
        _in_use.add(name)
        return folder / name

    @staticmethod
    def _discard(temporary: Path) -> None:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _in_use.discard(temporary.name)

    @staticmethod
    @contextlib.contextmanager
    def _faults_are_input(target: Path):
        try:
            yield
        except OSError as error:
            fix = "free space on the disk or give another --out" if error.errno in _FULL else "give a folder that can be written with --out"
            raise NotWritten(target, "cannot be written", found=error.strerror or error, fix=fix) from None


@contextlib.contextmanager
def folder_for(path: str | os.PathLike[str]):
    """An output folder while something is made for it: a folder that cannot be written is told before the work, and where the work
    fails, folders that were made here and are empty still are removed."""
    new = absent(path)
    try:
        yield OutputFolder(path)
    except BaseException:
        remove_empty(new)
        raise


def absent(path: str | os.PathLike[str]) -> list[Path]:
    """The folder and those above it that are not there yet, the innermost first."""
    return [place for place in (Path(path), *Path(path).parents) if not place.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove `folders`, the innermost first, up to one that is not empty: what was written stays."""
    with contextlib.suppress(OSError):
        for place in folders:
            place.rmdir()


def write_file(path: str | os.PathLike[str], content: bytes) -> Path:
    """One file by itself, whole or not at all; its folder is made if need be."""
    path = Path(path)
    return OutputFolder(path.parent).write_bytes(path.name, content)


def _full_codes() -> set[int]:
    import errno

    return {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}


_FULL = _full_codes()


def _remove_stale(folder: Path) -> None:
    """Temporary files that no living process will rename any more; others' runs in the same folder are left alone."""
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if not match or name in _in_use:
            continue
        host, process = match[1], int(match[2])
        with contextlib.suppress(OSError):
            old = time.time() - (folder / name).stat().st_mtime > _OLD
            if old or (host == _HOST and (process == os.getpid() or not _alive(process))):
                (folder / name).unlink()


def _alive(process: int) -> bool:
    """Whether a process of this machine runs; on Windows, where asking is not harmless, always yes."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _plain(value: object) -> object:
    """What json cannot write by itself: NumPy numbers and arrays, paths."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot be written to JSON: {type(value).__name__}")


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.7g}" if np.isfinite(value) else "n/a"
    return " ".join(str(value).split()) or "n/a"
