"""DICOM folders through dcm2niix, in a temporary folder that is removed; only what describes the measurement is kept, never the patient.

dcm2niix writes the pulse train duration (0018,9258), which is the label duration, as PostLabelingDelay, can write that field twice, and
knows one delay where the volumes have many. A delay that other elements of the files contradict is not used but asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import nifti
from .grid import Grid
from .sidecar import Sidecar

KEPT = (  # fields of dcm2niix's sidecar that describe the measurement
    "ArterialSpinLabelingType", "BackgroundSuppression", "BackgroundSuppressionNumberPulses", "BackgroundSuppressionPulseTime",
    "BolusCutOffDelayTime", "BolusCutOffFlag", "BolusCutOffTechnique", "EchoTime", "FlipAngle", "LabelingDuration", "LabelingEfficiency",
    "LookLocker", "MRAcquisitionType", "MagneticFieldStrength", "PostLabelingDelay", "RepetitionTime", "RepetitionTimePreparation",
    "SliceEncodingDirection", "SliceTiming", "VascularCrushing",
)  # fmt: skip
INVERSION_TIME, PULSE_TRAIN = "0018|0082", "0018|9258"
SAME = 1e-3  # s
IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr")
BESIDE = (".json", ".tsv", ".raw", ".gz", ".txt", ".md")  # in a folder of images that is surely none of DICOM
INSTALL = "python -m pip install 'pinn-engine[dicom]', or convert the folder with dcm2niix yourself and give the NIfTI"


@dataclass(frozen=True)
class Series:
    """One image that dcm2niix made; `name` is the series number, with a count (5-2) where a series became several images."""

    name: str
    uid: str
    description: str  # for messages only: it may hold anything
    image: Path
    fields: dict[str, object]
    twice: dict[str, list[object]] = field(default_factory=dict)  # fields that dcm2niix wrote more than once

    def label(self) -> str:
        shape = " x ".join(map(str, _shape(self.image)))
        return f"{self.name} ({self.description[:40] or 'no description'}, {shape})"


@dataclass(frozen=True)
class Elements:
    """What dcm2niix does not tell of a series: how many files and frames a file, and what is distinct in them: times in s, positions."""

    files: int
    frames: int
    positions: set[tuple[float, ...]]
    pulse_trains: set[float]
    inversion_times: set[float]


def read(folder: str | os.PathLike[str], *, series: str | None = None, what: str = "image") -> tuple[np.ndarray, Grid, Sidecar, str]:
    """(X, Y, Z[, V]) float32, grid, sidecar and the name of the series read. `series`: a name where the folder holds several.

    Raises InputError: dcm2niix not installed, no DICOM, another modality, slices missing, several series and none chosen.
    """
    folder = Path(folder)
    if _images(folder) and all(path.name.lower().endswith((*IMAGES, *BESIDE)) for path in folder.rglob("*") if path.is_file()):
        raise _one_file(folder, what)  # nobody has to install dcm2niix to hear this
    with tempfile.TemporaryDirectory(prefix="pinn_engine-") as temporary:
        found = list(_converted(folder, Path(temporary), _run(folder, temporary), what))
        one = _chosen(found, folder, series, what)
        modality = str(one.fields.get("Modality", ""))
        if modality != "MR":
            raise InputError(
                folder, f"{what} must be MR", found=f"modality {modality or 'unknown'} in series {one.name}", fix="give the MR series"
            )
        try:
            data, grid = nifti.read(one.image, what=what)
        except InputError as error:
            raise InputError(folder, f"series {one.name}: {error.problem}", found=error.found, fix=error.fix or "export it again") from None
        fields = {name: one.fields[name] for name in KEPT if name in one.fields}
        elements = _elements(one, folder)
        _refuse_unsound(one, [other.uid for other in found].count(one.uid), elements, data.shape, folder)
        doubts = _doubts(one, elements, fields)
        return data, grid, Sidecar(home=str(folder), fields=fields, label=f"DICOM series {one.name}", doubts=doubts), one.name


def _run(folder: Path, temporary: str) -> str:
    """What dcm2niix said. Its files are called <series number>_<series UID><suffix>."""
    if not any(path.is_file() for path in folder.rglob("*")):
        raise InputError(folder, "the folder is empty", found="no file", fix="give a folder of DICOM files or a NIfTI file")
    program = _program(folder)
    command = [program, "-b", "y", "-ba", "y", "-z", "n", "-d", "9", "-f", "%s_%j", "-x", "i", "-g", "i", "-o", temporary, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise InputError(folder, "dcm2niix cannot be run", found=error.strerror or error, fix=INSTALL) from None
    return done.stdout + done.stderr


def _program(folder: Path) -> str:
    try:
        from dcm2niix import bin as program
    except ImportError:
        program = shutil.which("dcm2niix")
    if not program:
        raise InputError(folder, "a DICOM folder needs dcm2niix", found="not installed", fix=INSTALL)
    return str(program)


def _images(folder: Path) -> bool:
    """Whether an image file other than DICOM is in the folder."""
    return any(path.name.lower().endswith(IMAGES) for path in folder.rglob("*"))


def _one_file(folder: Path, what: str) -> InputError:
    return InputError(folder, f"{what} must be one file", found="a folder of image files", fix="give the .nii, .nii.gz or .nrrd inside it")


def _converted(folder: Path, temporary: Path, said: str, what: str) -> Iterator[Series]:
    images = sorted(temporary.glob("*.nii"))
    if not images:
        if _images(folder):
            raise _one_file(folder, what)
        if re.search(r"missing images|slices, but", said, re.IGNORECASE):
            problem, fix = "no whole series is in the folder", "copy or export the whole series again"
            raise InputError(folder, problem, found="missing DICOM files", fix=fix)
        error = re.search(r"Error: (.*)", said)
        found = "none that dcm2niix can read" if error is None else _without_paths(error[1])
        raise InputError(folder, "no DICOM image was found in the folder", found=found, fix="give a folder of DICOM image files")
    names: dict[str, list[Path]] = {}
    for image in images:
        names.setdefault(image.stem.partition("_")[0], []).append(image)
    for number in sorted(names, key=lambda name: (len(name), name)):
        for count, image in enumerate(names[number], start=1):
            pairs = _pairs(image.with_suffix(".json"))
            fields = dict(pairs)
            twice = {name: [v for n, v in pairs if n == name] for name in fields if sum(n == name for n, _ in pairs) > 1}
            match = re.match(r"[\d.]+", image.stem.partition("_")[2])
            uid = match[0].rstrip(".") if match else ""
            description = " ".join(str(fields.get("SeriesDescription", fields.get("ProtocolName", ""))).split())
            yield Series(f"{number}-{count}" if len(names[number]) > 1 else number, uid, description, image, fields, twice)


def _pairs(path: Path) -> list[tuple[str, object]]:
    """The sidecar's fields in order: dcm2niix may write one twice."""
    try:
        return json.loads(path.read_text(errors="replace"), object_pairs_hook=list)
    except (OSError, ValueError):
        return []


def _chosen(found: list[Series], folder: Path, wanted: str | None, what: str) -> Series:
    listed = "; ".join(one.label() for one in found[:12]) + (f"; and {len(found) - 12} more" if len(found) > 12 else "")
    option = "--m0-series" if what == "M0" else "--series"
    if wanted is not None:
        for one in found:
            if one.name == str(wanted).strip():
                return one
        raise InputError(folder, f"{option} {wanted} is not in the folder", found=listed, fix="give one of these")
    if len(found) > 1:
        raise InputError(
            folder, f"the folder holds {len(found)} series", found=listed, fix=f"choose one with {option}, or give its own folder"
        )
    return found[0]


def _doubts(one: Series, elements: Elements, fields: dict[str, object]) -> dict[str, str]:
    """Timings that the DICOM elements contradict, and how; a label duration that only (0018,9258) gives is put into `fields`."""
    doubts = {}
    for name in ("PostLabelingDelay", "LabelingDuration"):
        values = one.twice.get(name, [])
        if any(value != values[0] for value in values):
            doubts[name] = " and ".join(str(value)[:40] for value in values)
    trains, inversions = elements.pulse_trains, elements.inversion_times
    train = next(iter(trains)) if len(trains) == 1 else None
    if "LabelingDuration" not in fields and train is not None:
        fields["LabelingDuration"] = train
    duration, delay = fields.get("LabelingDuration"), fields.get("PostLabelingDelay")
    if train is not None and isinstance(duration, int | float) and abs(train - duration) >= SAME:
        doubts["LabelingDuration"] = f"{duration:g} s, and {train:g} s in element (0018,9258)"
    if len(inversions) > 1 and not isinstance(delay, list):
        listed = ", ".join(f"{value:g}" for value in sorted(inversions)[:8])
        doubts["PostLabelingDelay"] = f"one of {len(inversions)} inversion times in the files ({listed} s)"
    elif train is not None and isinstance(delay, int | float) and abs(train - delay) < SAME:
        doubts["PostLabelingDelay"] = f"{delay:g} s, which is the label duration of element (0018,9258)"
    return doubts


def _refuse_unsound(one: Series, images: int, elements: Elements, shape: tuple[int, ...], folder: Path) -> None:
    """A classic series has a file a slice and volume, each at its place; a mosaic has a file a volume.

    dcm2niix makes up a geometry where the files give none, and takes frames of enhanced files for volumes in orders that cannot be checked.
    """
    again, volumes = "copy or export the whole series again", shape[3] if len(shape) == 4 else 1
    if elements.frames > 1:
        fix = "export classic (single-frame) files, or convert it with dcm2niix, check the order of slices and volumes, and give the NIfTI"
        raise InputError(folder, f"series {one.name} is enhanced multi-frame DICOM", found=f"{elements.frames} frames in a file", fix=fix)
    if "ImageOrientationPatientDICOM" not in one.fields:
        raise InputError(folder, f"series {one.name} does not say how it lies in the patient", found="no element (0020,0037)", fix=again)
    if images == 1 and elements.files not in (0, volumes, shape[2] * volumes):
        seen = f"{elements.files} files for {shape[2]} slices x {volumes} volumes"
        raise InputError(folder, f"series {one.name} is not whole", found=seen, fix=again)
    if images == 1 and elements.files == shape[2] * volumes and len(elements.positions) != shape[2]:
        seen = f"{len(elements.positions)} positions (0020,0032) for {shape[2]} slices"
        raise InputError(folder, f"series {one.name} does not say where its slices are", found=seen, fix=again)


def _elements(one: Series, folder: Path) -> Elements:
    """What the series' own files say, read through ITK."""
    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    found: dict[str, set[float]] = {PULSE_TRAIN: set(), INVERSION_TIME: set()}
    files, frames = 0, 1
    positions: set[tuple[float, ...]] = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            continue  # not an image: dcm2niix has judged the folder already
        if not reader.HasMetaDataKey("0020|000e") or reader.GetMetaData("0020|000e").strip("\0 ") != one.uid:
            continue
        files += 1
        if reader.HasMetaDataKey("0020|0032"):
            positions.add(tuple(round(x, 2) for x in _numbers(reader.GetMetaData("0020|0032"))))
        if reader.HasMetaDataKey("0028|0008"):
            frames = max([frames, *map(int, _numbers(reader.GetMetaData("0028|0008")))])
        for element, values in found.items():
            if reader.HasMetaDataKey(element):
                values |= {round(x / 1000, 6) for x in _numbers(reader.GetMetaData(element))[:1]}
    return Elements(files, frames, positions, found[PULSE_TRAIN], found[INVERSION_TIME])


def _numbers(text: str) -> list[float]:
    """The numbers of an element, values apart by backslashes; none where it holds something else."""
    try:
        return [float(part) for part in text.strip("\0 ").split("\\")]
    except ValueError:
        return []


def _shape(image: Path) -> tuple[int, ...]:
    import nibabel

    return tuple(int(n) for n in nibabel.load(image).shape)  # type: ignore[attr-defined]


def _without_paths(text: str) -> str:
    """The message without file names, which may hold a patient's name."""
    return " ".join(word for word in text.split() if "/" not in word and "\\" not in word)[:120]
