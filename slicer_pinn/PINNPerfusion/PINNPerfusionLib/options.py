"""The choices of the panel, what they mean on the engine's command line, and what is still missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from PINNCommonLib.explain import Problem

FROM_FILES = "as the files say"
LABELINGS = {FROM_FILES: "", "pCASL": "pcasl", "CASL": "casl", "PASL": "pasl"}
ORDERS = {
    FROM_FILES: "",
    "control, label, control, …": "control-label",
    "label, control, label, …": "label-control",
    "differences": "deltam",
}
UNKNOWNS = {
    "CBF and arrival time": "cbf,att",
    "CBF alone": "cbf",
    "CBF, arrival time, arterial volume": "cbf,att,abv",
    "CBF, arrival time, T1 of blood": "cbf,att,t1b",
}
METHODS = {"PINN": "pinn", "closed form, to compare": "nlls"}
DEVICES = ("auto", "cpu", "cuda", "mps")
INFANT = "Infant (PASL, several inversion times)"
# Alsop 2015, doi:10.1002/mrm.25197: label duration 1.8 s and delay 1.8 s for healthy adults below 70 years; PASL with TI1 0.8 s, TI 1.8 s.
PRESETS: dict[str, dict[str, object]] = {
    FROM_FILES: {"labeling": FROM_FILES, "delays": "", "duration": ""},
    "White paper pCASL (1.8 s, 1.8 s)": {"labeling": "pCASL", "delays": "1.8", "duration": "1.8", "unknown": "CBF alone"},
    "PASL QUIPSS II (TI1 0.8 s, TI 1.8 s)": {
        "labeling": "PASL",
        "delays": "1.8",
        "duration": "0.8",
        "unknown": "CBF alone",
    },
    INFANT: {"unknown": "CBF, arrival time, T1 of blood"},
}
WORDS = {  # what the engine calls an option, what the panel calls it
    "--plds": "Delays",
    "--tis": "Delays (inversion times)",
    "--label-duration": "Label duration",
    "--bolus-duration": "Label duration (bolus, TI1)",
    "--labeling": "Labelling",
    "--volumes": "Order of volumes",
    "--slice-timing": "Slice timing",
    "--device": "Device",
    "--mask": "Mask",
    "--m0": "M0",
    "--unknown": "Estimate",
    "--alpha": "Labelling efficiency",
}


@dataclass(frozen=True)
class Settings:
    """The panel's fields. Times in seconds, as typed: a number or a list. Empty = as the files say."""

    preset: str = FROM_FILES
    labeling: str = FROM_FILES
    volumes: str = FROM_FILES
    delays: str = ""
    duration: str = ""
    sliceTiming: str = ""
    efficiency: str = ""
    meanControl: bool = False
    unknown: str = "CBF and arrival time"
    method: str = "PINN"
    spatial: bool = True
    device: str = "auto"
    outputFolder: str = ""

    @classmethod
    def of(cls, parameters: object) -> Settings:
        """From anything that has the fields as attributes, such as the parameter node."""
        return cls(**{one.name: getattr(parameters, one.name) for one in fields(cls)})


def arguments(settings: Settings, known: Mapping[str, object]) -> list[str]:
    """Options of `pinn-engine asl` besides files and device. `known`: the fields of the sidecar."""
    for name, table in (("labeling", LABELINGS), ("volumes", ORDERS), ("unknown", UNKNOWNS), ("method", METHODS), ("preset", PRESETS)):
        if getattr(settings, name) not in table:
            raise Problem(f"{name}: {getattr(settings, name)!r} is not one of {', '.join(table)}.")
    made: list[str] = []
    labeling = LABELINGS[settings.labeling]
    if labeling:
        made += ["--labeling", labeling]
    pulsed = is_pulsed(settings, known)
    if settings.delays.strip():
        made += ["--tis" if pulsed else "--plds", numbers(settings.delays, "Delays")]
    if settings.duration.strip():
        made += ["--bolus-duration" if pulsed else "--label-duration", numbers(settings.duration, "Label duration")]
    if ORDERS[settings.volumes]:
        made += ["--volumes", ORDERS[settings.volumes]]
    if settings.sliceTiming.strip():
        made += ["--slice-timing", numbers(settings.sliceTiming, "Slice timing")]
    if settings.efficiency.strip():
        made += ["--alpha", numbers(settings.efficiency, "Labelling efficiency")]
    if settings.preset == INFANT:
        made += ["--preset", "infant"]
    made += ["--unknown", UNKNOWNS[settings.unknown], "--method", METHODS[settings.method]]
    return made if settings.spatial else [*made, "--no-spatial"]  # the engine does it where it can: not for one delay or the closed form


def is_pulsed(settings: Settings, known: Mapping[str, object]) -> bool:
    return (LABELINGS[settings.labeling] or str(known.get("ArterialSpinLabelingType", "")).lower()) == "pasl" or settings.preset == INFANT


def missing(settings: Settings, known: Mapping[str, object], context: str) -> list[str]:
    """The fields without which the engine cannot begin, as the panel calls them; timings are never guessed."""
    pulsed = is_pulsed(settings, known)
    found = []
    if not LABELINGS[settings.labeling] and "ArterialSpinLabelingType" not in known and settings.preset != INFANT:
        found.append("Labelling")
    if not settings.delays.strip() and "PostLabelingDelay" not in known:
        found.append("Delays")
    if not settings.duration.strip() and ("BolusCutOffDelayTime" if pulsed else "LabelingDuration") not in known:
        found.append("Label duration")
    if not ORDERS[settings.volumes] and not context.strip():
        found.append("Order of volumes")
    return found


def numbers(text: str, name: str) -> str:
    """A pasted list in any usual form as the engine takes it: comma-separated numbers."""
    words = [word for word in re.split(r"[\s,;\[\]()]+", text.strip()) if word]
    try:
        return ",".join(repr(float(word)) for word in words)
    except ValueError:
        raise Problem(f"{name}: {text.strip()!r} is not a list of numbers such as 0.25, 0.5, 1.0.") from None


def in_words_of_the_panel(sentence: str, folder: str) -> str:
    """The engine's line with the panel's names, and without the temporary folder."""
    for option, word in WORDS.items():
        sentence = re.sub(rf"{option}(?![\w-])", f"“{word}”", sentence)
    return sentence.replace(folder + "/", "").replace(folder + "\\", "")
