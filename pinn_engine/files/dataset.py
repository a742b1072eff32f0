"""The perfusion scans of a BIDS dataset, found by their names alone: no index, no database, a thousand subjects in well under a second."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .bids import prefix

_SERIES = re.compile(r"sub-[^_]+(_[a-zA-Z0-9]+-[^_]+)*_asl\.nii(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """One ASL series. `id` are its BIDS entities, `where` the folder below the dataset's root."""

    path: Path
    id: str
    where: str


def find_series(root: str | os.PathLike[str], participants: Collection[str] = (), sessions: Collection[str] = ()) -> list[Series]:
    """All ASL series, of the given labels or of all, in the order of their names. Labels with or without sub-, ses-.

    Raises InputError where there is none, or none of a label that was asked for; the line names the labels that exist.
    """
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        raise InputError(root, "the dataset does not exist" if not folder.exists() else "the dataset is no folder", fix="give its root")
    subjects = _labels(folder, "sub-")
    _refuse_absent(root, "--participant-label", [_bare(one, "sub-") for one in participants], subjects)
    wanted, sessions = {_bare(one, "sub-") for one in participants}, [_bare(one, "ses-") for one in sessions]
    found: list[Series] = []
    seen: set[str] = set()
    for subject in subjects:
        if wanted and subject not in wanted:
            continue
        home = folder / f"sub-{subject}"
        visits = _labels(home, "ses-")
        seen |= set(visits)
        for below in [home, *(home / f"ses-{visit}" for visit in visits if not sessions or visit in sessions)]:
            if below is home and sessions:
                continue
            found += _series(below / "perf", folder)
    if sessions:
        _refuse_absent(root, "--session-label", sessions, sorted(seen))
    if not found:
        raise InputError(
            root, "holds no ASL series", found=f"{len(subjects)} sub- folder(s)", fix="expected sub-X/[ses-Y/]perf/…_asl.nii.gz"
        )
    return found


def _series(perf: Path, root: Path) -> Iterator[Series]:
    names = {name.lower().removesuffix(".gz"): name for name in _names(perf) if _SERIES.fullmatch(name)}  # .nii beside .nii.gz: one series
    for name in sorted(names.values()):
        yield Series(perf / name, prefix(name), perf.relative_to(root).as_posix())


def _labels(folder: Path, begin: str) -> list[str]:
    names = (name for name in _names(folder) if name.startswith(begin) and len(name) > len(begin))
    return sorted(name[len(begin) :] for name in names if (folder / name).is_dir())


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _bare(label: str, begin: str) -> str:
    return label.strip().removeprefix(begin)


def _refuse_absent(root: str | os.PathLike[str], flag: str, asked: Collection[str], there: Collection[str]) -> None:
    if absent := sorted(set(asked) - set(there)):
        known = ", ".join([*there][:10]) + (" …" if len(there) > 10 else "")
        raise InputError(root, f"{flag} is not in the dataset", found=", ".join(absent), fix=f"there are: {known or 'none'}")
