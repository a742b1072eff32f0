"""As much of BIDS as one scan needs: entities, sidecars by inheritance, aslcontext.tsv and the m0scan that belongs to a series."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..errors import InputError
from . import nifti, nrrd
from .sidecar import Sidecar

Path_ = str | os.PathLike[str]
IMAGES = (*nifti.SUFFIXES, *nrrd.SUFFIXES)


def stem(path: Path_) -> str:
    """The file name without .nii, .nii.gz, .nrrd, .json or .tsv."""
    name = Path(os.path.abspath(path)).name
    for suffix in (".nii.gz", ".nii", ".seq.nrrd", ".nrrd", ".nhdr", ".json", ".tsv"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def prefix(path: Path_) -> str:
    """What the outputs' names begin with: the BIDS entities, or the stem.

    >>> prefix("sub-01_run-2_asl.nii.gz"), prefix("perfusion.nii")
    ('sub-01_run-2', 'perfusion')
    """
    name = stem(path)
    return name[: -len("_asl")] if name.endswith("_asl") and name != "_asl" else name


def entities(path: Path_) -> dict[str, str]:
    """{"sub": "01", "run": "2"} of sub-01_run-2_asl.nii.gz; empty for a name that is not BIDS."""
    parts = (part.partition("-") for part in stem(path).split("_"))
    return {key: value for key, dash, value in parts if dash and key and value}


def suffix(path: Path_) -> str:
    """`asl` of sub-01_asl.nii.gz: the last part of the name, if it is no entity."""
    last = stem(path).rsplit("_", 1)[-1]
    return "" if "-" in last else last


def levels(path: Path_) -> list[Path]:
    """The folders whose sidecars apply to an image, from the dataset's root down to the image's own folder."""
    folder = Path(os.path.abspath(path)).parent  # not resolve(): datalad's images are links into .git/annex
    upward = [folder, *folder.parents]
    for depth, candidate in enumerate(upward):
        if (candidate / "dataset_description.json").is_file():
            return upward[: depth + 1][::-1]
    # Without a dataset_description.json: as far up as folder names say that a subject's tree goes, and the folder that holds it.
    depth = 0
    while depth < len(upward) - 1 and (upward[depth].name in ("perf", "fmap") or upward[depth].name.startswith(("sub-", "ses-"))):
        depth += 1
    return upward[: depth + 1][::-1]


def applicable(path: Path_, kind: str, extension: str) -> list[Path]:
    """Files `…_{kind}{extension}` that apply to the image by BIDS inheritance, the most general first."""
    image, found = entities(path), []
    for folder in levels(path):
        try:
            names = [name for name in os.listdir(folder) if name.endswith(extension) and suffix(name) == kind]
        except OSError:
            continue  # a parent that we may not list has nothing for us
        fitting = [name for name in names if entities(name).items() <= image.items()]
        found += [folder / name for name in sorted(fitting, key=lambda name: (len(entities(name)), name))]
    return found


def read_sidecar(path: Path_) -> Sidecar:
    """All JSON fields that apply to an image: nearer files win over those further up; empty where there is none."""
    own = Path(path).with_name(stem(path) + ".json")
    found = applicable(path, suffix(path), ".json") if entities(path) else []
    if own.is_file() and Path(os.path.abspath(own)) not in found:
        found.append(own)
    fields: dict[str, object] = {}
    files: dict[str, str] = {}
    for file in found:
        content = read_json(file)
        fields.update(content)
        files.update(dict.fromkeys(content, str(file)))
    return Sidecar(home=str(found[-1]) if found else str(own), fields=fields, files=files)


def read_json(path: Path_) -> dict[str, object]:
    """A JSON object."""
    fix = "repair the JSON"
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(path, "not valid JSON", found=str(error)[:120], fix=fix) from None
    if not isinstance(content, dict):
        raise InputError(path, "must hold one JSON object", found=type(content).__name__, fix=fix)
    return content


def read_aslcontext(path: Path_) -> tuple[list[str], Path] | None:
    """The rows of `volume_type` (as written, stripped) and the file; None where no aslcontext.tsv applies."""
    own = Path(path).with_name(prefix(path) + "_aslcontext.tsv")
    found = [own] if own.is_file() else applicable(path, "aslcontext", ".tsv") if entities(path) else []
    if not found:
        return None
    file = found[-1]
    lines = [line.split("\t") for line in read_text(file).splitlines()]
    header = [name.strip() for name in lines[0]] if lines else []
    if "volume_type" not in header:
        listed = ", ".join(header)[:80] or "an empty file"
        raise InputError(file, "has no column volume_type", found=listed, fix="begin with a line volume_type, then one row per volume")
    column = header.index("volume_type")
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()  # editors leave blank lines at the end
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if column >= len(cells) or not cells[column].strip():
            raise InputError(file, f"line {number} has no volume_type", fix="give one row per volume, n/a where unknown")
        rows.append(cells[column].strip())
    return rows, file


def find_m0scan(path: Path_) -> Path | None:
    """The m0scan image that belongs to an ASL series, or None.

    In order: in the same folder with IntendedFor naming the series or with the same entities; the same in the fmap/ folder beside;
    then the only one in the same folder. Raises InputError where several fit equally well.
    """
    image = Path(os.path.abspath(path))
    if image.is_dir():
        return None  # DICOM: what lies beside the folder is not known to belong to it
    for folder in (image.parent, image.parent.parent / "fmap"):
        scans = [file for file in _listed(folder) if suffix(file) == "m0scan" and file.name.endswith(IMAGES)]
        claims = {file: _intended_for(file) for file in scans}
        meant = [file for file in scans if any(_names(target, image) for target in claims[file])]
        twins = [file for file in scans if entities(file) == entities(image)]  # also where IntendedFor is misspelt
        general = [file for file in scans if not claims[file] and entities(file).items() <= entities(image).items()]
        for group in (meant, twins, general):
            exact = [file for file in group if entities(file) == entities(image)] or group
            if len(exact) > 1:
                names = ", ".join(file.name for file in exact)
                raise InputError(path, "several m0scan images belong to this series", found=names, fix="choose one with --m0")
            if exact:
                return exact[0]
    return None


def companions(path: Path_) -> list[Path]:
    """Every file that reading a series may look at: sidecars, aslcontext.tsv, m0scan images of its folder and of fmap/, with theirs."""
    image = Path(os.path.abspath(path))
    folders = (image.parent, image.parent.parent / "fmap")
    images = [image, *(file for folder in folders for file in _listed(folder) if suffix(file) == "m0scan" and file.name.endswith(IMAGES))]
    found = [image.with_name(stem(image) + ".json"), image.with_name(prefix(image) + "_aslcontext.tsv")]
    if entities(image):  # a name without entities inherits nothing
        found += [file for one in images for file in (one, *applicable(one, suffix(one), ".json"))] + applicable(
            image, "aslcontext", ".tsv"
        )
    return [file for file in dict.fromkeys(found) if file.is_file()]


def _intended_for(file: Path) -> list[str]:
    claim = read_sidecar(file).get("IntendedFor")
    return [str(target) for target in claim] if isinstance(claim, list) else [] if claim is None else [str(claim)]


def _names(target: str, image: Path) -> bool:
    """Whether one IntendedFor entry means `image`: bids::sub-01/perf/x, bids:name:…, perf/x, ses-1/perf/x, /sub-01/perf/x or x alone."""
    if target.startswith("bids:"):
        target = target.split(":", 2)[-1]
    parts = [part for part in target.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts:
        return False
    return stem(parts[-1]) == stem(image) and list(image.parts[-len(parts) : -1]) == parts[:-1]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder))
    except OSError:
        return []


def read_text(path: Path_) -> str:
    """A UTF-8 text file, a byte-order mark left out."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, "is not UTF-8 text", found=str(error)[:120], fix="save it as UTF-8") from None
    except OSError as error:
        raise InputError(path, "cannot be read", found=error.strerror or error, fix="check the path and its permissions") from None
