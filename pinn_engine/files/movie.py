"""Movies of V on a voxel grid as 4-D NIfTI (x, y, z or 1, t): mm and the time step in the header, NaN = not observed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .grid import Grid
from .nifti import encode
from .output import write_file

TIME_BITS = 0b111000  # of xyzt_units; the bits of space may hold anything
TO_MS = {8: 1000.0, 16: 1.0, 24: 0.001}  # NIfTI's codes of seconds, milliseconds, microseconds


@dataclass(frozen=True)
class Movie:
    """`V` (X, Y, Z, F) float32; `step` between frames and `start` of the first in `unit`: "ms", "tu", or "" where the file does not say."""

    V: np.ndarray
    grid: Grid
    step: float
    unit: str
    start: float = 0.0
    source: str = "movie"

    @property
    def times(self) -> np.ndarray:
        """(F,) in `unit`."""
        return self.start + self.step * np.arange(self.V.shape[3])


def read_movie(path: str | Path) -> Movie:
    """Read a movie; seconds and microseconds become ms. A sidecar NAME.json with TimeUnit "TU" says so where NIfTI cannot."""
    import nibabel as nib

    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", fix="check the path")
    try:
        image: Any = nib.load(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as fault:  # nibabel, gzip and zlib each raise their own for a damaged file
        raise InputError(
            path, "could not be read", found=str(fault)[:100] or type(fault).__name__, fix="is it a whole NIfTI file?"
        ) from None
    if not isinstance(image, nib.Nifti1Image) or data.ndim != 4 or data.shape[3] < 2:
        raise InputError(
            path, "is not a movie", found=f"shape {data.shape}", fix="give a 4-D NIfTI (x, y, 1 or z, t) with two frames or more"
        )
    header = image.header
    step, start = float(header["pixdim"][4]), float(header["toffset"])
    if not (np.isfinite(step) and step > 0):
        raise InputError(path, "has no time step in its header", found=f"pixdim[4] = {step:g}", fix="set pixdim[4] and xyzt_units")
    sidecar = Path(str(path).removesuffix(".gz").removesuffix(".nii") + ".json")
    unit, scale = _time_unit(int(header["xyzt_units"]) & TIME_BITS, sidecar)
    affine = np.array(image.affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(path, "has no usable geometry", found="a singular affine", fix="set voxel sizes in mm")
    grid = Grid(tuple(data.shape[:3]), affine, int(header["qform_code"]), int(header["sform_code"]))
    if not np.isfinite(data).any():
        raise InputError(path, "has no observed value", found="NaN everywhere", fix="check the export")
    return Movie(data, grid, step * scale, unit, start * scale, path.name)


def write_movie(path: str | Path, V: np.ndarray, grid: Grid, step: float, unit: str, *, start: float = 0.0, **more: object) -> None:
    """Write V (X, Y, Z, F) float32, its first frame at `start`, and its sidecar (with `more` in it).

    NIfTI has no code for TU: its time unit is then left unknown.
    """
    compress = str(path).endswith(".gz")
    write_file(path, encode(V, grid, compress=compress, movie=(start, step, "msec" if unit == "ms" else None)))
    about = {"Quantity": "V, without unit: 0 = rest, 1 = peak", "TimeStep": step, "TimeUnit": "TU" if unit == "tu" else "ms", **more}
    write_file(str(path).removesuffix(".gz").removesuffix(".nii") + ".json", (json.dumps(about, indent=2) + "\n").encode())


def _time_unit(header_unit: int, sidecar: Path) -> tuple[str, float]:
    """("ms" | "tu" | "", factor to it)."""
    if header_unit in TO_MS:
        return "ms", TO_MS[header_unit]
    try:
        named = str(json.loads(sidecar.read_text()).get("TimeUnit", "")).lower() if sidecar.is_file() else ""
    except (ValueError, AttributeError):
        raise InputError(sidecar, "is not a JSON object", fix="mend or remove it") from None
    return (named, 1.0) if named in ("ms", "tu") else ("", 1.0)
