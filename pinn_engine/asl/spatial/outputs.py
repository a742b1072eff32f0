"""What the joint fit adds to the maps: tissue classes, and where the pooled start and the fit disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..curves import Curves
from ..result import ExtraVolume, PerfusionFit
from .fit import DISAGREES, SpatialFit

TOLD = 1.5  # noise excess above which a note says so
SURE, SMALLEST = 0.5, 137.0  # probability above which a region is listed; mm3, the smallest ball that is looked for
COLUMNS = (
    "x_mm",
    "y_mm",
    "z_mm",
    "voxels",
    "volume_mm3",
    "cbf_change",
    "cbf_change_std",
    "att_change_s",
    "att_change_std_s",
    "probability",
)


def add_spatial(fit: PerfusionFit, c: Curves, joint: SpatialFit) -> PerfusionFit:
    """`fit` with the joint fit's own volumes, status, settings and notes."""
    shape = fit.scan.mask.shape

    def volume(values: np.ndarray) -> np.ndarray:
        out = np.zeros(shape, np.float32)
        out[c.voxels] = np.nan_to_num(values)
        return out

    status = fit.status.copy()
    status[c.voxels] = joint.status
    about = (
        "Arrival time of the pooled start less that of the fit, in standard deviations; beyond 2 a late or early region may be flattened"
    )
    extras, tables = dict(fit.extras), dict(fit.tables)
    extras["disagreement"] = ExtraVolume("desc-disagreement_att", volume(np.clip(joint.disagreement, -20, 20)), about, "1")
    if joint.tissue.known:
        labels = volume(joint.tissue.share.argmax(axis=1) + 1).astype(np.uint8)
        extras["tissue"] = ExtraVolume("desc-tissue_dseg", labels, f"1 GM, 2 WM, 3 CSF, from {joint.tissue.origin}", "1", labels=True)
        about = "Probability that the voxel lies in a focal lesion, few foci expected beforehand; the list is in the .tsv"
        probability = volume(joint.foci.probability)
        extras["focus"] = ExtraVolume("desc-focus_probseg", probability, about, "1")
        tables["desc-focus_probseg"] = (COLUMNS, list_foci(fit, c, joint, probability))
    settings = fit.settings | {
        "spatial": True,
        "tissue_classes": joint.tissue.origin,
        "prior_strength_cbf_att": [round(float(v), 4) for v in by_quantity(joint.smooth.strength).mean(dim=1)],
        "effective_parameters_cbf_att": [round(float(v), 1) for v in by_quantity(joint.smooth.effective).sum(dim=1)],
        "noise_excess": round(joint.noise_excess, 2),
        "voxels_apart": round(joint.apart, 4),
        "share_start_disagrees": float(np.mean(np.abs(joint.disagreement) > DISAGREES)),
    }
    return replace(fit, status=status, settings=settings, extras=extras, tables=tables, scan=replace(fit.scan, notes=_notes(fit, joint)))


def by_quantity(of_fields: Tensor) -> Tensor:
    """(2, T) flow and arrival of every tissue from (2T,)."""
    return of_fields.unflatten(0, (2, -1))


def list_foci(fit: PerfusionFit, c: Curves, joint: SpatialFit, probability: np.ndarray) -> list[dict[str, object]]:
    """One row a connected region of probability above one half: where (mm), how large, how CBF and ATT differ from around, how sure."""
    labels, count = ndimage.label(probability > SURE)
    at = labels[c.voxels]
    affine = fit.scan.grid.affine
    volume = float(abs(np.linalg.det(affine[:3, :3])))
    rows: list[dict[str, object]] = []
    for number in range(1, count + 1):
        inside = at == number
        if inside.sum() * volume < SMALLEST:
            continue
        weight = joint.foci.probability[inside].astype(float)
        centre = np.average(np.stack(c.voxels, axis=1)[inside], axis=0, weights=weight)
        place = affine[:3, :3] @ centre + affine[:3, 3]
        unit = np.stack([joint.flow_unit[inside], np.ones(inside.sum())])
        change, sd = (np.average(v[:, inside] * unit, axis=1, weights=weight) for v in (joint.foci.strict, joint.foci.strict_sd))
        rows.append(
            {"x_mm": place[0], "y_mm": place[1], "z_mm": place[2], "voxels": int(inside.sum()), "volume_mm3": volume * int(inside.sum())}
            | {"cbf_change": change[0], "cbf_change_std": sd[0], "att_change_s": change[1], "att_change_std_s": sd[1]}
            | {"probability": float(weight.max())}
        )
    rows.sort(key=lambda row: -float(str(row["probability"])))
    return [{k: v if isinstance(v, int) else round(float(str(v)), 4) for k, v in row.items()} for row in rows]


def _notes(fit: PerfusionFit, joint: SpatialFit) -> tuple[str, ...]:
    notes = list(fit.scan.notes)
    if joint.tissue.origin.startswith("M0"):
        notes.append(
            "Shares of tissue, and with them T1, come from M0 and the difference signal (desc-tissue_dseg shows the largest): check them. "
            "Tissue maps of an anatomical image (--tissue) are more reliable."
        )
    if joint.noise_excess > TOLD:
        notes.append(
            f"The noise of neighbouring voxels is correlated (a voxel and its neighbours together hold {joint.noise_excess:.1f} times the "
            "noise variance of as many independent voxels): the joint fit gives its data that much less weight."
        )
    if not joint.tissue.known:
        notes.append(
            "Grey and white matter could not be told apart, so the joint fit smooths across their border, and no foci are listed: "
            "with one tissue class, folds of the cortex look like foci. M0, a T1 map or tissue maps (--tissue) help."
        )
    return tuple(notes)
