"""A small BIDS series with known differences, written to a folder: what the reading tests read."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (12, 10, 4)
AFFINE = np.array([[-3.0, 0, 0, 20], [0, 3.0, 0, -15], [0, 0, 5.0, 7], [0, 0, 0, 1.0]])
PLDS = (0.5, 1.0, 1.5)
PCASL = {
    "ArterialSpinLabelingType": "PCASL",
    "LabelingDuration": 1.8,
    "BackgroundSuppression": False,
    "M0Type": "Absent",
    "MagneticFieldStrength": 3,
    "MRAcquisitionType": "3D",
    "RepetitionTimePreparation": 6,
}


def brain() -> np.ndarray:
    """(X, Y, Z) bool: a block inside the field of view."""
    inside = np.zeros(SHAPE, bool)
    inside[2:-2, 2:-2] = True
    return inside


def truth(pld: float, repeat: int) -> np.ndarray:
    """(X, Y, Z) the difference that a pair of this delay and repeat must give: exact in float32, different in every voxel."""
    return brain() * (4.0 * pld + repeat + np.arange(np.prod(SHAPE)).reshape(SHAPE) / 64)


def cycle(kinds: str, repeats: int = 2, plds: tuple[float, ...] = PLDS) -> list[tuple[str, float, int]]:
    """(type, delay, repeat) of every volume, delays cycling fastest: kinds "CL", "LC" or "D"."""
    names = {"C": "control", "L": "label", "D": "deltam"}
    return [(names[kind], pld, repeat) for repeat in range(repeats) for pld in plds for kind in kinds]


def volume(kind: str, pld: float, repeat: int) -> np.ndarray:
    """(X, Y, Z) signal; label = control - truth; m0scan 2000 in the brain."""
    control = brain() * (800.0 + 16 * pld)
    return {
        "control": control,
        "label": control - truth(pld, repeat),
        "deltam": truth(pld, repeat),
        "m0scan": brain() * 2000.0,
    }.get(kind, control)


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=0)
    nib.save(image, path)
    return path


def write(folder: Path, order=None, *, name: str = "sub-01_asl.nii.gz", drop: tuple[str, ...] = (), data=None, **fields) -> Path:
    """Write sub-01/perf/sub-01_asl with sidecar and aslcontext; `fields` override the sidecar, `drop` leaves fields out."""
    order = cycle("CL") if order is None else order
    perf = folder / "sub-01" / "perf"
    perf.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    sidecar = {**PCASL, "PostLabelingDelay": [pld for _, pld, _ in order], **fields}
    stem = name.removesuffix(".gz").removesuffix(".nii")
    (perf / f"{stem}.json").write_text(json.dumps({key: value for key, value in sidecar.items() if key not in drop}))
    (perf / f"{stem.removesuffix('_asl')}_aslcontext.tsv").write_text("\n".join(["volume_type", *(kind for kind, _, _ in order)]) + "\n")
    return save(perf / name, np.stack([volume(*row) for row in order], axis=-1) if data is None else data)


def write_m0(asl: Path, value: float = 1800.0, **fields) -> Path:
    """sub-01_m0scan beside the series, with its own sidecar."""
    sidecar = {"RepetitionTimePreparation": 10, "IntendedFor": "perf/" + asl.name, **fields}
    (asl.parent / "sub-01_m0scan.json").write_text(json.dumps({key: field for key, field in sidecar.items() if field is not None}))
    return save(asl.parent / "sub-01_m0scan.nii.gz", brain() * value)
