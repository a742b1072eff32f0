"""What the joint fit adds to the maps: tissue classes, and where the pooled start and the fit disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..curves import Curves
from ..result import ExtraVolume, PerfusionFit
from .fit import DISAGREES, SpatialFit


def add_spatial(fit: PerfusionFit, c: Curves, joint: SpatialFit) -> PerfusionFit:
    """`fit` with the joint fit's own volumes, status, settings and notes."""
    shape = fit.scan.mask.shape

    def volume(values: np.ndarray) -> np.ndarray:
        out = np.zeros(shape, np.float32)
        out[c.voxels] = np.nan_to_num(values)
        return out

    status = fit.status.copy()
    status[c.voxels] = joint.status
    about = "Arrival time of the pooled start less that of the fit, in standard deviations; beyond 2 a late or early region may be flattened"
    extras = dict(fit.extras)
    extras["disagreement"] = ExtraVolume("desc-disagreement_att", volume(np.clip(joint.disagreement, -20, 20)), about, "1")
    if joint.tissue.known:
        labels = volume(joint.tissue.share.argmax(axis=1) + 1).astype(np.uint8)
        extras["tissue"] = ExtraVolume("desc-tissue_dseg", labels, f"1 GM, 2 WM, 3 CSF, from {joint.tissue.origin}", "1", labels=True)
    settings = fit.settings | {
        "spatial": True,
        "tissue_classes": joint.tissue.origin,
        "prior_strength_cbf_att": [float(v) for v in joint.smooth.strength],
        "effective_parameters_cbf_att": [round(float(v), 1) for v in joint.smooth.effective],
        "share_start_disagrees": float(np.mean(np.abs(joint.disagreement) > DISAGREES)),
    }
    return replace(fit, status=status, settings=settings, extras=extras, scan=replace(fit.scan, notes=_notes(fit, joint)))


def _notes(fit: PerfusionFit, joint: SpatialFit) -> tuple[str, ...]:
    notes = list(fit.scan.notes)
    if joint.tissue.origin.startswith("M0"):
        notes.append("Tissue classes, and with them T1, come from M0 and the difference signal (desc-tissue_dseg): check them.")
    if not joint.tissue.known:
        notes.append("Grey and white matter could not be told apart, so the joint fit smooths across their border; a T1 map helps.")
    return tuple(notes)
