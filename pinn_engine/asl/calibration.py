"""From a proton-density image, a number or the controls to the equilibrium M0 of blood in every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import bids
from ..files import load as images
from ..files.grid import Grid
from ..files.sidecar import Sidecar
from . import mask as masks
from .constants import Sourced
from .reference import blood_from_region

FULLY_RELAXED = 5.0  # s; from this repetition time on no correction (Alsop 2015, doi:10.1002/mrm.25197)
LONGEST = 60.0  # s; a repetition time above is in milliseconds
TINY = 0.01  # of the image's 98th percentile: air, where a ratio to M0 means nothing
M0_TYPES = ("Separate", "Included", "Estimate", "Absent")


@dataclass(frozen=True)
class Series:
    """What calibration needs to know of the perfusion series; `volumes` (X, Y, Z, V), `types` one a volume."""

    path: str
    volumes: np.ndarray
    types: Sequence[str]
    grid: Grid
    sidecar: Sidecar


@dataclass(frozen=True)
class Calibration:
    """`m0` (X, Y, Z) float32: M0 of blood, 0 = not usable there; None: perfusion is relative. `image`: M0 of tissue, if an image."""

    m0: np.ndarray | None
    image: np.ndarray | None
    origins: dict[str, Sourced]


@dataclass(frozen=True)
class _Tissue:
    """M0 of tissue before corrections, with its repetition time (None: taken as relaxed)."""

    image: np.ndarray
    repetition_time: float | None
    time_origin: str
    origin: str


def calibrate(
    series: Series,
    *,
    m0: str | PathLike[str] | float | None,
    m0_scale: float,
    partition: float,
    t1_tissue: float | np.ndarray,
    notes: list[str],
    region: str | PathLike[str] | None = None,
    region_tissue: str = "csf",
    m0_series: str | None = None,
) -> Calibration:
    """M0 of blood by the option `m0` (tissue: a number, an image, or "control"), else as M0Type of the sidecar says.

    Tissue M0 is multiplied by `m0_scale`, divided by 1 - exp(-TR / T1 of tissue) where TR < 5 s, and divided by lambda (`partition`, mL/g).
    `region` (a mask) takes M0 from `region_tissue` there ("csf", "wm" or "gm"), one value for all voxels.
    `M0Estimate` is blood's: only scaled. Raises InputError where M0 is promised and cannot be used; notes say why where there is none.
    """
    scale = _positive(m0_scale, series.path, "--m0-scale")
    origins = {} if scale == 1 else {"m0_scale": Sourced(scale, "option --m0-scale")}
    number = _number(m0)
    if region is not None and (number is not None or (m0 is None and series.sidecar.word("M0Type", M0_TYPES) == "Estimate")):
        raise InputError("--m0-region", "needs an M0 image", found="one number for M0", fix="give --m0 FILE, or leave --m0-region out")
    if m0_series is not None and (number is not None or str(m0).strip().lower() == "control"):
        raise InputError(series.path, "--m0-series chooses from a DICOM folder", found=f"--m0 {m0}", fix="leave one of them out")
    if number is not None:
        value = _positive(number, series.path, "--m0") * scale / partition
        origins["m0"] = Sourced(number, "option --m0: tissue, fully relaxed, divided by lambda")
        return Calibration(np.full(series.grid.shape, value, np.float32), None, origins)
    kind = "Option" if m0 is not None else _kind(series, notes)
    if kind == "Estimate":
        estimate = series.sidecar.number("M0Estimate")
        if estimate is None:
            raise InputError(series.sidecar.home, "M0Type is Estimate but M0Estimate is missing", fix="give --m0")
        value = _positive(estimate, series.sidecar.where("M0Estimate"), "M0Estimate") * scale
        origins["m0"] = Sourced(estimate, series.sidecar.origin("M0Estimate") + ": blood, not divided by lambda")
        return Calibration(np.full(series.grid.shape, value, np.float32), None, origins)
    tissue = _tissue(series, kind, m0, notes, m0_series)
    if tissue is None and region is not None:
        raise InputError("--m0-region", "needs an M0 image", found="none", fix="give --m0 FILE")
    if tissue is None:
        return Calibration(None, None, {"m0": Sourced(None, "absent: relative perfusion")})
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is left out below
        image = tissue.image * scale
    if region is not None:
        echo, inside = series.sidecar.number("EchoTime"), masks.read(region, series.grid, notes, "M0 region", one_region=True)
        time = tissue.repetition_time
        value, told = blood_from_region(image, inside, region_tissue, time, echo, str(region), notes)
        origins |= told | {"m0_repetition_time": Sourced(time, tissue.time_origin, "s")}
        return Calibration(np.full(series.grid.shape, value, np.float32), image.astype(np.float32), origins)
    origins["m0"] = Sourced("image", tissue.origin + ": tissue, divided by lambda")
    origins["m0_repetition_time"] = Sourced(tissue.repetition_time, tissue.time_origin, "s")
    if tissue.repetition_time is not None and tissue.repetition_time < FULLY_RELAXED:
        image = image / (1 - np.exp(-tissue.repetition_time / t1_tissue))
        notes.append(f"M0 was corrected for its repetition time of {tissue.repetition_time:g} s with the T1 of tissue.")
    source = tissue.origin if m0 is None else str(m0)
    image = _usable(image, source)
    with np.errstate(over="ignore"):
        blood = (image / partition).astype(np.float32)
    return Calibration(_usable(blood, source), image.astype(np.float32), origins)


def _kind(series: Series, notes: list[str]) -> str:
    """What the sidecar says about M0, or what is there where it says nothing; "Control" where only the mean control can serve."""
    said = series.sidecar.word("M0Type", M0_TYPES)
    if said in ("Separate", "Included", "Estimate"):
        return said
    found = "Included" if "m0scan" in series.types else "Separate" if bids.find_m0scan(series.path) else None
    if found:
        if said == "Absent":
            what = "volumes in the series" if found == "Included" else "image beside it"
            notes.append(f"M0Type says Absent, but there are m0scan {what}: used.")
        return found
    return "Estimate" if said is None and series.sidecar.get("M0Estimate") is not None else "Control"


def _tissue(
    series: Series, kind: str, m0: str | PathLike[str] | float | None, notes: list[str], m0_series: str | None = None
) -> _Tissue | None:
    if kind == "Option":
        itself = Path(str(m0)).absolute() == Path(series.path).absolute() and m0_series is None
        if str(m0).strip().lower() == "control" or itself:
            return _from_control(series, notes, asked=True)
        return _from_file(Path(str(m0)), series, notes, "option --m0", m0_series)
    if kind == "Included":
        return _from_series(series, notes)
    if kind == "Control":
        return _from_control(series, notes, asked=False)
    found = bids.find_m0scan(series.path)
    if found is None:
        raise InputError(
            series.sidecar.where("M0Type"),
            "M0Type is Separate but no m0scan belongs to this series",
            fix="give --m0 FILE or NUMBER, or add _m0scan",
        )
    if found.parent.name == "fmap":
        notes.append(f"M0 is taken from fmap/{found.name}: check that it is not distorted the other way.")
    return _from_file(found, series, notes, "m0scan")


def _from_file(path: Path, series: Series, notes: list[str], source: str, m0_series: str | None = None) -> _Tissue:
    image = images.load(path, series=m0_series, what="M0")
    data, grid, sidecar = image.data, image.grid, image.sidecar
    if not series.grid.matches(grid):
        wanted = " x ".join(map(str, series.grid.shape))
        raise InputError(
            path,
            f"M0 must be on the grid of the ASL series ({wanted})",
            found=series.grid.difference(grid),
            fix="resample it to the ASL series",
        )
    if sidecar.flag("BackgroundSuppression"):
        where = sidecar.where("BackgroundSuppression")
        raise InputError(where, "a background-suppressed image cannot be M0", found="BackgroundSuppression true", fix="give another --m0")
    if data.ndim == 4:
        notes.append(f"The mean of the {data.shape[3]} volumes of {image.source} is M0.")
        data = _mean(data)
    origin = f"{source} ({image.source})" if source != "m0scan" else image.source
    if source == "option --m0" and not sidecar:
        notes.append(f"{image.source} has no sidecar: it is taken as fully relaxed (no repetition time is known); else give --m0-scale.")
        return _Tissue(data, None, "not known: taken as fully relaxed", origin)
    time, time_origin = _repetition_time(sidecar, None, notes)
    return _Tissue(data, time, time_origin, origin)


def _from_series(series: Series, notes: list[str]) -> _Tissue:
    rows = np.flatnonzero(np.array(series.types) == "m0scan")
    if not rows.size:
        where = series.sidecar.where("M0Type")
        raise InputError(where, "M0Type is Included but no volume is m0scan", fix="correct aslcontext.tsv, or give --m0")
    time, time_origin = _repetition_time(series.sidecar, rows, notes, len(series.types))
    return _Tissue(_mean(series.volumes[..., rows]), time, time_origin, f"mean of {rows.size} m0scan volume(s) of the series")


def _from_control(series: Series, notes: list[str], *, asked: bool) -> _Tissue | None:
    """The mean control: only where the static tissue was certainly not suppressed, else None, or an error if the user asked for it."""
    rows = np.flatnonzero(np.array(series.types) == "control")
    suppressed = series.sidecar.flag("BackgroundSuppression")
    reason = ""
    if not rows.size:
        reason = "there is no control volume"
    elif suppressed:
        reason = "the controls are background-suppressed"
    elif suppressed is None:
        reason = "the sidecar does not say that the controls are free of background suppression"
    if not reason:
        try:
            time, time_origin = _repetition_time(series.sidecar, rows, notes, len(series.types))
            why = "As asked" if asked else "There is no M0"
            notes.append(f"{why}: the mean control, which is not background-suppressed, is used as M0.")
            return _Tissue(_mean(series.volumes[..., rows]), time, time_origin, "mean control, not background-suppressed")
        except InputError as error:
            if asked:
                raise
            reason = error.problem
    if asked:
        where = series.sidecar.where("BackgroundSuppression")
        raise InputError(where, "the mean control cannot be M0", found=reason, fix="give an M0 image or number with --m0, or none")
    notes.append(f"No M0, so perfusion is relative, not in mL/100 g/min ({reason}); give --m0 for absolute CBF.")
    return None


def _repetition_time(sidecar: Sidecar, rows: np.ndarray | None, notes: list[str], volumes: int = 0) -> tuple[float, str]:
    """Repetition time of the M0 volumes, s; 0 or nothing counts as missing, for it would make M0 infinite."""
    fix = "write the repetition time of M0 in seconds into the sidecar, or give --m0 NUMBER"
    for name in ("RepetitionTimePreparation", "RepetitionTime"):
        values = sidecar.numbers(name)
        if values is None:
            continue
        values = values.reshape(-1)
        if rows is not None and values.size == volumes:
            values = values[rows]
        if values.size > 1 and np.ptp(values) > 1e-6:
            if rows is None or values.size != rows.size:
                raise InputError(
                    sidecar.where(name), f"{name} must be one number or one per volume", found=f"{values.size} entries", fix=fix
                )
            raise InputError(
                sidecar.where(name), f"{name} differs between the M0 volumes", found=", ".join(f"{v:g}" for v in values), fix=fix
            )
        value = float(values[0])
        if value > LONGEST:
            raise InputError(sidecar.where(name), f"{name} looks like milliseconds", found=f"{value:g}", fix=f"give {name} in seconds")
        if value > 0:
            if name == "RepetitionTime":
                notes.append("RepetitionTimePreparation of M0 is 0 or missing: RepetitionTime is used instead.")
            return value, sidecar.origin(name)
    found = sidecar.numbers("RepetitionTimePreparation")
    raise InputError(
        sidecar.where("RepetitionTimePreparation"),
        "RepetitionTimePreparation, which M0 needs, is missing or 0 and there is no RepetitionTime",
        found="nothing" if found is None else f"{found.reshape(-1)[0]:g}",
        fix=fix,
    )


def _usable(image: np.ndarray, source: str) -> np.ndarray:
    """Zero where M0 is not finite, not positive or tiny, so that the fit leaves those voxels out."""
    positive = np.isfinite(image) & (image > 0)
    if not positive.any():
        raise InputError(source, "M0 is nowhere positive", fix="check the image and --m0-scale, or give another --m0")
    floor = TINY * np.percentile(image[positive], 98)
    return np.where(positive & (image > floor), image, 0.0)


def _mean(volumes: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(volumes)
    count = finite.sum(axis=-1)
    total = np.sum(volumes, axis=-1, where=finite, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _number(m0: object) -> float | None:
    """The number that `--m0` gives, if it is one and not a file."""
    if m0 is None or isinstance(m0, PathLike):
        return None
    try:
        return float(m0)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _positive(value: float, where: str, name: str) -> float:
    if not (np.isfinite(value) and value > 0):
        raise InputError(where, f"{name} must be a positive number", found=value, fix=f"give {name} above zero")
    return float(value)
