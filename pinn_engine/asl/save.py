"""Write a perfusion fit: maps with sidecars, status and its legend, curves for a viewer, the table of quality figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import __version__
from ..files.output import OutputFolder
from .maps import KINDS
from .methods import paragraph
from .quality import cautions, plausibility, quality
from .regions import region_table
from .result import PerfusionFit

DATASET = {
    "Name": "pinn_engine perfusion maps",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "pinn_engine", "Version": __version__}],
}

EXTRAS, TABLES = ("desc-disagreement_att", "desc-tissue_dseg", "desc-focus_probseg"), ("desc-focus_probseg", "desc-roi_cbf")


def save(fit: PerfusionFit, folder: OutputFolder, *, dataset: bool = True) -> list[Path]:
    """Everything but the report; names and units as in docs/outputs.md. Same fit, same bytes. `dataset`: the folder is a BIDS dataset.

    What an earlier fit of this name left in the folder, and this one does not write, is removed first.
    """
    scan, prefix = fit.scan, fit.scan.prefix
    written: list[Path] = []
    for name in not_always(prefix):
        folder.remove(name)

    def volume(name: str, data: np.ndarray, about: dict[str, object], *, labels: bool = False) -> None:
        written.append(folder.write_volume(f"{prefix}_{name}.nii.gz", data, scan.grid, labels=labels, description="pinn_engine " + name))
        written.append(folder.write_json(f"{prefix}_{name}.json", about))

    common = provenance(fit)
    for one in fit.maps.values():
        volume(one.kind.suffix, one.value, {"Description": one.kind.title, "Units": one.kind.unit} | common)
        about = {"Description": f"{one.kind.title}: standard deviation of the estimate", "Units": one.kind.unit}
        volume(one.kind.std_suffix, one.std, about | common)
    volume("desc-brain_mask", scan.mask, {"Description": "Voxels that were fitted", "Sources": [scan.source]}, labels=True)
    volume(
        "desc-status_dseg",
        fit.status,
        {"Description": "How the fit of each voxel ended, see the .tsv", "Sources": [scan.source]},
        labels=True,
    )
    legend = [{"index": code, "name": meaning} for code, meaning in sorted(fit.status_meaning.items())]
    written.append(folder.write_tsv(f"{prefix}_desc-status_dseg.tsv", legend))
    misfit = "Root mean square of the weighted data residual per degree of freedom: 1 = as noise and model error predict"
    volume("desc-misfit_cbf", fit.misfit, {"Description": misfit, "Units": "1", "Sources": [scan.source]})
    for extra in fit.extras.values():
        volume(extra.suffix, extra.data, {"Description": extra.about, "Units": extra.unit, "Sources": [scan.source]}, labels=extra.labels)
    for suffix, (columns, rows) in fit.tables.items():
        written.append(folder.write_tsv(f"{prefix}_{suffix}.tsv", rows, columns))
    delays: dict[str, object] = {
        "Description": "Control - label differences, averaged over repeats; one volume a delay",
        "Units": "arbitrary",
        "ArterialSpinLabelingType": scan.acquisition.labeling,
        **timings(fit),
        "SliceDelay": scan.acquisition.slice_delay,
        "SliceAxis": "ijk"[scan.acquisition.slice_axis],
        "Sources": [scan.source],
    }
    volume("desc-data_asl", fit.data, delays)
    volume("desc-fit_asl", fit.fitted, delays | {"Description": "The fitted curve at the delays of desc-data_asl"})
    volume("desc-fitstd_asl", fit.fitted_std, delays | {"Description": "Standard deviation of the fitted curve"})
    written.append(folder.write_tsv(f"{prefix}_desc-qualitycontrol_cbf.tsv", [quality(fit)]))
    flags = ("figure", "value", "low", "high", "plausible", "sentence")
    written.append(folder.write_tsv(f"{prefix}_desc-plausibility_cbf.tsv", plausibility(fit), flags))
    if scan.regions is not None:
        columns, regions = region_table(fit)
        written.append(folder.write_tsv(f"{prefix}_desc-roi_cbf.tsv", regions, columns))
    written.append(folder.write_text(f"{prefix}_desc-methods_cbf.txt", paragraph(fit) + "\n"))
    if dataset and folder.write_description(DATASET):
        written.append(folder.locate("dataset_description.json"))
    return written


def not_always(prefix: str) -> list[str]:
    """All files that one fit writes and another does not: maps of unknowns, what the joint fit adds, the table of regions."""
    volumes = {suffix for kind in KINDS for suffix in (kind.suffix, kind.std_suffix)} | set(EXTRAS)
    names = [f"{volume}{end}" for volume in sorted(volumes) for end in (".nii.gz", ".json")]
    return [f"{prefix}_{name}" for name in (*names, *(f"{table}.tsv" for table in TABLES))]


def provenance(fit: PerfusionFit) -> dict[str, object]:
    """What every map's sidecar says: sources, constants with their origin, timings, method, convergence."""
    scan = fit.scan
    origins = scan.acquisition.origins
    constants = {name: {"Value": one.value, "Units": one.unit, "Origin": one.origin} for name, one in origins.items()}
    return {
        "Sources": [scan.source],
        "Constants": constants,
        **timings(fit),
        "Fit": fit.settings,
        "Convergence": fit.convergence,
        "Notes": list(scan.notes),
        "Cautions": cautions(fit),
    }


def timings(fit: PerfusionFit) -> dict[str, object]:
    """The K delays in BIDS' terms: for PASL PostLabelingDelay is the inversion time and the bolus ends at BolusCutOffDelayTime."""
    duration = "BolusCutOffDelayTime" if fit.scan.acquisition.labeling == "PASL" else "LabelingDuration"
    return {"PostLabelingDelay": fit.pld, duration: fit.label_duration, "Repeats": fit.repeats}
