"""Write a phantom as a BIDS dataset, with its truth under derivatives/truth in files named as the fit names its maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from ...files import nifti
from ...files.grid import Grid
from ...files.output import OutputFolder
from .brain import TERRITORIES
from .make import Phantom


def write_bids(phantom: Phantom, folder: str | PathLike[str], subject: str = "01") -> dict[str, Path]:
    """Write the dataset; returns where its parts are: "asl", "m0", and of the truth "mask", "t1", "cbf", "att", "tissue", "lesion", …"""
    root = OutputFolder(folder).path
    raw = root / f"sub-{subject}" / "perf" / f"sub-{subject}"
    truth = root / "derivatives" / "truth" / f"sub-{subject}" / "perf" / f"sub-{subject}"
    about = {"Name": "pinn_engine digital perfusion phantom", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    text(root / "dataset_description.json", about)
    text(root / "README", "A digital phantom made by pinn_engine: no person was scanned. What is true is under derivatives/truth.\n")
    text(
        root / "derivatives" / "truth" / "dataset_description.json",
        {
            "Name": "What is true in the phantom",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "pinn_engine.asl.phantom"}],
        },
    )
    n = phantom.control.shape[3]
    series = np.stack([phantom.control, phantom.label], axis=-1).reshape(*phantom.mask.shape, 2 * n)
    paths = {"asl": image(f"{raw}_asl.nii.gz", series, phantom.grid), "m0": image(f"{raw}_m0scan.nii.gz", phantom.m0_image, phantom.grid)}
    text(f"{raw}_asl.json", sidecar(phantom))
    text(f"{raw}_aslcontext.tsv", "volume_type\n" + "control\nlabel\n" * n)
    text(
        f"{raw}_m0scan.json",
        {"EchoTime": 0.012, "RepetitionTimePreparation": 10.0, "IntendedFor": f"bids::sub-{subject}/perf/sub-{subject}_asl.nii.gz"},
    )
    return paths | write_truth(phantom, str(truth))


def sidecar(phantom: Phantom) -> dict[str, object]:
    """The ASL sidecar's fields: https://bids-specification.readthedocs.io (arterial spin labeling perfusion data)."""
    a = phantom.acquisition
    two_d = bool(np.any(a.slice_delay > 0))
    fields: dict[str, object] = {
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "2D" if two_d else "3D",
        "ArterialSpinLabelingType": a.labeling,
        "PostLabelingDelay": [float(x) for x in np.repeat(a.pld, 2)],
        "LabelingEfficiency": a.alpha.value,
        "BackgroundSuppression": phantom.background < 1,
        "M0Type": "Separate",
        "TotalAcquiredPairs": len(a.pld),
        "EchoTime": 0.012,
        "RepetitionTimePreparation": round(float(a.times.max() + a.slice_delay.max()) + 1.0, 3),
        "VascularCrushing": False,
    }
    if two_d:
        fields["SliceTiming"] = [round(float(x), 6) for x in a.slice_delay]
    if a.labeling == "PASL":
        bolus = np.unique(a.label_duration)
        if len(bolus) != 1:
            raise ValueError("BIDS has one BolusCutOffDelayTime a series: give one label_duration for PASL")
        fields |= {"BolusCutOffFlag": True, "BolusCutOffTechnique": "QUIPSSII", "BolusCutOffDelayTime": float(bolus[0])}
    else:
        one = np.ptp(a.label_duration) == 0
        fields["LabelingDuration"] = float(a.label_duration[0]) if one else [float(x) for x in np.repeat(a.label_duration, 2)]
    return fields


def write_truth(phantom: Phantom, prefix: str) -> dict[str, Path]:
    """Truth maps, each with a sidecar that names its unit or labels."""
    tissue = {"1": "grey matter", "2": "white matter", "3": "cerebrospinal fluid"}
    lesions = {
        str(x.label): f"radius {x.radius:g} mm, CBF {x.contrast:+.0%}, delay {x.delay:g} s, centre {[round(c, 1) for c in x.centre]} mm RAS"
        for x in phantom.lesions
    }
    maps: dict[str, tuple[np.ndarray, str, dict[str, object]]] = {
        "mask": (phantom.mask.astype(np.uint8), "desc-brain_mask", {}),
        "cbf": (phantom.cbf, "cbf", {"Units": "mL/100 g/min"}),
        "att": (phantom.att, "att", {"Units": "s"}),
        "t1": (phantom.t1_tissue, "T1map", {"Units": "s"}),
        "m0": (phantom.m0, "desc-noisefree_m0scan", {"Units": "arbitrary"}),
        "tissue": (phantom.tissue, "dseg", {"Labels": tissue}),
        "territory": (phantom.territory, "desc-territory_dseg", {"Labels": {str(k): v for k, v in TERRITORIES.items()}}),
        "lesion": (phantom.lesion, "desc-lesion_dseg", {"Labels": lesions}),
    }
    if phantom.abv.any():
        maps["abv"] = (phantom.abv, "abv", {"Units": "fraction"})
        maps["abat"] = (phantom.abat, "abat", {"Units": "s"})
    if phantom.settings.get("kind") == "infant":
        t1b = np.where(phantom.mask, phantom.acquisition.t1_blood.number, 0).astype(np.float32)
        maps["t1b"] = (t1b, "t1b", {"Units": "s"})
    paths = {}
    for key, (array, suffix, fields) in maps.items():
        path = image(f"{prefix}_{suffix}.nii.gz", array, phantom.grid)
        text(f"{prefix}_{suffix}.json", {"Description": "Truth of a simulated scan", **fields})
        if "Labels" in fields:
            names = dict(fields["Labels"])  # type: ignore[call-overload]
            text(f"{prefix}_{suffix}.tsv", "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in names.items()))
        paths["true_m0" if key == "m0" else key] = path
    return paths


def image(path: str, array: np.ndarray, grid: Grid) -> Path:
    """A gzipped NIfTI whose bytes depend on the content alone; whole numbers are written as labels."""
    return write(Path(path), nifti.encode(array, grid, labels=array.dtype == np.uint8))


def text(path: str | Path, content: Mapping[str, object] | str) -> Path:
    """JSON of a mapping, or a text as it is."""
    made = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return write(Path(path), made.encode())


def write(path: Path, content: bytes) -> Path:
    """Whole or not at all, as everything we write."""
    return OutputFolder(path.parent).write_bytes(path.name, content)
