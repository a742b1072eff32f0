"""What was acquired: labelling, timings and constants of one perfusion scan, each with its origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import InputError
from ..files.sidecar import Sidecar, numbers
from . import constants
from .constants import Sourced
from .readout import flip_angle
from .timings import Timings, listed, read_timings
from .volumes import Differencing, pair

__all__ = ["Acquisition", "AcquisitionOptions", "Labeling", "Sourced", "build"]

Labeling = Literal["PCASL", "CASL", "PASL"]
LABELINGS: tuple[Labeling, ...] = ("PCASL", "CASL", "PASL")
Numbers = float | Sequence[float] | None


@dataclass(frozen=True)
class AcquisitionOptions:
    """What the user gives instead of the sidecar, or to override it; None = as the sidecar says. All times in seconds.

    Lists have one entry per volume, per perfusion volume (m0scans left out), or per control-label pair where the two alternate.
    """

    labeling: str | None = None  # pcasl, casl or pasl
    label_duration: Numbers = None  # p/CASL
    plds: Numbers = None  # p/CASL: from the end of labelling
    tis: Numbers = None  # PASL: from the labelling pulse
    bolus_duration: Numbers = None  # PASL: TI1
    volumes: str | None = None  # control-label, label-control or deltam
    slice_timing: Numbers = None  # one per slice in the image's order, or one number: from each slice to the next
    flip_angle: float | None = None  # Look-Locker, degrees
    alpha: float | None = None  # labelling efficiency, background suppression included
    t1b: float | None = None
    t1_tissue: float | None = None
    partition: float | None = None  # --lambda, mL/g


@dataclass(frozen=True)
class Acquisition:
    """Timings of N control-label differences, in seconds from the start of labelling.

    `pld` is the post-labelling delay of p/CASL; for PASL it is the inversion time (BIDS: PASL's PostLabelingDelay is the TI).
    `label_duration` is the label duration of p/CASL or the bolus duration (TI1) of PASL.
    `slice_delay` has one entry per slice along `slice_axis`: how much later than the first slice it was read (zeros for 3-D).
    """

    labeling: Labeling
    pld: np.ndarray  # (N,)
    label_duration: np.ndarray  # (N,)
    slice_delay: np.ndarray  # (slices,)
    slice_axis: int
    alpha: Sourced  # labelling efficiency, background suppression included
    t1_blood: Sourced  # s
    t1_tissue: Sourced  # s
    partition: Sourced  # lambda, mL/g
    origins: dict[str, Sourced] = field(default_factory=dict)  # every value used, alpha … partition included
    flip_angle: Sourced | None = None  # degrees, of a Look-Locker readout

    @property
    def times(self) -> np.ndarray:
        """(N,) time from the start of labelling to the readout of the first slice, s."""
        return self.pld if self.labeling == "PASL" else self.pld + self.label_duration


def build(
    sidecar: Sidecar,
    types: Sequence[str],
    shape: Sequence[int],
    options: AcquisitionOptions,
    where: str,
    notes: list[str],
    *,
    model: str = "buxton",
    types_from: str = "",
) -> tuple[Acquisition, Differencing]:
    """The validated acquisition of a series and how its volumes are subtracted.

    `types` has one BIDS volume type per volume, from the file `types_from`; `shape` is (X, Y, Z); `where` is the file to name in errors
    about options; sentences that the user should read are appended to `notes`.
    Raises InputError naming file, field, what was found and what to do.
    """
    labeling, origin = _labeling(sidecar, options, where, model)
    flip = flip_angle(sidecar, options.flip_angle, where, model, notes)
    timings = read_timings(labeling, sidecar, types, shape, options, where, notes)
    differencing = pair(types, timings.pld, timings.label_duration, types_from or where)
    first = differencing.first
    alpha = _alpha(labeling, sidecar, options, where, notes)
    t1_blood, t1_tissue, partition, strength = _physiology(sidecar, options, where, notes)
    durations = np.unique(timings.label_duration[differencing.first].round(6))
    if flip is not None and len(durations) > 1:
        found = ", ".join(f"{d:g}" for d in durations)
        raise InputError(where, "a Look-Locker readout follows one labelling: one label duration", found=found, fix="check the timings")
    origins = {
        "labeling": origin,
        **_timing_origins(labeling, timings, first),
        "field_strength": strength,
        "alpha": alpha,
        "t1_blood": t1_blood,
        "t1_tissue": t1_tissue,
        "partition": partition,
    }
    acquisition = Acquisition(
        labeling=labeling,
        pld=timings.pld[first],
        label_duration=timings.label_duration[first],
        slice_delay=timings.slice_delay,
        slice_axis=timings.slice_axis,
        alpha=alpha,
        t1_blood=t1_blood,
        t1_tissue=t1_tissue,
        partition=partition,
        origins=origins if flip is None else origins | {"flip_angle": flip},
        flip_angle=flip,
    )
    return acquisition, differencing


def _labeling(sidecar: Sidecar, options: AcquisitionOptions, where: str, model: str) -> tuple[Labeling, Sourced]:
    if options.labeling is not None:
        wanted = options.labeling.strip().upper()
        if wanted not in LABELINGS:
            raise InputError(where, "--labeling is unknown", found=options.labeling, fix="give pcasl, casl or pasl")
        source = "option --labeling"
    else:
        found = sidecar.word("ArterialSpinLabelingType", LABELINGS)
        if found is None and model == "simplified":
            found, source = "PASL", "implied by --model simplified"
        elif found is None:
            raise InputError(sidecar.home, "ArterialSpinLabelingType is missing", fix="give --labeling pcasl, casl or pasl")
        else:
            source = sidecar.origin("ArterialSpinLabelingType")
        wanted = found
    if model == "simplified" and wanted != "PASL":
        raise InputError(
            where,
            "--model simplified is a model of PASL (inversion times and a bolus duration)",
            found=wanted,
            fix="use --model buxton, or give --labeling pasl --tis … --bolus-duration … if it is PASL",
        )
    for labeling in LABELINGS:
        if labeling == wanted:
            return labeling, Sourced(labeling, source)
    raise AssertionError(wanted)


def _timing_origins(labeling: Labeling, timings: Timings, first: np.ndarray) -> dict[str, Sourced]:
    pulsed = labeling == "PASL"
    return {
        "inversion_time" if pulsed else "post_labeling_delay": Sourced(listed(timings.pld[first]), timings.pld_origin, "s"),
        "bolus_duration" if pulsed else "label_duration": Sourced(listed(timings.label_duration[first]), timings.duration_origin, "s"),
        "slice_timing": Sourced(listed(timings.slice_delay), timings.slice_origin, "s"),
    }


def _alpha(labeling: Labeling, sidecar: Sidecar, options: AcquisitionOptions, where: str, notes: list[str]) -> Sourced:
    """Labelling efficiency; a background-suppression factor only on a default, for a measured value may already contain it."""
    given = _option(options.alpha, "--alpha", where, 0.0, 1.0)
    if given is not None:
        return Sourced(given, "option --alpha, used as given")
    measured = sidecar.number("LabelingEfficiency")
    if measured is not None:
        if not 0 < measured <= 1:
            file = sidecar.where("LabelingEfficiency")
            raise InputError(file, "LabelingEfficiency must be above 0 and at most 1", found=measured, fix="give a fraction, or --alpha")
        return Sourced(measured, sidecar.origin("LabelingEfficiency") + ", used as given, no background-suppression factor")
    default = constants.LABELING_EFFICIENCY[labeling]
    assert isinstance(default.value, float)
    if not sidecar.flag("BackgroundSuppression"):
        return default
    pulses = sidecar.number("BackgroundSuppressionNumberPulses")
    source = "BackgroundSuppressionNumberPulses"
    if pulses is None:
        times = sidecar.numbers("BackgroundSuppressionPulseTime")
        pulses, source = (None if times is None else float(times.size)), "BackgroundSuppressionPulseTime"
    if pulses is None:
        notes.append(
            "Background suppression with an unknown number of pulses: no factor is applied, so CBF may be too low by about 5 % per pulse;"
            " give --alpha if it is known."
        )
        return Sourced(default.value, default.origin + "; number of background-suppression pulses unknown, no factor", default.unit)
    if pulses < 0 or pulses > 20 or pulses != round(pulses):
        raise InputError(sidecar.where(source), f"{source} must be a small whole number", found=pulses, fix="correct it, or give --alpha")
    factor = constants.SUPPRESSION_PULSE
    assert isinstance(factor.value, float)
    value = round(default.value * factor.value ** int(pulses), 6)
    return Sourced(value, f"{default.origin} x {factor.value:g}^{pulses:g}: {factor.origin}, {sidecar.origin(source)}")


def _physiology(sidecar: Sidecar, options: AcquisitionOptions, where: str, notes: list[str]) -> tuple[Sourced, Sourced, Sourced, Sourced]:
    """T1 of blood, T1 of tissue, lambda and the field strength that the defaults were chosen by."""
    strength = sidecar.number("MagneticFieldStrength")
    blood = _option(options.t1b, "--t1b", where, 0.1, 10.0)
    tissue = _option(options.t1_tissue, "--t1-tissue", where, 0.1, 10.0)
    partition = _option(options.partition, "--lambda", where, 0.1, 2.0)
    if strength is not None and not 0.01 <= strength <= 30:
        file = sidecar.where("MagneticFieldStrength")
        raise InputError(file, "MagneticFieldStrength must be in tesla", found=strength, fix="give tesla, such as 3")
    if strength is None and (blood is None or tissue is None):
        notes.append("MagneticFieldStrength is not known: 3 T is assumed for T1; else give --t1b and --t1-tissue.")
    field_strength = Sourced(strength, sidecar.origin("MagneticFieldStrength"), "T")
    if strength is None:
        strength = constants.FIELD_STRENGTH
        field_strength = Sourced(strength, "assumed: not in the sidecar", "T")
    return (
        constants.t1_blood(strength) if blood is None else Sourced(blood, "option --t1b", "s"),
        constants.t1_tissue(strength) if tissue is None else Sourced(tissue, "option --t1-tissue", "s"),
        constants.PARTITION if partition is None else Sourced(partition, "option --lambda", "mL/g"),
        field_strength,
    )


def _option(value: object, name: str, where: str, low: float, high: float) -> float | None:
    """One number above `low` and at most `high`."""
    if value is None:
        return None
    values = numbers(value, where, name)
    if values.size != 1:
        raise InputError(where, f"{name} must be one number", found=f"{values.size} entries", fix=f"give {name} once")
    number = float(values.reshape(()))
    if not low < number <= high:
        hint = " (milliseconds?)" if name.startswith("--t1") and number > high else ""
        raise InputError(
            where, f"{name} must be above {low:g} and at most {high:g}{hint}", found=f"{number:g}", fix=f"give {name} in that range"
        )
    return number
