"""What is known of a voxel from elsewhere, on the scan's grid: probability maps of tissue, arrival time of another scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath

import numpy as np

from ..errors import InputError
from ..files import load as images
from ..files.grid import Grid

Path_ = str | PathLike[str]
ATT_SD = 0.2  # s, of an arrival time taken from another scan, where none is given
LATEST = 5.0  # s
EMPTY = 0.05  # probabilities that sum to less say nothing


@dataclass(frozen=True)
class ArrivalMap:
    """Arrival time (X, Y, Z) s known beforehand, with its sd in s."""

    att: np.ndarray
    sd: float
    file: str


def read_tissue(given: Path_ | Sequence[Path_], grid: Grid) -> np.ndarray:
    """(X, Y, Z, 3) float32 probabilities of GM, WM, CSF that sum to 1, or to 0 where the maps say nothing.

    One 4-D image of three volumes, or three 3-D images (a list, or one string with commas). InputError for anything else.
    """
    paths = given.split(",") if isinstance(given, str) else [given] if isinstance(given, PathLike) else list(given)
    paths = [fspath(p).strip() if not isinstance(p, str) else p.strip() for p in paths]
    if len(paths) not in (1, 3):
        fix = "give one 4-D image, or three 3-D images with commas: GM,WM,CSF"
        raise InputError("--tissue", "needs GM, WM and CSF", found=f"{len(paths)} files", fix=fix)
    images = [_on_grid(p, grid, "tissue probability map", (4,) if len(paths) == 1 else (3,)) for p in paths]
    share = images[0] if len(paths) == 1 else np.stack(images, axis=3)
    if share.shape[3] != 3:
        raise InputError(paths[0], "tissue maps must be GM, WM, CSF", found=f"{share.shape[3]} volumes", fix="give three volumes")
    share = np.nan_to_num(share.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if share.min() < -0.01 or share.max() > 1.01 or share.max() < 0.1:
        found = f"{share.min():.3g} to {share.max():.3g}"
        raise InputError(paths[0], "tissue maps must be probabilities from 0 to 1", found=found, fix="divide them by their maximum")
    total = share.sum(axis=3, keepdims=True)
    return np.where(total > EMPTY, share / np.maximum(total, EMPTY), 0).astype(np.float32)


def read_arrival(path: Path_, sd: float | None, grid: Grid) -> ArrivalMap:
    """An arrival-time map in s; voxels that hold no possible time get the median of the others."""
    sd = ATT_SD if sd is None else sd
    if not 0.001 <= sd <= 2:
        raise InputError("--att-sd", "must be from 0.001 to 2 s", found=f"{sd:g}", fix="give the uncertainty of --att-map in seconds")
    att = _on_grid(path, grid, "arrival-time map", (3,))
    possible = np.isfinite(att) & (att > 0)
    if not possible.any():
        raise InputError(path, "the arrival-time map holds no time above 0", fix="give arrival times in seconds")
    middle = float(np.median(att[possible]))
    if middle > 10:
        raise InputError(path, "the arrival-time map must be in seconds (milliseconds?)", found=f"{middle:g}", fix="divide it by 1000")
    possible &= att < LATEST
    return ArrivalMap(np.where(possible, att, middle).astype(np.float32), sd, fspath(path).replace("\\", "/").rsplit("/", 1)[-1])


def _on_grid(path: Path_, grid: Grid, what: str, ndim: tuple[int, ...]) -> np.ndarray:
    data, found = images.read(path, ndim=ndim, what=what)
    if not grid.matches(found):
        raise InputError(path, f"the {what} must be on the grid of the ASL series", found=grid.difference(found), fix="resample it")
    return data
