"""A study: many jobs, each the fit of one scan or heart, whose results stand in one folder. What is a job, what decides its result."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from .one import Task, printable

RESERVED = {"logs"}
LONGEST = 120  # characters of an identifier: file systems allow 255 bytes a name


@dataclass(frozen=True)
class Job:
    """One subject's fit. `id` is unique in the study and safe as a file name; results go to `where` inside the study's folder."""

    id: str
    where: str
    task: Task


def make_job(id: str, where: str, out: str | os.PathLike[str], task: Task) -> Job:
    """The job with its folders set: results in out/where, the records of its runs in out/logs/subjects/id."""
    study = Path(os.path.abspath(out))
    save = {**task.save, "dataset": False} if task.organ == "asl" else task.save
    placed = replace(task, input=os.path.abspath(task.input), out=str(study / where), logs=str(study / "logs" / "subjects" / id), save=save)
    return Job(id, where, placed)


def checked_identifier(text: str, where: str) -> str:
    """An identifier that is one plain file name: letters and digits of any script, space, `.`, `_`, `-`; InputError else."""
    text = unicodedata.normalize("NFC", text.strip())
    plain = bool(text) and all(c.isalnum() or c in " ._-" or unicodedata.category(c).startswith("M") for c in text)
    if not plain or text[0] in ".-" or text[-1] == "." or len(text.encode()) > LONGEST or text.casefold() in RESERVED:
        fix = f"use letters, digits, space, . _ and - (at most {LONGEST} bytes, not {' or '.join(sorted(RESERVED))})"
        raise InputError(where, "is no usable identifier", found=repr(text[:80]), fix=fix)
    return text


def refuse_doubles(jobs: Sequence[Job], where: str) -> None:
    """Two jobs of one name would write over each other, on some file systems also where only capitals differ."""
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.id.casefold(), job)
        if other is not job:
            raise InputError(where, "two rows have one identifier", found=f"{other.id} and {job.id}", fix="give each its own")


def shard(jobs: Sequence[Job], part: str) -> list[Job]:
    """Part i of n, `i/n` counted from 1: every n-th job in the order of identifiers, the same on every machine."""
    try:
        i, n = (int(number) for number in part.split("/"))
        if not 1 <= i <= n:
            raise ValueError
    except ValueError:
        raise InputError("--shard", "is no part of a whole", found=part, fix="give i/n with 1 <= i <= n, such as 3/10") from None
    return sorted(jobs, key=lambda job: job.id)[i - 1 :: n]


def key(job: Job) -> str:
    """A digest of all that decides the job's maps: the engine's version, every option, and the content of every input file.

    Folders do not count, so a study that moved to another disk is still done. Raises OSError where an input cannot be read.
    """
    task = job.task
    files = input_files(task)
    asked = printable({name: value for name, value in asdict(task).items() if name not in ("input", "out", "logs", "keep")})
    names = {str(path): path.name for path in files}
    digest = hashlib.sha256(json.dumps([__version__, job.id, _renamed(asked, names)], sort_keys=True).encode())
    home = Path(task.input).parent
    for path in sorted(files, key=lambda path: os.path.relpath(path, home)):
        digest.update(os.path.relpath(path, home).encode(errors="surrogateescape"))
        with open(path, "rb") as stream:
            digest.update(_sha256(stream))
    return digest.hexdigest()


def _sha256(stream) -> bytes:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.digest()


def input_files(task: Task) -> set[Path]:
    """The input, whatever stands beside it under its name or applies to it in BIDS, and every file that an option names."""
    path = Path(task.input)
    found = set(_files_in(path)) if path.is_dir() else {path, *_beside(path)}
    if task.organ == "asl" and not path.is_dir():
        from ..files.bids import companions

        found |= set(companions(path))
    for text in _texts([task.read, task.fit, task.save, task.truth]):
        option = Path(text)
        if option.is_dir():
            found |= set(_files_in(option))
        elif option.is_file():
            found.add(option.absolute())
    return found


def _beside(path: Path) -> Iterable[Path]:
    """Files of the same stem in the input's folder: .json of an image, .elem and .lon of .pts, the points of a CARTO map."""
    from ..files.bids import prefix

    begin = prefix(path.name.partition(".")[0])
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    beside = (path.parent / name for name in names if name.startswith(begin) and name[len(begin) : len(begin) + 1] in ("", ".", "_"))
    return [file for file in beside if file.is_file()]


def _files_in(folder: Path) -> Iterable[Path]:
    return [Path(base) / name for base, _, names in os.walk(folder) for name in names]


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and 0 < len(text) < 4096 and "\0" not in text:
            yield text
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Paths of input files by their last part alone."""
    if isinstance(value, Mapping):
        return {k: _renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, names) for v in value]
    return names.get(os.path.abspath(value), value) if isinstance(value, str) and value else value
