"""What a report says in sentences: names of constants, the method with its sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..asl.methods import as_brain
from ..asl.result import PerfusionFit
from .html import Markup

NAMES = {
    "alpha": "Labelling efficiency, α",
    "t1_blood": "T1 of arterial blood, T1b",
    "t1_tissue": "T1 of tissue",
    "partition": "Blood–brain partition coefficient, λ",
    "labeling": "Labelling",
    "field_strength": "Field strength",
    "post_labeling_delay": "Post-labelling delays",
    "inversion_time": "Inversion times",
    "label_duration": "Label duration",
    "bolus_duration": "Bolus duration",
    "slice_timing": "Slice timing",
    "m0": "M0",
    "m0_scale": "Factor on M0",
}


def constant_name(key: str) -> str:
    """
    >>> constant_name("t1_blood"), constant_name("m0_repetition_time")
    ('T1 of arterial blood, T1b', 'M0 repetition time')
    """
    plain = key.replace("_", " ")
    return NAMES.get(key, plain[:1].upper() + plain[1:])


def labeling(fit: PerfusionFit) -> str:
    return {"PCASL": "Pseudo-continuous labelling", "CASL": "Continuous labelling", "PASL": "Pulsed labelling"}[
        fit.scan.acquisition.labeling
    ]


def method(fit: PerfusionFit) -> list[Markup]:
    """Paragraphs on what was done, saying only what the settings say."""
    s = fit.settings
    if s.get("model") == "simplified":
        source = _doi("10.3389/fnetp.2025.1488349")
        model = f"the simplified model of pulsed labelling, in which label decays with the T1 of blood alone ({source})"
    else:
        model = f"the general kinetic model of label that arrives in tissue, decays and is carried away ({_doi('10.1002/mrm.1910400308')})"
    where = "For all voxels jointly" if s.get("spatial") else "In every voxel"
    if s.get("method") == "nlls" and s.get("joint") != "subject":
        how = f"{where} the closed form of {model} was fitted to the differences by nonlinear least squares."
    elif s.get("joint") == "subject":
        how = _subject(s, model)
    elif s.get("method") == "pinn":
        how = (
            f"{where} a physics-informed neural network "
            f"({_doi('10.1016/j.jcp.2018.10.045')}) was fitted to the differences. "
            "The network is the voxel’s signal over time. It is held to the data by their noise, and to the differential equation of "
            f"{model} by an assumed model error. Perfusion and the other unknown parameters are found together with the network."
        )
    else:
        how = f"In every voxel {model} was fitted to the differences."
    scale = f"Differences were scaled by the M0 of blood and the labelling efficiency ({_doi('10.1002/mrm.25197')})."
    if fit.maps["cbf"].kind.unit == "arbitrary":
        scale = "Perfusion has no absolute scale, as no M0 was usable."
    spread = (
        "Standard deviations say how far the noise of the data lets a parameter move under the model. They do not contain errors of the "
        "constants above or motion" + ("." if s.get("spatial") else ", or tissue mixed within a voxel.")
    )
    return [Markup(how), Markup(f"{scale} {spread}")]


def _subject(s: Mapping[str, object], model: str) -> str:
    """All voxels of one subject together."""
    shared = "one T1 of arterial blood for the subject" if "t1b" in s else "the T1 of arterial blood as given"
    near = (
        "Neighbouring voxels were taken as alike as far as the data support it; regions that differ were found by evidence "
        f"({_doi('10.1111/rssb.12388')})."
        if s.get("spatial")
        else "Voxels were taken as independent draws around the region’s mean."
    )
    together = f"The differences of all voxels were fitted together with {model}, with {shared}."
    if as_brain(s):
        return (
            f"{together} Perfusion and arrival time of each tissue are smooth in space as far as the data support it "
            f"({_doi('10.1002/mrm.22641')}), with focal departures as a sparse mixture."
        )
    return (
        f"{together} {near} Means and standard deviations of "
        f"perfusion and arrival time were found by expectation propagation ({_doi('10.48550/arXiv.1301.2294')}) and averaged over what the "
        "data leave open."
    )


def _doi(number: str) -> str:
    return f'<a href="https://doi.org/{number}">doi:{number}</a>'


def as_text(value: object) -> str:
    """A constant or a setting as a person writes it.

    >>> as_text(1.65), as_text([0.25, 0.5]), as_text(True), as_text(None)
    ('1.65', '0.25, 0.5', 'yes', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}".replace("-", "−")
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(as_text(v) for v in value)
    return str(value)


def shortened(text: str) -> str:
    """A list of many values by its first three and its last; the sidecar has all.

    >>> shortened("0, 0.0452, 0.0904, 0.1356, 0.1808, 0.226, 0.2712, 0.3164, 0.3616, 0.4068 (10 values)")
    '0, 0.0452, 0.0904, …, 0.4068 (10 values)'
    """
    parts = text.split(", ")
    return text if len(parts) < 9 else ", ".join([*parts[:3], "…", parts[-1]])
