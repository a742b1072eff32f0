"""A fit against what is true in a phantom, by tissue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..asl.result import PerfusionFit

REGIONS = (("Grey matter", 1), ("White matter", 2))


def demo_table(fit: PerfusionFit, truth: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    """Errors of each map in each tissue, in the map's unit, over *every* voxel of the mask, those not fitted included (their value is 0).

    `truth` holds (X, Y, Z) maps "cbf", "att", "tissue" (1 GM, 2 WM, 3 CSF) and, if it likes, "lesion" (> 0 inside). The constant predictor
    says the tissue's true median in every voxel: a fit worse than that has learned nothing about the place. `coverage` is the share of
    voxels whose truth lies within 1.96 standard deviations. Relative CBF has no scale to compare and is left out.
    """
    rows: list[dict[str, object]] = []
    for key in ("cbf", "att"):
        if key not in fit.maps or key not in truth or fit.maps[key].kind.unit == "arbitrary":
            continue
        for name, region in _regions(fit, truth):
            true = np.asarray(truth[key], float)[region]
            error = fit.maps[key].value[region].astype(float) - true
            constant = np.median(true) - true
            rows.append(
                {
                    "map": key,
                    "title": fit.maps[key].kind.title,
                    "unit": fit.maps[key].kind.unit,
                    "region": name,
                    "voxels": int(region.sum()),
                    "median_abs_error": float(np.median(np.abs(error))),
                    "bias": float(error.mean()),
                    "rmse": float(np.sqrt(np.mean(error**2))),
                    "coverage": float(np.mean(np.abs(error) <= 1.96 * fit.maps[key].std[region])),
                    "constant_median_abs_error": float(np.median(np.abs(constant))),
                    "constant_rmse": float(np.sqrt(np.mean(constant**2))),
                }
            )
    return rows


def _regions(fit: PerfusionFit, truth: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Named regions (X, Y, Z) that hold at least one voxel."""
    tissue = np.asarray(truth["tissue"])
    found = [(name, fit.scan.mask & (tissue == code)) for name, code in REGIONS]
    if "lesion" in truth:
        found.append(("Focal lesions, grey matter", fit.scan.mask & (tissue == 1) & (np.asarray(truth["lesion"]) > 0)))
    return [(name, region) for name, region in found if region.any()]
