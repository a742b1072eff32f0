"""What lies beside an image file and tells how it was acquired: BIDS sidecars, aslcontext.tsv, the header's handedness.

Slicer keeps none of it, so it is read when a scan is chosen and stored in the parameter node. What it means is the engine's affair.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SUFFIXES = (".nii.gz", ".nii", ".seq.nrrd", ".nrrd", ".nhdr")
SIGNS = {"right": 1, "left": -1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}


@dataclass(frozen=True)
class Beside:
    """`fields` of the sidecars, `context` the text of aslcontext.tsv, `name` of the nearest sidecar, `notes` for the person."""

    fields: dict[str, object] = field(default_factory=dict)
    context: str = ""
    name: str = ""
    notes: tuple[str, ...] = ()


def stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), path.stem)


def look_beside(path: Path) -> Beside:
    """Everything that says how the image in `path` was acquired, in the voxel order that MRML gives it."""
    fields, name, notes = _sidecars(path), "", []
    if (path.parent / f"{stem(path)}.json").is_file():
        name = f"{stem(path)}.json"
    elif fields:
        name = "the dataset's sidecars"
    context = path.parent / f"{re.sub('_asl$', '', stem(path))}_aslcontext.tsv"
    text = context.read_text(encoding="utf-8-sig") if context.is_file() else ""
    try:
        matrix, differ = header_matrix(path)
    except (OSError, ValueError, struct.error, EOFError):
        matrix, differ = None, False
    if differ:
        notes.append(f"{path.name}: its sform and qform differ; Slicer and other programs may place it differently.")
    if matrix is not None and np.linalg.det(matrix[:3, :3]) < 0:
        fields = turned(fields)  # MRML turns k around in left-handed files
    return Beside(fields, text, name, tuple(notes))


def turned(fields: dict[str, object]) -> dict[str, object]:
    """The sidecar of the same image with k turned around: only the order of slices changes."""
    direction = str(fields.get("SliceEncodingDirection", "k"))
    if direction[:1] != "k" or "SliceTiming" not in fields:
        return fields
    return fields | {"SliceEncodingDirection": "k" if direction == "k-" else "k-"}


def m0_beside(path: Path) -> Path | None:
    """The m0scan that belongs to a series, as BIDS names it."""
    base = re.sub("_asl$", "", stem(path))
    return next((found for suffix in SUFFIXES if (found := path.parent / f"{base}_m0scan{suffix}").is_file()), None)


def is_series(path: Path) -> bool:
    """True where an image file holds several volumes, which MRML reads in another way than one."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        found = re.search(r"^dimension:\s*(\d+)", _nrrd_header(path), re.MULTILINE)
        return found is not None and int(found[1]) > 3
    if not name.endswith((".nii", ".nii.gz")):
        return False
    head = _nifti_header(path)
    order = "<" if struct.unpack("<i", head[:4])[0] == 348 else ">"
    rank, *sizes = struct.unpack(order + "8h", head[40:56])
    return rank > 3 and sizes[3] > 1


def header_matrix(path: Path) -> tuple[np.ndarray | None, bool]:
    """The (3, 3+) axes of an image as its header gives them to MRML, and whether sform and qform of a NIfTI differ."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _nifti(path)
    if name.endswith((".nrrd", ".nhdr")):
        return _nrrd(path), False
    return None, False


def _sidecars(path: Path) -> dict[str, object]:
    """By BIDS inheritance: from the dataset's root down, the file's own last."""
    folders = [path.parent]
    while folders[-1].name in ("perf", "fmap") or folders[-1].name.startswith(("sub-", "ses-")):
        folders.append(folders[-1].parent)
    parts = stem(path).split("_")
    fields: dict[str, object] = {}
    for folder in reversed(folders):
        for found in sorted(folder.glob(f"*{parts[-1]}.json"), key=lambda one: len(one.stem)):
            if set(found.stem.split("_")) <= set(parts):
                fields |= _object(found)
    return fields


def _object(path: Path) -> dict[str, object]:
    try:
        read = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _nifti(path: Path) -> tuple[np.ndarray | None, bool]:
    head = _nifti_header(path)
    order = "<" if struct.unpack("<i", head[:4])[0] == 348 else ">"
    if struct.unpack(order + "i", head[:4])[0] != 348:
        return None, False
    pixdim = struct.unpack(order + "4f", head[76:92])
    qcode, scode = struct.unpack(order + "2h", head[252:256])
    b, c, d, *offset = struct.unpack(order + "6f", head[256:280])
    sform = np.array(struct.unpack(order + "12f", head[280:328])).reshape(3, 4)
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.array([pixdim[1], pixdim[2], pixdim[3] * (-1 if pixdim[0] < 0 else 1)])
    qform = np.column_stack([rotation * scale, offset])
    differ = qcode > 0 and scode > 0 and not np.allclose(sform, qform, atol=1e-2)
    if scode == 1 or (scode > 0 and qcode == 0):
        return sform, differ
    return (qform if qcode > 0 else np.diag([1.0, 1.0, 1.0])), differ


def _nifti_header(path: Path) -> bytes:
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as stream:
        head = stream.read(348)
    if len(head) < 348:
        raise ValueError(f"{path.name} is too short for a NIfTI file")
    return head


def cut_short(path: Path) -> bool:
    """True where a NIfTI file ends before its voxels do: MRML fills up with zeros and says nothing."""
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return False
    try:
        head = _nifti_header(path)
        order = "<" if struct.unpack("<i", head[:4])[0] == 348 else ">"
        rank, *sizes = struct.unpack(order + "8h", head[40:56])
        (bits,), (offset,) = struct.unpack(order + "h", head[72:74]), struct.unpack(order + "f", head[108:112])
        wanted = int(offset) + int(np.prod([max(size, 1) for size in sizes[:rank]], dtype=np.int64)) * bits // 8
        if not name.endswith(".gz"):
            return path.stat().st_size < wanted
        with gzip.open(path) as stream:
            there = 0
            while block := stream.read(1 << 22):
                there += len(block)
        return there < wanted
    except (OSError, EOFError, zlib.error, ValueError, struct.error):
        return True


def _nrrd_header(path: Path) -> str:
    with open(path, "rb") as stream:
        return stream.read(1 << 16).split(b"\n\n")[0].decode("latin-1")


def _nrrd(path: Path) -> np.ndarray | None:
    text = _nrrd_header(path)
    space = re.search(r"^space:\s*(\S+)", text, re.MULTILINE)
    vectors = re.search(r"^space directions:\s*(.+)$", text, re.MULTILINE)
    if space is None or vectors is None:
        return None
    signs = [SIGNS[word] for word in space[1].lower().split("-")[:3] if word in SIGNS]
    axes = [[float(number) for number in one.split(",")] for one in re.findall(r"\(([^)]*)\)", vectors[1])]
    return np.array(signs)[:, None] * np.array(axes).T if len(signs) == 3 and len(axes) == 3 else None


def summary(fields: dict[str, object], context: str, name: str) -> str:
    """What is known of an acquisition, in one line for the panel."""
    kind = str(fields.get("ArterialSpinLabelingType", "")).upper()
    said = [kind] if kind else []
    delays = fields.get("PostLabelingDelay")
    if delays is not None:
        said.append(f"{'inversion times' if kind == 'PASL' else 'delays'} {listed(delays)} s")
    duration = fields.get("BolusCutOffDelayTime" if kind == "PASL" else "LabelingDuration")
    if duration is not None:
        said.append(f"{'bolus' if kind == 'PASL' else 'label'} duration {listed(duration)} s")
    types = [line.strip() for line in context.splitlines()[1:] if line.strip()]
    if types:
        counts = {one: types.count(one) for one in dict.fromkeys(types)}
        said.append(", ".join(f"{count} {one}" for one, count in counts.items()))
    return f"{'; '.join(said)} (from {name or 'the scene'})" if said else ""


def listed(values: object) -> str:
    numbers: Sequence[object] = values if isinstance(values, (list, tuple)) else [values]
    return ", ".join(dict.fromkeys(f"{value:g}" if isinstance(value, (int, float)) else str(value) for value in numbers))
