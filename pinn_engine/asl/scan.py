"""One perfusion scan in memory: differences, calibration, mask, geometry, acquisition."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath

import numpy as np

from ..errors import InputError
from ..files import bids
from ..files import load as images
from ..files.grid import Grid
from ..files.sidecar import Sidecar
from . import mask as masks
from . import volumes as volume_types
from .acquisition import Acquisition, AcquisitionOptions, Sourced, build
from .calibration import Series, calibrate
from .priors import ArrivalMap, read_arrival, read_tissue
from .regions import Regions, read_regions

MODELS = ("buxton", "simplified")

ABSURD = 1e9  # scanner units; squares of larger ones overflow float32 once scaled to flow


@dataclass(frozen=True, repr=False)
class Scan:
    """A perfusion scan ready to be fitted.

    `difference` (X, Y, Z, N) float32 is control - label, one volume per pair (or deltam volume), in scanner units, NaN kept.
    `m0` is equilibrium M0 of *blood* per voxel, (X, Y, Z) float32: tissue M0 (TR-corrected, scaled) / lambda, or the sidecar's M0Estimate;
    0 where it is not usable, so that the voxel cannot be fitted; None = no usable M0 at all, so that perfusion is relative.
    `mask` (X, Y, Z) bool. `t1_tissue` (X, Y, Z) s where a map was given. `regions` are for tables only: no fit sees them.
    """

    difference: np.ndarray
    acquisition: Acquisition
    mask: np.ndarray
    grid: Grid
    prefix: str
    source: str  # file name of the input
    m0: np.ndarray | None = None
    t1_tissue: np.ndarray | None = None
    tissue: np.ndarray | None = None  # (X, Y, Z, 3) probabilities of GM, WM, CSF where maps were given
    arrival: ArrivalMap | None = None  # known beforehand, for a single delay
    regions: Regions | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)  # plain sentences for the log and the report

    def __repr__(self) -> str:
        """One line in place of a thousand of numbers."""
        size = " x ".join(map(str, self.mask.shape))
        images = f"{self.acquisition.labeling}, {self.difference.shape[3]} differences"
        return f"<Scan {self.source}: {images}, {size}, {self.mask.sum():,} in mask>"


def read(
    path: str | PathLike[str],
    *,
    m0: str | PathLike[str] | float | None = None,
    mask: str | PathLike[str] | None = None,
    t1_map: str | PathLike[str] | None = None,
    tissue: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    att_map: str | PathLike[str] | None = None,
    att_sd: float | None = None,
    m0_scale: float = 1.0,
    m0_region: str | PathLike[str] | None = None,
    m0_tissue: str | None = None,
    options: AcquisitionOptions | None = None,
    model: str = "buxton",
    series: str | None = None,
    m0_series: str | None = None,
    labels: str | PathLike[str] | None = None,
    label_names: str | PathLike[str] | None = None,
) -> Scan:
    """Read an ASL series into a scan that can be fitted: NIfTI or NRRD with its BIDS sidecar and aslcontext.tsv, or a DICOM folder.

    `labels` is an image of regions for the table, `label_names` a table of their names.
    `m0` is tissue M0: a number, an image, or "control" for the mean control; None takes what the sidecar says. `mask`, `t1_map` (s) are
    images on the series' grid. `tissue`: probabilities of GM, WM, CSF (a 4-D image, or three), from which T1 follows. `att_map` (s) with
    its sd `att_sd` (s): arrival known beforehand, for a single delay. `m0_region`: a mask in which `m0_tissue` (csf, wm, gm) gives one M0
    for all voxels. `series`, `m0_series` choose among the series of a DICOM folder. `options` replace or override the sidecar.
    Raises InputError, one line, for anything that cannot be used.

    >>> scan = read("sub-01_asl.nii.gz")  # doctest: +SKIP
    """
    path, options = fspath(path), options or AcquisitionOptions()
    notes: list[str] = []
    if model not in MODELS:
        raise InputError(path, "--model is unknown", found=model, fix=f"give {' or '.join(MODELS)}")
    loaded = images.load(path, series=series, what="ASL series")
    data, grid, sidecar = loaded.data, loaded.grid, loaded.sidecar
    if not sidecar or sidecar.label:
        _refuse_missing_options(options, sidecar, path, model)
    types, types_from = _types(path, data, options, notes)
    volumes = data if data.ndim == 4 else data[..., None]
    acquisition, differencing = build(sidecar, types, grid.shape, options, path, notes, model=model, types_from=types_from)
    _check_total(sidecar, types, notes)
    _refuse_blank(volumes, types, path)
    difference = _difference(volumes, differencing, path, notes)

    t1_tissue, impossible = (None, None) if t1_map is None else _t1_map(t1_map, grid, acquisition.t1_tissue.number)
    calibration = calibrate(
        Series(path, volumes, types, grid, sidecar),
        m0=path if m0 is None and m0_series is not None else m0,
        m0_series=m0_series,
        m0_scale=m0_scale,
        partition=acquisition.partition.number,
        t1_tissue=acquisition.t1_tissue.number if t1_tissue is None else t1_tissue,
        notes=notes,
        region=m0_region,
        region_tissue=m0_tissue or "csf",
    )
    if m0_tissue is not None and m0_region is None:
        raise InputError("--m0-tissue", "says what --m0-region is", found="no --m0-region", fix="give --m0-region FILE")
    if att_sd is not None and att_map is None:
        raise InputError("--att-sd", "is the uncertainty of --att-map", found="no --att-map", fix="give --att-map FILE")
    origins = {**acquisition.origins, **calibration.origins}
    brain, origins["mask"] = _mask(mask, calibration.image, volumes, types, difference, grid, path, acquisition.slice_axis, notes)
    if impossible is not None and (count := int((impossible & brain).sum())):
        notes.append(f"The T1 map holds no possible value in {count} voxels of the mask: the default is used there.")
    if t1_tissue is not None:
        origins["t1_tissue"] = Sourced("map", "option --t1-map", "s")
    if tissue is not None and t1_tissue is None:
        origins["t1_tissue"] = Sourced("by tissue class", "option --tissue: the default for GM, 83/133 of it for WM", "s")
    _note_sign(difference, brain, notes)
    _note_m0(calibration.m0, brain, notes, path)
    return Scan(
        difference=difference,
        acquisition=dataclasses.replace(acquisition, origins=origins),
        mask=brain,
        grid=grid,
        prefix=loaded.prefix,
        source=loaded.source,
        m0=calibration.m0,
        t1_tissue=t1_tissue,
        tissue=None if tissue is None else read_tissue(tissue, grid),
        arrival=None if att_map is None else read_arrival(att_map, att_sd, grid),
        regions=_regions(labels, label_names, grid, brain, notes),
        notes=tuple(notes),
    )


def _refuse_blank(volumes: np.ndarray, types: Sequence[str], path: str) -> None:
    """InputError for images of zeros only: a scan broken off, or a file that a program has filled up. 0 - 0 is no measurement."""
    blank = [n for n, kind in enumerate(types) if kind in ("control", "label", "m0scan") and not np.any(volumes[..., n])]
    if blank:
        named = ", ".join(str(n + 1) for n in blank[:6]) + (", …" if len(blank) > 6 else "")
        fix = "export the scan again, or leave them out of image, aslcontext.tsv and delays"
        raise InputError(path, "volumes hold nothing but zeros", found=f"{len(blank)} of {len(types)}: {named}", fix=fix)


def _refuse_missing_options(options: AcquisitionOptions, sidecar: Sidecar, path: str, model: str) -> None:
    """What neither an option nor the files say surely: name everything at once. Without a sidecar that is all timings."""

    def known(option: object, name: str) -> object:
        return sidecar.fields.get(name) if option is None and name not in sidecar.doubts else option

    labeling = known(options.labeling, "ArterialSpinLabelingType")
    pulsed = str(labeling).strip().lower() == "pasl" or model == "simplified"
    delay, duration = known(options.plds, "PostLabelingDelay"), known(options.label_duration, "LabelingDuration")
    needed: list[tuple[str, object]] = [] if model == "simplified" else [("--labeling", labeling)]
    if pulsed:
        needed += [("--tis", known(options.tis, "PostLabelingDelay"))]
        needed += [("--bolus-duration", known(options.bolus_duration, "BolusCutOffDelayTime"))]
    elif labeling is None:
        needed += [("--plds and --label-duration (PASL: --tis and --bolus-duration)", delay or options.tis)]
    else:
        needed += [("--plds", delay), ("--label-duration", duration)]
    if options.volumes is None and bids.read_aslcontext(path) is None:
        needed.append(("--volumes", None))
    missing = [name for name, value in needed if value is None]
    if not missing:
        return
    if sidecar.label:
        doubts = "; ".join(f"{name} would be {doubt}" for name, doubt in sidecar.doubts.items())
        problem = f"{sidecar.label} does not say, or contradicts itself about, what was acquired"
        raise InputError(path, problem, found=doubts or "no such elements", fix=f"give {', '.join(missing)}")
    home = sidecar.home.replace("\\", "/").rsplit("/", 1)[-1]
    raise InputError(path, f"no BIDS sidecar ({home}) and not all timings by option", fix=f"give {', '.join(missing)}")


def _types(path: str, data: np.ndarray, options: AcquisitionOptions, notes: list[str]) -> tuple[list[str], str]:
    """One BIDS volume type per volume, by --volumes or aslcontext.tsv, and the file to name in errors about them."""
    count = data.shape[3] if data.ndim == 4 else 1
    context = bids.read_aslcontext(path)
    rows, file = (None, path) if context is None else (context[0], str(context[1]))
    if data.ndim == 3 and (options.volumes or "".join(rows or [])) != "deltam":
        shape = " x ".join(map(str, data.shape))
        fix = "give the whole series; a single difference image needs --volumes deltam"
        raise InputError(path, "ASL series must be 4-D (x, y, z, volume)", found=f"3-D ({shape})", fix=fix)
    if options.volumes is not None:
        checked = volume_types.from_rows(rows, file, count) if rows is not None and len(rows) == count else None
        types = volume_types.from_option(options.volumes, count, checked, path)
    elif rows is not None:
        types = volume_types.from_rows(rows, file, count)
    else:
        fix = "add it, or give --volumes control-label, label-control or deltam"
        raise InputError(path, f"no {bids.prefix(path)}_aslcontext.tsv says which volumes are control and label", fix=fix)
    unused = [kind for kind in dict.fromkeys(types) if kind in ("noRF", "n/a", "cbf") or (kind == "deltam" and "label" in types)]
    if unused:
        notes.append(f"Volumes of type {', '.join(unused)} are not used.")
    return types, path if options.volumes is not None else file


def _difference(volumes: np.ndarray, differencing: volume_types.Differencing, path: str, notes: list[str]) -> np.ndarray:
    """(X, Y, Z, N) float32 with NaN for what is not finite, which the fit leaves out."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = differencing.apply(volumes)
    with np.errstate(invalid="ignore"):
        broken = ~(np.abs(difference) < ABSURD)
    if broken.any():
        difference[broken] = np.nan
        voxels = int(broken.any(axis=-1).sum())
        notes.append(f"{int(broken.sum())} differences in {voxels} voxels are NaN, Inf or beyond {ABSURD:g} and are left out.")
    if broken.all():
        raise InputError(path, "no control-label difference is finite", fix="check the control and label volumes")
    if not np.any(difference, where=~broken):
        raise InputError(path, "all control-label differences are zero", fix="check aslcontext.tsv or --volumes")
    return difference


def _t1_map(path: str | PathLike[str], grid: Grid, default: float) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) float32 s, the default where the map holds no possible T1; and where that is."""
    data, found = images.read(path, ndim=(3,), what="T1 map")
    if not grid.matches(found):
        raise InputError(path, "the T1 map must be on the grid of the ASL series", found=grid.difference(found), fix="resample it")
    possible = np.isfinite(data) & (data > 0.05)
    if not possible.any() or np.median(data[possible]) > 10:
        typical = f"{np.median(data[possible]):g}" if possible.any() else "no value above 0.05"
        raise InputError(path, "the T1 map must be in seconds (milliseconds?)", found=typical, fix="divide it by 1000")
    possible &= data < 10
    return np.where(possible, data, default).astype(np.float32), ~possible


def _regions(
    labels: str | PathLike[str] | None, names: str | PathLike[str] | None, grid: Grid, brain: np.ndarray, notes: list[str]
) -> Regions | None:
    if labels is None:
        if names is not None:
            raise InputError(names, "--label-names needs --labels", found="no label image", fix="give --labels FILE")
        return None
    regions = read_regions(labels, grid, names)
    outside = [
        regions.name(label) for label in np.unique(regions.labels[regions.labels > 0]) if not (brain & (regions.labels == label)).any()
    ]
    if outside:
        listed = ", ".join(outside[:5]) + (f" and {len(outside) - 5} more" if len(outside) > 5 else "")
        notes.append(f"Regions that lie outside the mask and have no values: {listed}.")
    return regions


def _mask(
    given: str | PathLike[str] | None,
    m0: np.ndarray | None,
    volumes: np.ndarray,
    types: Sequence[str],
    difference: np.ndarray,
    grid: Grid,
    path: str,
    slice_axis: int,
    notes: list[str],
) -> tuple[np.ndarray, Sourced]:
    """(X, Y, Z) bool and where it comes from."""
    if given is not None:
        return masks.read(given, grid, notes), Sourced("given", "option --mask")
    controls = np.flatnonzero(np.array(types) == "control")
    if m0 is not None:
        image, source = m0, "M0"
    elif controls.size:
        image, source = np.nan_to_num(volumes[..., controls]).mean(axis=-1), "mean control"
    else:
        image, source = np.abs(np.nan_to_num(difference).mean(axis=-1)), "mean absolute difference"
    made = masks.make(image, grid, source, path, slice_axis=slice_axis, noisy=m0 is None and not controls.size)
    return made, Sourced("made", f"made from the {source}")


def _check_total(sidecar: Sidecar, types: Sequence[str], notes: list[str]) -> None:
    total = sidecar.number("TotalAcquiredPairs")
    found = list(types).count("label") or list(types).count("deltam")
    if total is not None and total != found:
        notes.append(f"TotalAcquiredPairs is {total:g}, but the series holds {found}: averages were taken or volumes are missing.")


def _note_sign(difference: np.ndarray, brain: np.ndarray, notes: list[str]) -> None:
    inside = difference[brain]
    if np.isfinite(inside).any() and float(np.nanmedian(inside)) < 0:
        notes.append("The median difference in the mask is negative: control and label may be swapped; check aslcontext.tsv or --volumes.")


def _note_m0(m0: np.ndarray | None, brain: np.ndarray, notes: list[str], path: str) -> None:
    if m0 is None:
        return
    bad = int((m0[brain] <= 0).sum())
    if bad == int(brain.sum()):
        raise InputError(path, "M0 is not usable in any voxel of the mask", fix="check that M0 and mask show the same brain")
    if bad:
        notes.append(f"M0 is zero, negative or tiny in {bad} voxels of the mask: they are not fitted.")
