"""The methods paragraph of a paper: what was acquired, how it was fitted, with which constants, ready to paste."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import __version__
from .quality import COV_DOI, QEI_DOI, tissue_of
from .result import PerfusionFit

LABELLING = {"PCASL": "pseudo-continuous", "CASL": "continuous", "PASL": "pulsed"}
SYMBOLS = {
    "alpha": "labelling efficiency",
    "t1_blood": "T1 of arterial blood",
    "t1_tissue": "T1 of tissue",
    "partition": "blood-brain partition coefficient",
}


def paragraph(fit: PerfusionFit) -> str:
    """Plain text; every sentence follows from what the fit recorded. Sources as DOIs."""
    sentences = [_acquired(fit), _model(fit), *_spatial(fit), _scale(fit), _constants(fit), *_options(fit), _spread(fit), *_reported(fit)]
    return " ".join(sentence for sentence in sentences if sentence)


def _acquired(fit: PerfusionFit) -> str:
    a, origins = fit.scan.acquisition, fit.scan.acquisition.origins
    pulsed = a.labeling == "PASL"
    times, duration = ("inversion times", "bolus duration") if pulsed else ("post-labelling delays", "label duration")
    times = times if len(fit.pld) > 1 else times[:-1]
    strength = origins.get("field_strength")
    field = f" at {strength.value:g} T" if strength is not None and isinstance(strength.value, int | float) else ""
    slices = " Slice timing was taken into account." if a.slice_delay.max(initial=0) > 0 else ""
    n = len(a.pld)
    return (
        f"Perfusion was measured by {LABELLING[a.labeling]} arterial spin labelling{field} ({times} {_list(fit.pld)} s, {duration} "
        f"{_list(fit.label_duration)} s, {n} difference image{'s' * (n > 1)}) and fitted with pinn_engine {__version__}.{slices}"
    )


def _model(fit: PerfusionFit) -> str:
    s = fit.settings
    if len(fit.pld) < 2:
        return "With one delay, cerebral blood flow (CBF) follows the consensus formula (doi:10.1002/mrm.25197)."
    model = (
        "the simplified model of pulsed labelling (doi:10.3389/fnetp.2025.1488349)"
        if s.get("model") == "simplified"
        else "the general kinetic model (doi:10.1002/mrm.1910400308)"
    )
    unknown = _words(fit)
    if s.get("joint") == "subject":
        shared = ", with one T1 of arterial blood for the subject" if "t1b" in fit.maps else ""
        together = f"{unknown} were estimated for all voxels together with {model}{shared}"
        if as_brain(s):
            return f"{together}{', found by evidence from parts of the mask' if shared else ''}."
        by_evidence = ["smoothness, foci (doi:10.1111/rssb.12388)"] * bool(s.get("spatial")) + ["the T1 of blood"] * bool(shared)
        evidence = f", {' and '.join(by_evidence)} by evidence" if by_evidence else ""
        return f"{together}: means and standard deviations by expectation propagation (doi:10.48550/arXiv.1301.2294){evidence}."
    if s.get("method") == "nlls":
        return f"{unknown} were estimated in every voxel by nonlinear least squares with the closed form of {model}."
    if s.get("method") != "pinn":
        return f"{unknown} were estimated in every voxel with {model}."
    network = "a network trained for each voxel" if s.get("network") == "mlp" else "shared features whose output layer is eliminated"
    error = s.get("model_error")
    level = f" of {100 * error:.3g} % of the typical signal" if isinstance(error, float) else ""
    origin = {"evidence": " (chosen by evidence)", "option": " (given)"}.get(str(s.get("model_error_origin")), "") if level else ""
    prior = ""
    if "att_prior_mean" in s and not s.get("spatial"):
        prior = f" Arrival time had the prior N({_list([s['att_prior_mean']])}, {_list([s['att_prior_sd']])} s)."
    where = "for all voxels jointly" if s.get("spatial") else "in every voxel"
    return (
        f"{unknown} were estimated {where} by a physics-informed neural network (doi:10.1016/j.jcp.2018.10.045; {network}) "
        f"held to the data by their noise and to the differential equation of {model} up to a model error{level}{origin}.{prior}"
    )


def as_brain(settings: Mapping[str, Any]) -> bool:
    """Whether the maps are those of the joint spatial fit: a preset takes it for large masks only."""
    return bool(settings.get("spatial")) and "tissue_classes" in settings


def _words(fit: PerfusionFit) -> str:
    known = {"cbf": "Cerebral blood flow (CBF)", "att": "arterial transit time (ATT)", "t1b": "the T1 of arterial blood"}
    names = [known.get(name, one.kind.title) for name, one in fit.maps.items()]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _spatial(fit: PerfusionFit) -> list[str]:
    if not as_brain(fit.settings):
        return []
    origin = fit.settings.get("tissue_classes")
    each = f"each tissue (from {origin})" if origin and origin != "one class" else "perfusion"
    return [
        f"All voxels were fitted jointly: {each} is smooth in space (doi:10.1002/mrm.22641) under a prior whose strength was learnt from "
        "the data by evidence, with focal departures as a sparse mixture."
    ]


def _scale(fit: PerfusionFit) -> str:
    origin = fit.scan.acquisition.origins.get("m0")
    if fit.maps["cbf"].kind.unit == "arbitrary":
        return "Without M0, perfusion is relative."
    if origin is None:
        return "CBF was calibrated (doi:10.1002/mrm.25197) by M0."
    factor = fit.scan.acquisition.origins.get("m0_scale")
    scaled = f", multiplied by {factor.value:g}" if factor is not None and isinstance(factor.value, int | float) else ""
    return f"CBF was calibrated (doi:10.1002/mrm.25197) by M0: {origin.origin}{scaled}."


def _constants(fit: PerfusionFit) -> str:
    origins: Mapping = fit.scan.acquisition.origins
    parts = []
    for key, name in SYMBOLS.items():
        one = origins.get(key)
        if one is None or (key == "t1_blood" and "t1b" in fit.maps):  # what is fitted is no constant
            continue
        if key == "t1_tissue" and fit.settings.get("tissue_classes") not in (None, "one class"):
            parts.append("T1 of tissue by tissue class")
            continue
        value = f"{one.value:g}" if isinstance(one.value, int | float) else str(one.value)
        parts.append(f"{name} {value}{' ' + one.unit if one.unit and value[:1].isdigit() else ''} ({one.origin})")
    mask = origins.get("mask")
    brain = f" The brain mask was {mask.origin}." if mask is not None and mask.origin.startswith("made") else ""
    brain = " The brain mask was given." if mask is not None and not brain else brain
    return f"Constants: {'; '.join(parts)}.{brain}"


def _options(fit: PerfusionFit) -> list[str]:
    """What the user gave in place of, or over, what the scan says of itself."""
    given = [name for one in fit.scan.acquisition.origins.values() for name in re.findall(r"option (--[\w-]+)", one.origin)]
    names = ", ".join(dict.fromkeys(given))
    return [f"Given by the user and not by the scan's own description: {names}."] if names else []


def _spread(fit: PerfusionFit) -> str:
    origin = str(fit.settings.get("noise_origin") or "")
    if origin.startswith("learnt"):
        return f"Standard deviations follow from the noise, which was {origin}, and the model."
    if origin:
        return f"Standard deviations follow from the noise, which was measured from {origin}, and the model."
    return "Standard deviations follow from the noise of the data and the model."


def _reported(fit: PerfusionFit) -> list[str]:
    out = []
    if fit.scan.regions is not None:
        out.append(f"Regions are those of {fit.scan.regions.source}; standard errors are propagated from the voxels' standard deviations.")
    if (tissue := tissue_of(fit)) is not None:
        out.append(
            f"Grey and white matter were told apart by: {tissue.origin}. Quality was judged by the spatial coefficient of variation "
            f"(doi:{COV_DOI}) and the quality evaluation index (doi:{QEI_DOI})."
        )
    return out


def _list(values) -> str:
    """Distinct numbers in their order."""
    return ", ".join(dict.fromkeys(f"{float(value):g}" for value in values))
