"""Any image that we are given: a NIfTI or NRRD file with its sidecar beside it, or a folder of DICOM files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import bids, dicom, nifti, nrrd
from .grid import Grid
from .sidecar import Sidecar


@dataclass(frozen=True)
class Loaded:
    """An image (X, Y, Z) or (X, Y, Z, V) float32 with its grid and sidecar.

    `prefix` is what outputs are called after, `source` what they name as their source: of a DICOM folder neither holds the folder's name,
    which may be a patient's, unless that is a BIDS name.
    """

    data: np.ndarray
    grid: Grid
    sidecar: Sidecar
    prefix: str
    source: str


def load(path: str | os.PathLike[str], *, series: str | None = None, what: str = "image") -> Loaded:
    """Read an image and what is known about it. `series` chooses among the series of a DICOM folder.

    The sidecar of a DICOM folder is what its elements say, under the fields of FOLDER.json where that stands beside the folder.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        if series is not None:
            option = "--m0-series" if what == "M0" else "--series"
            raise InputError(path, f"{option} chooses from a DICOM folder", found="a file", fix=f"leave {option} out, or give the folder")
        data, grid = read(path, what=what)
        return Loaded(data, grid, bids.read_sidecar(path), bids.prefix(path), Path(path).name)
    if os.path.isfile(os.path.join(path, "dataset_description.json")):
        fix = "give one …_asl.nii.gz of it, or fit all: pinn-engine bids DATASET OUT_DIR participant"
        raise InputError(path, f"{what} must be one series", found="a BIDS dataset", fix=fix)
    data, grid, elements, name = dicom.read(path, series=series, what=what)
    sidecar = bids.read_sidecar(path).over(elements)
    prefix = bids.prefix(path) if "sub" in bids.entities(path) else f"series-{name}"
    return Loaded(data, grid, sidecar, prefix, f"DICOM series {name}")


def read(path: str | os.PathLike[str], *, ndim: tuple[int, ...] = (3, 4), what: str = "image") -> tuple[np.ndarray, Grid]:
    """An image file as float32 (X, Y, Z[, V]) and its grid: NRRD by its name, all else as NIfTI. See `nifti.read` for what is refused."""
    if not _is_nrrd(path):
        return nifti.read(path, ndim=ndim, what=what)
    data, grid = nrrd.read(path, what=what)
    if data.ndim not in ndim:
        found = " x ".join(map(str, data.shape))
        raise InputError(path, f"{what} must be {' or '.join(f'{n}-D' for n in ndim)}", found=found, fix="give one volume (3-D)")
    nifti.refuse_empty(data, Path(path), what)
    return data, grid


def read_grid(path: str | os.PathLike[str], *, what: str = "image") -> Grid:
    """Where the voxels of an image file lie, whatever it holds: an image without content serves as a reference. Raises InputError."""
    if not _is_nrrd(path):
        return nifti.read_grid(path, what=what)
    return nrrd.read(path, what=what)[1]


def _is_nrrd(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(nrrd.SUFFIXES) and os.path.isfile(path)
