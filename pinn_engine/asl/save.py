"""Write a perfusion fit: maps with sidecars, status and its legend, curves for a viewer, the table of quality figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import __version__
from ..files.output import OutputFolder
from .result import ParameterMap, PerfusionFit

DATASET = {
    "Name": "pinn_engine perfusion maps",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "pinn_engine", "Version": __version__}],
}


def save(fit: PerfusionFit, folder: OutputFolder) -> list[Path]:
    """Everything but the report; names and units as in docs/outputs.md. Same fit, same bytes."""
    scan, prefix = fit.scan, fit.scan.prefix
    written = []

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
    written.append(folder.write_json("dataset_description.json", DATASET))
    return written


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
    }


def timings(fit: PerfusionFit) -> dict[str, object]:
    """The K delays in BIDS' terms: for PASL PostLabelingDelay is the inversion time and the bolus ends at BolusCutOffDelayTime."""
    duration = "BolusCutOffDelayTime" if fit.scan.acquisition.labeling == "PASL" else "LabelingDuration"
    return {"PostLabelingDelay": fit.pld, duration: fit.label_duration, "Repeats": fit.repeats}


def quality(fit: PerfusionFit) -> dict[str, object]:
    """One row of figures to compare scans by; shares are of the voxels in the mask."""
    mask = fit.scan.mask
    inside = fit.status[mask]
    fitted = mask & (fit.maps["cbf"].std > 0)
    row: dict[str, object] = {"prefix": fit.scan.prefix, "voxels": int(mask.sum()), "share_converged": float(np.mean(inside == 1))}
    row |= {f"share_status_{code}": float(np.mean(inside == code)) for code in sorted(fit.status_meaning) if code > 1}
    for name, one in fit.maps.items():
        row |= _summary(name, one, fitted)
    cbf = fit.maps["cbf"].value[fitted]
    row["cbf_share_negative"] = float(np.mean(cbf < 0)) if cbf.size else None
    row["misfit_median"] = float(np.median(fit.misfit[fitted])) if cbf.size else None
    row["pairs_doubted"] = fit.settings.get("pairs_doubted")
    row["noise_sd_median"] = fit.settings.get("noise_sd_median")
    row["model_error"] = fit.settings.get("model_error")
    return row


def _summary(name: str, one: ParameterMap, fitted: np.ndarray) -> dict[str, object]:
    if not fitted.any():
        return {f"{name}_median": None}
    low, middle, high = np.percentile(one.value[fitted], [25, 50, 75])
    return {
        f"{name}_median": float(middle),
        f"{name}_q25": float(low),
        f"{name}_q75": float(high),
        f"{name}_std_median": float(np.median(one.std[fitted])),
    }
