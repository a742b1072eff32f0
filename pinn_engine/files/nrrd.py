"""NRRD images (.nrrd, .nhdr with its data file), as 3D Slicer and ITK write them, to float32 arrays (X, Y, Z[, V]) and RAS+ grids.

Format: https://teem.sourceforge.net/nrrd/format.html. Read here and not through ITK, which cannot take a volume axis that is not the first
and does not say what is wrong with a file.
"""

from __future__ import annotations

import bz2
import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .grid import Grid

SUFFIXES = (".nrrd", ".nhdr")
LONGEST_HEADER = 1 << 20  # bytes
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
SPACES = {  # to RAS+
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "": 1.0}
ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}
VOLUME_KINDS = ("", "list", "vector", "time", "domain", "space", "none", "???", "scalar", "stub", "point")
AGAIN = "copy or export it again"


@dataclass(frozen=True)
class _Header:
    """`fields` by lower-case name; `start` is where attached data begin in the file."""

    path: Path
    fields: dict[str, str]
    start: int

    def need(self, name: str) -> str:
        if name not in self.fields:
            raise InputError(self.path, f"the NRRD header has no {name}", fix="export it from 3D Slicer or ITK, or convert it to .nii.gz")
        return self.fields[name]

    def integer(self, name: str, default: int) -> int:
        try:
            return int(self.fields.get(name, default))
        except ValueError:
            raise InputError(self.path, f"{name} of the NRRD header must be a whole number", found=self.fields[name], fix=AGAIN) from None


def read(path: str | os.PathLike[str], *, what: str = "image") -> tuple[np.ndarray, Grid]:
    """(X, Y, Z) or (X, Y, Z, V) float32 and its grid; the volume axis may be the first (Slicer's sequences) or any other.

    Raises InputError: missing, not NRRD, truncated, data file missing, unknown encoding or type, no patient space, other than three
    spatial axes.
    """
    path = Path(path)
    header = _header(path, what)
    sizes = _sizes(header)
    values = _values(header, int(np.prod(sizes, dtype=object)), what).reshape(sizes, order="F")
    affine, spatial, others = _geometry(header, sizes)
    image = values.transpose([*spatial, *others]).reshape([sizes[a] for a in spatial] + ([-1] if others else []), order="F")
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(image, dtype=np.float32)
    return data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine)


def _header(path: Path, what: str) -> _Header:
    try:
        with open(path, "rb") as stream:
            raw = stream.read(LONGEST_HEADER)
    except OSError as error:
        raise InputError(path, f"{what} cannot be read", found=error.strerror or error, fix="check the path and its permissions") from None
    if not re.match(rb"NRRD000\d\r?\n", raw):
        raise InputError(path, f"{what} is not a readable NRRD file", found=f"{len(raw)} bytes" if not raw else "another format", fix=AGAIN)
    end = re.search(rb"\r?\n\r?\n", raw)
    if end is None and path.suffix.lower() == ".nrrd" and b"data file" not in raw.lower() and b"datafile" not in raw.lower():
        raise InputError(path, f"{what} is truncated", found="a header that does not end", fix=AGAIN)
    text = raw[: end.start() if end else len(raw)].decode("utf-8", "replace")
    fields = {}
    for line in text.splitlines()[1:]:
        name, colon, value = line.partition(": ") if ": " in line else line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):  # `key:=value` is the user's own
            name = name.strip().lower()
            fields[ALIASES.get(name, name)] = value.strip()
    return _Header(path, fields, end.end() if end else len(raw))


def _sizes(header: _Header) -> list[int]:
    words = header.need("sizes").split()
    if not all(re.fullmatch(r"[1-9]\d{0,8}", word) for word in words):
        raise InputError(header.path, "sizes of the NRRD header must be whole numbers", found=" ".join(words)[:60], fix=AGAIN)
    sizes = [int(word) for word in words]
    if header.integer("dimension", len(sizes)) != len(sizes):
        raise InputError(
            header.path, f"the NRRD header gives {len(sizes)} sizes", found=f"dimension {header.fields['dimension']}", fix=AGAIN
        )
    return sizes


def _values(header: _Header, count: int, what: str) -> np.ndarray:
    """(count,) values in the file's own type and order."""
    path, kind = header.path, header.need("type").lower()
    code = next((code for code, names in TYPES.items() if kind in names), None)
    if code is None:
        raise InputError(path, f"{what} must hold real numbers", found=f"type {kind}", fix="save magnitude images as integer or float")
    dtype = np.dtype(code)
    encoding = header.need("encoding").lower()
    file, raw = _bytes(header, what)
    for _ in range(header.integer("line skip", 0)):
        raw = raw.partition(b"\n")[2]
    try:
        if encoding in ("gzip", "gz"):
            raw = gzip.decompress(raw)
        elif encoding in ("bzip2", "bz2"):
            raw = bz2.decompress(raw)
        elif encoding in ("ascii", "txt", "text"):
            raw = np.array(raw.split(), dtype=dtype).tobytes()
        elif encoding != "raw":
            raise InputError(path, "the NRRD encoding is unknown", found=encoding, fix="save it as raw or gzip")
    except (EOFError, zlib.error, OSError, ValueError) as error:
        raise InputError(file, f"{what} is truncated or damaged", found=str(error)[:100], fix=AGAIN) from None
    if encoding not in ("ascii", "txt", "text"):
        if dtype.itemsize > 1:
            endian = header.need("endian").lower()
            if endian not in ("little", "big"):
                raise InputError(path, "endian of the NRRD header must be little or big", found=endian, fix=AGAIN)
            dtype = dtype.newbyteorder("<" if endian == "little" else ">")
        skip = header.integer("byte skip", 0)
        raw = raw[-count * dtype.itemsize :] if skip < 0 else raw[skip:]
    if len(raw) < count * dtype.itemsize:
        found = f"{len(raw)} bytes of {count * dtype.itemsize}"
        raise InputError(file, f"{what} is truncated", found=found, fix=AGAIN)
    return np.frombuffer(raw, dtype, count)


def _bytes(header: _Header, what: str) -> tuple[Path, bytes]:
    """The file that holds the data, and its bytes from where they begin."""
    name = header.fields.get("data file")
    file = header.path if name is None else header.path.parent / name
    if name is not None and (name.upper().startswith("LIST") or "%" in name):
        raise InputError(header.path, "NRRD data in many files are not read", found=name[:60], fix="save it as one .nrrd file")
    try:
        with open(file, "rb") as stream:
            stream.seek(header.start if name is None else 0)
            return file, stream.read()
    except OSError as error:
        problem = f"the data file {file.name} of this NRRD header cannot be read"
        raise InputError(header.path, problem, found=error.strerror or error, fix="put it beside the header") from None


def _geometry(header: _Header, sizes: list[int]) -> tuple[np.ndarray, list[int], list[int]]:
    """RAS+ affine (4, 4) in mm, the three spatial axes, and the volume axis if there is one longer than 1."""
    path = header.path
    if "space" not in header.fields:
        fix = "save it as NIfTI, or as a sequence from 3D Slicer (ITK leaves the space of 4-D images out)"
        raise InputError(path, "the NRRD header does not say where the patient's left is", found="no space", fix=fix)
    name = header.fields["space"].lower()
    signs = SPACES.get(re.sub(r"(-time)$", "", name) if name.endswith("-time") else name[:3] if len(name) == 4 else name)
    if signs is None:
        raise InputError(
            path, "space of the NRRD header does not say where the patient's left is", found=name, fix="export it as LPS or RAS"
        )
    vectors = [_vector(word, path) for word in re.findall(r"none|\([^)]*\)", header.need("space directions").lower())]
    origin = _vector(header.need("space origin"), path)
    if len(vectors) != len(sizes) or origin is None:
        raise InputError(path, f"space directions must have {len(sizes)} entries", found=header.fields["space directions"][:80], fix=AGAIN)
    spatial = [axis for axis, vector in enumerate(vectors) if vector is not None and np.any(vector[:3])]
    others = [axis for axis in range(len(sizes)) if axis not in spatial and sizes[axis] > 1]
    if len(spatial) != 3:
        raise InputError(
            path, "an image must have three spatial axes", found=f"{len(spatial)} space directions", fix="give a 3-D or 4-D image"
        )
    kinds = header.fields.get("kinds", "").lower().split() or [""] * len(sizes)
    strange = [kinds[axis] for axis in others if axis < len(kinds) and kinds[axis] not in VOLUME_KINDS]
    if len(others) > 1 or strange:
        found = f"{len(others)} further axes" if len(others) > 1 else f"an axis of kind {strange[0]}"
        raise InputError(path, "beside x, y and z there may be one axis, the volumes", found=found, fix="give one scalar image per volume")
    units = [MILLIMETRES.get(word) for word in re.findall(r'"([^"]*)"', header.fields.get("space units", '"mm" "mm" "mm"'))][:3]
    if len(units) != 3 or None in units:
        raise InputError(path, "space units of the NRRD header are unknown", found=header.fields["space units"], fix="export it in mm")
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.asarray(vectors[axis])[:3] for axis in spatial], axis=1)
    affine[:3, 3] = origin[:3]
    affine[:3] *= (np.array(SPACES[name]) * np.array(units, dtype=float))[:, None]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(path, "the space directions are not finite or not independent", fix="repair the header")
    return affine, spatial, others


def _vector(text: str, path: Path) -> np.ndarray | None:
    """(3,) or, with time, (4,); None for `none`."""
    if text == "none":
        return None
    try:
        vector = np.array([float(number) for number in text.strip("() ").split(",")])
    except ValueError:
        vector = np.empty(0)
    if vector.size not in (3, 4):
        raise InputError(path, "a vector of the NRRD header must have three numbers", found=text[:60], fix=AGAIN)
    return vector
