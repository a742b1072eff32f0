"""NIfTI images (.nii, .nii.gz) to float32 arrays and grids, and back to bytes that are the same every time."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from .grid import Grid

SUFFIXES = (".nii", ".nii.gz")


def read(path: str | os.PathLike[str], *, ndim: tuple[int, ...] = (3, 4), what: str = "image") -> tuple[np.ndarray, Grid]:
    """Read an image as float32, NaN and Inf kept, with its grid.

    `ndim` lists the acceptable numbers of axes; trailing axes of length 1 beyond the largest of them are dropped first.

    Raises InputError: missing, not NIfTI, truncated, complex or RGB, wrong number of axes, unusable affine, all zero, nothing finite.
    """
    path = Path(path)
    image = _open(path, what)
    header = image.header
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > max(ndim) and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in ndim:
        raise InputError(
            path,
            f"{what} must be {' or '.join(f'{n}-D' for n in ndim)}",
            found=f"{len(shape)}-D ({' x '.join(map(str, shape))})",
            fix="give one volume (3-D)" if max(ndim) == 3 else "give x, y, z, volume (split or average further axes, such as echoes)",
        )
    if min(shape) == 0:
        raise InputError(path, f"{what} is empty", found=" x ".join(map(str, shape)))
    dtype = header.get_data_dtype()
    if dtype.kind not in "iufb":
        raise InputError(path, f"{what} must hold real numbers", found=f"{dtype}", fix="save magnitude images as integer or float")
    data = _data(image, path, what).reshape(shape)
    refuse_empty(data, path, what)
    return data, _grid(image, path)


def read_grid(path: str | os.PathLike[str], *, what: str = "image") -> Grid:
    """Where an image's voxels lie, whatever it holds. Raises InputError: missing, not NIfTI, fewer than three axes, unusable affine."""
    path = Path(path)
    image = _open(path, what)
    if len(image.shape) < 3 or min(image.shape) == 0:
        raise InputError(path, f"{what} must have three axes", found=" x ".join(map(str, image.shape)), fix="give a volume")
    return _grid(image, path)


def _open(path: Path, what: str):
    """The nibabel image of `path`, header only."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if path.is_dir():
        raise InputError(path, f"{what} must be a NIfTI file", found="a folder", fix="give the .nii or .nii.gz inside it")
    if not path.exists():
        raise InputError(path, f"{what} does not exist", fix="check the path")
    if path.stat().st_size == 0:
        raise InputError(path, f"{what} is an empty file", found="0 bytes", fix="copy or download it again")
    try:
        image = nibabel.load(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(path, f"{what} is truncated or damaged", found=str(error), fix="copy or download it again") from None
    except PermissionError:
        raise InputError(path, f"{what} cannot be read", found="no permission", fix="check the file's permissions") from None
    except (ImageFileError, HeaderDataError, OSError, ValueError, KeyError, OverflowError) as error:
        truncated = "end-of-stream" in str(error) or "Expected" in str(error)
        problem = f"{what} is truncated or damaged" if truncated else f"{what} is not a readable NIfTI file"
        raise InputError(path, problem, found=_short(error), fix="give a .nii or .nii.gz") from None
    if not isinstance(image, nibabel.Nifti1Pair):
        raise InputError(path, f"{what} is not NIfTI", found=type(image).__name__, fix="convert it to .nii.gz")
    return image


def _data(image, path: Path, what: str) -> np.ndarray:
    """All values, scaled by the header's slope, float32."""
    fix = "copy or download it again"
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (EOFError, zlib.error, OSError, ValueError) as error:
        raise InputError(path, f"{what} is truncated or damaged", found=_short(error), fix=fix) from None
    except (MemoryError, OverflowError):
        size = " x ".join(map(str, image.shape))
        raise InputError(path, f"{what} does not fit into memory or its header is damaged", found=size, fix=fix) from None


def refuse_empty(data: np.ndarray, path: Path, what: str) -> None:
    """An image without a single finite non-zero value cannot be meant."""
    finite = np.isfinite(data)
    if not finite.any():
        raise InputError(path, f"{what} holds no finite value", found="all NaN or Inf", fix="check how it was exported")
    if not np.any(data, where=finite):
        raise InputError(path, f"{what} is zero everywhere", found="all 0", fix="check how it was exported")


def _grid(image, path: Path) -> Grid:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(path, "the affine is not finite or not invertible", fix="repair the header's sform or qform")
    shape = tuple(int(n) for n in (*image.shape, 1, 1, 1)[:3])
    return Grid((shape[0], shape[1], shape[2]), affine, int(image.header["qform_code"]), int(image.header["sform_code"]))


def encode(
    data: np.ndarray,
    grid: Grid,
    *,
    labels: bool = False,
    description: str = "",
    compress: bool = True,
    movie: tuple[float, float, str | None] | None = None,
) -> bytes:
    """The bytes of a NIfTI-1 file: float32 (uint8 where `labels`), mm and s, the grid's affine and codes; the same input, the same bytes.

    `movie`: time of the first frame, step from frame to frame, and their unit ("msec", or None where NIfTI has no code for it); only there
    NaN = not observed.
    Raises ValueError, a fault of ours and not of the input, for values that are not finite or do not fit the grid.
    """
    import nibabel

    if data.shape[:3] != grid.shape or data.ndim not in (3, 4):
        raise ValueError(f"an array of shape {data.shape} does not fit a grid of {grid.shape}")
    if labels and not np.array_equal(data, np.asarray(data).astype(np.uint8)):
        raise ValueError("labels must be whole numbers from 0 to 255")
    with np.errstate(over="ignore"):
        array = np.asarray(data).astype(np.uint8 if labels else np.float32)
    if movie is None and not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} values to be written are not finite")
    image = nibabel.Nifti1Image(array, grid.affine)
    image.set_qform(grid.affine, code=grid.qform_code)
    image.set_sform(grid.affine, code=grid.sform_code)
    if movie is not None:
        image.header["toffset"], image.header["pixdim"][4] = movie[:2]
    image.header.set_xyzt_units("mm", "sec" if movie is None else movie[2])
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    raw = image.to_bytes()
    if not compress:
        return raw
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as stream:
        stream.write(raw)
    return buffer.getvalue()


def _short(error: BaseException) -> str:
    """The first line of another library's message, short enough for ours."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].split(" from ")[0][:160]
