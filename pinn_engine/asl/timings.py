"""Delays, label durations and slice times of every volume, from the sidecar or from options; never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..files.sidecar import Sidecar, numbers
from .volumes import perfusion

if TYPE_CHECKING:
    from .acquisition import AcquisitionOptions

LONGEST = 10.0  # s; anything longer is in milliseconds


@dataclass(frozen=True)
class Timings:
    """`pld` and `label_duration` (volumes,) s, meaningless where a volume is not perfusion; `slice_delay` (slices,) s."""

    pld: np.ndarray
    label_duration: np.ndarray
    slice_delay: np.ndarray
    slice_axis: int
    pld_origin: str
    duration_origin: str
    slice_origin: str


@dataclass(frozen=True)
class _Given:
    """Values under the name and file to complain about."""

    values: np.ndarray
    name: str
    where: str
    origin: str
    is_option: bool


def read_timings(
    labeling: str,
    sidecar: Sidecar,
    types: Sequence[str],
    shape: Sequence[int],
    options: AcquisitionOptions,
    where: str,
    notes: list[str],
) -> Timings:
    """All timings of a series whose volumes are of the given types; raises InputError for what is missing or cannot be."""
    _refuse_wrong_options(labeling, options, where)
    pulsed = labeling == "PASL"
    delay = _given(sidecar, "PostLabelingDelay", options.tis if pulsed else options.plds, "--tis" if pulsed else "--plds", where)
    if delay is None:
        what = "PostLabelingDelay (PASL: the inversion time) is missing" if pulsed else "PostLabelingDelay is missing"
        raise InputError(sidecar.home, what, fix=f"give {'--tis' if pulsed else '--plds'} in seconds")
    duration = _bolus(sidecar, options, where) if pulsed else _label_duration(sidecar, options, where)
    used = perfusion(types)
    pld = _checked(delay, types, used, zero_is_legal=not pulsed)
    label_duration = _checked(duration, types, used, zero_is_legal=False)
    if pulsed and np.any(pld[used] < label_duration[used]):
        notes.append("Some inversion times are shorter than the bolus: the label still flows in then, which the model allows for.")
    slice_delay, axis, origin = slice_delays(sidecar, shape, options, where, notes)
    return Timings(pld, label_duration, slice_delay, axis, delay.origin, duration.origin, origin)


def _refuse_wrong_options(labeling: str, options: AcquisitionOptions, where: str) -> None:
    """TI and PLD differ by the label duration, so that one silently taken for the other would shift every arrival time."""
    pulsed = labeling == "PASL"
    wrong = {
        "--plds": (pulsed and options.plds is not None, "--tis, the inversion times"),
        "--label-duration": (pulsed and options.label_duration is not None, "--bolus-duration (TI1)"),
        "--tis": (not pulsed and options.tis is not None, "--plds, the delays after the end of labelling (TI - label duration)"),
        "--bolus-duration": (not pulsed and options.bolus_duration is not None, "--label-duration"),
    }
    for name, (given, instead) in wrong.items():
        if given:
            raise InputError(where, f"{name} does not apply to this labelling", found=labeling, fix=f"give {instead}")


def _given(sidecar: Sidecar, name: str, option: object, option_name: str, where: str) -> _Given | None:
    """The option where there is one, else the sidecar's field."""
    if option is not None:
        return _Given(numbers(option, where, option_name), option_name, where, f"option {option_name}", True)
    values = sidecar.numbers(name)
    return None if values is None else _Given(values, name, sidecar.where(name), sidecar.origin(name), False)


def _label_duration(sidecar: Sidecar, options: AcquisitionOptions, where: str) -> _Given:
    given = _given(sidecar, "LabelingDuration", options.label_duration, "--label-duration", where)
    if given is None:
        raise InputError(sidecar.home, "LabelingDuration is missing", fix="give --label-duration in seconds")
    return given


def _bolus(sidecar: Sidecar, options: AcquisitionOptions, where: str) -> _Given:
    """TI1 of PASL: the first cut-off delay. Without a cut-off the bolus has no known end."""
    fix = "give --bolus-duration in seconds (TI1)"
    if options.bolus_duration is None:
        if sidecar.flag("BolusCutOffFlag") is False:
            file = sidecar.where("BolusCutOffFlag")
            raise InputError(file, "PASL without a bolus cut-off has no known bolus duration", found="BolusCutOffFlag false", fix=fix)
        if sidecar.word("BolusCutOffTechnique", ("QUIPSS", "QUIPSSII", "Q2TIPS")) == "QUIPSS":
            file = sidecar.where("BolusCutOffTechnique")
            raise InputError(file, "BolusCutOffTechnique saturates the imaged slices, not the bolus", found="QUIPSS", fix=fix)
    given = _given(sidecar, "BolusCutOffDelayTime", options.bolus_duration, "--bolus-duration", where)
    if given is None:
        raise InputError(sidecar.home, "BolusCutOffDelayTime is missing", fix=fix)
    if given.is_option:
        return given
    first = given.values.reshape(-1)[:1]  # Q2TIPS gives first and last saturation
    return _Given(first, given.name, given.where, given.origin + (" (first of several)" if given.values.size > 1 else ""), False)


def _checked(given: _Given, types: Sequence[str], used: np.ndarray, *, zero_is_legal: bool) -> np.ndarray:
    """Per volume, with the values of perfusion volumes possible; m0scan rows may hold 0."""
    values = _per_volume(given, types, used)
    used_values = values[used]
    if np.any(used_values > LONGEST):
        found = f"{used_values.max():g}"
        raise InputError(given.where, f"{given.name} looks like milliseconds", found=found, fix=f"give {given.name} in seconds")
    if np.any(used_values < 0) or (not zero_is_legal and np.any(used_values == 0)):
        what = "must not be negative" if zero_is_legal else "must be above zero"
        raise InputError(given.where, f"{given.name} {what}", found=f"{used_values.min():g}", fix=f"give {given.name} in seconds")
    return values


def _per_volume(given: _Given, types: Sequence[str], used: np.ndarray) -> np.ndarray:
    """Expand to (volumes,). Shorter lists are accepted from options only, and only where their meaning is certain."""
    values, volumes = given.values.reshape(-1), len(types)
    if values.size == 1:
        return np.full(volumes, values[0])
    if values.size == volumes:
        return values
    expanded = np.full(volumes, np.nan)
    if given.is_option and values.size == used.size:
        expanded[used] = values
        return expanded
    pairs = _alternating_pairs(types, used)
    if given.is_option and pairs is not None and values.size == len(pairs):
        expanded[pairs] = values[:, None]
        return expanded
    expected = [f"1 or {volumes} (one per volume{', m0scans included' if 'm0scan' in types else ''})"]
    if given.is_option:
        expected += [f"{used.size} (one per perfusion volume)"] * (used.size != volumes)
        expected += [f"{len(pairs)} (one per pair)"] if pairs is not None else []
    fix = f"repeat each entry of {given.name} for every volume, in the order of acquisition"
    raise InputError(given.where, f"{given.name} must have {' or '.join(expected)} entries", found=values.size, fix=fix)


def _alternating_pairs(types: Sequence[str], used: np.ndarray) -> np.ndarray | None:
    """(pairs, 2) volumes, if control and label follow each other in twos throughout; else None."""
    if "label" not in types or used.size % 2:
        return None
    pairs = used.reshape(-1, 2)
    return pairs if all({types[a], types[b]} == {"control", "label"} for a, b in pairs) else None


def slice_delays(
    sidecar: Sidecar, shape: Sequence[int], options: AcquisitionOptions, where: str, notes: list[str]
) -> tuple[np.ndarray, int, str]:
    """((slices,) s after the first slice read, in the image's order; the slice axis 0-2; origin)."""
    direction = sidecar.word("SliceEncodingDirection", ("i", "j", "k", "i-", "j-", "k-")) or "k"
    axis = "ijk".index(direction[0])
    slices = int(shape[axis])
    kind = sidecar.word("MRAcquisitionType", ("2D", "3D"))
    if options.slice_timing is not None:
        given = numbers(options.slice_timing, where, "--slice-timing")
        times = given * np.arange(slices) if given.size == 1 else given
        name, file, origin = "--slice-timing", where, "option --slice-timing"
    elif kind == "3D":
        if sidecar.get("SliceTiming") is not None:
            notes.append("SliceTiming is ignored: MRAcquisitionType is 3D, all slices are read together.")
        return np.zeros(slices), axis, f"{sidecar.origin('MRAcquisitionType')} is 3D: all slices read together"
    else:
        field = sidecar.numbers("SliceTiming")
        name, file, origin = "SliceTiming", sidecar.where("SliceTiming"), sidecar.origin("SliceTiming")
        if field is None and slices == 1:
            return np.zeros(1), axis, "one slice"
        if field is None and kind == "2D":
            fix = "give --slice-timing: one time per slice, or the time from each slice to the next (0 if that is already corrected)"
            raise InputError(sidecar.home, "SliceTiming is missing for a 2D acquisition", fix=fix)
        if field is None:
            notes.append(
                "Neither MRAcquisitionType nor SliceTiming is known: taken as 3D, all slices read together; else give --slice-timing."
            )
            return np.zeros(slices), axis, "not known: taken as 3D, all slices read together"
        times = field.reshape(-1)
        if direction.endswith("-"):
            times, origin = times[::-1], origin + f", reversed (SliceEncodingDirection {direction})"
    if times.size != slices:
        fix = f"give {name} with one time per slice"
        raise InputError(file, f"{name} must have {slices} entries, the slices along axis {direction[0]}", found=times.size, fix=fix)
    if times.min() < 0:
        raise InputError(file, f"{name} must not be negative", found=f"{times.min():g}", fix=f"give {name} in seconds")
    if times.max() > LONGEST:
        raise InputError(file, f"{name} looks like milliseconds", found=f"{times.max():g}", fix=f"give {name} in seconds")
    if times.min() > 0:
        notes.append(f"{name} begins at {times.min():g} s: the first slice read is taken as the one that the delays refer to.")
    return times - times.min(), axis, origin


def listed(values: np.ndarray) -> float | str:
    """A number, or the distinct values of a list with their count, as it stands in a table of constants."""
    distinct = list(dict.fromkeys(round(float(value), 6) for value in values))
    if len(distinct) == 1:
        return distinct[0]
    return f"{', '.join(f'{value:g}' for value in distinct)} ({len(values)} values)"
