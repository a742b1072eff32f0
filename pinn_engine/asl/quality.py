"""Figures to judge a perfusion scan by, and what in them is not plausible, in plain language."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .regions import FLUID, GREY, WHITE
from .result import ParameterMap, PerfusionFit
from .spatial.tissue import T1

QEI_SMOOTHING = 5.0  # mm, full width at half maximum
FWHM = 2.354820045  # per standard deviation
QEI_DOI, COV_DOI = "10.1002/jmri.29308", "10.1177/0271678X16683690"
BEYOND_DOUBT = 3.0  # standard errors
TISSUES = ("grey matter", "white matter", "CSF")
FEWEST = 10  # voxels of a tissue; fewer say nothing


@dataclass(frozen=True)
class TissueMap:
    """`labels` (X, Y, Z) uint8: GREY, WHITE, FLUID, 0 = unknown; `origin` says from what."""

    labels: np.ndarray
    origin: str


def tissue_of(fit: PerfusionFit) -> TissueMap | None:
    """Where grey and white matter are: by named labels, a T1 map, or the joint fit's own classes; None where nothing tells."""
    scan = fit.scan
    named = None if scan.regions is None else scan.regions.tissue()
    if named is not None and scan.regions is not None:
        return TissueMap(named, f"labels of {scan.regions.source}")
    if scan.tissue is not None:
        known = scan.tissue.sum(axis=-1) > 0.5
        return TissueMap(np.where(known, scan.tissue.argmax(axis=-1) + 1, 0).astype(np.uint8), "tissue maps, most probable class")
    given = str(getattr(scan.acquisition.origins.get("t1_tissue"), "origin", ""))
    if scan.t1_tissue is not None and given.startswith("option"):
        distance = np.abs(np.log(np.maximum(scan.t1_tissue, 0.05))[..., None] - np.log(T1))
        return TissueMap((distance.argmin(axis=-1) + 1).astype(np.uint8), "T1 map, nearest class")
    if "tissue" in fit.extras:
        return TissueMap(fit.extras["tissue"].data.astype(np.uint8), f"joint fit, from {fit.settings.get('tissue_classes', 'its classes')}")
    return None


def quality(fit: PerfusionFit) -> dict[str, object]:
    """One row of figures to compare scans by; shares are of the voxels in the mask, tissue figures n/a where no tissue is known."""
    mask = fit.scan.mask
    inside = fit.status[mask]
    fitted = fit.usable
    row: dict[str, object] = {"prefix": fit.scan.prefix, "voxels": int(mask.sum()), "cbf_unit": fit.maps["cbf"].kind.unit}
    codes = [1, *(code for code in sorted(fit.status_meaning) if code > 1)]
    shares = {code: float(np.mean(inside == code)) if inside.size else None for code in codes}
    row |= {"share_converged" if code == 1 else f"share_status_{code}": share for code, share in shares.items()}
    for name, one in fit.maps.items():
        row |= _summary(name, one, fitted)
    cbf = fit.maps["cbf"].value[fitted].astype(float)
    row["cbf_share_negative"] = float(np.mean(cbf < 0)) if cbf.size else None
    row["cbf_spatial_cov"] = _cov(cbf)
    if fit.maps["cbf"].kind.unit != "arbitrary":
        row["cbf_share_above_150"] = float(np.mean(cbf > 150)) if cbf.size else None
    row |= _by_tissue(fit, fitted)
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


def _cov(values: np.ndarray) -> float | None:
    """Spatial coefficient of variation, sd / mean (Mutsaerts 2017, doi:10.1177/0271678X16683690); None where the mean is not positive."""
    return float(values.std() / values.mean()) if values.size >= FEWEST and values.mean() > 0 else None


def _by_tissue(fit: PerfusionFit, fitted: np.ndarray) -> dict[str, object]:
    names = [f"{tissue}_{name}_mean" for name in fit.maps for tissue in ("gm", "wm")]
    keys = ("tissue_origin", "gm_voxels", "wm_voxels", *names, "gm_wm_ratio", "gm_spatial_cov", "gm_share_negative")
    row: dict[str, object] = dict.fromkeys((*keys, "qei", "qei_structure", "qei_dispersion", "qei_negative"))
    tissue = tissue_of(fit)
    if tissue is None:
        return row
    grey, white = (fitted & (tissue.labels == kind) for kind in (GREY, WHITE))
    row |= {"tissue_origin": tissue.origin, "gm_voxels": int(grey.sum()), "wm_voxels": int(white.sum())}
    if min(grey.sum(), white.sum()) < FEWEST:
        return row
    for name, one in fit.maps.items():
        row |= {f"gm_{name}_mean": float(one.value[grey].mean()), f"wm_{name}_mean": float(one.value[white].mean())}
    cbf = fit.maps["cbf"].value.astype(float)
    if cbf[white].mean() > 0:
        row["gm_wm_ratio"] = float(cbf[grey].mean() / cbf[white].mean())
    row |= {"gm_spatial_cov": _cov(cbf[grey]), "gm_share_negative": float(np.mean(cbf[grey] < 0))}
    structure, dispersion, negative = qei_parts(np.where(fitted, cbf, 0), tissue.labels * fitted, fit.scan.grid.spacing)
    row |= {"qei_structure": structure, "qei_dispersion": dispersion, "qei_negative": negative}
    row["qei"] = qei(structure, dispersion, negative)
    return row


def qei_parts(cbf: np.ndarray, tissue: np.ndarray, spacing: np.ndarray) -> tuple[float, float, float]:
    """Likeness to tissue, dispersion index and negative share of grey matter: the parts of Dolui's index.

    `cbf` (X, Y, Z), 0 where not fitted; `tissue` GREY, WHITE, FLUID or 0, hard labels in place of the paper's probabilities.
    """
    smooth = ndimage.gaussian_filter(cbf, QEI_SMOOTHING / FWHM / np.asarray(spacing), mode="constant")
    inside = tissue > 0
    expected = 2.5 * (tissue == GREY) + (tissue == WHITE)
    values = [smooth[tissue == kind] for kind in (GREY, WHITE, FLUID)]
    alike = float(np.corrcoef(smooth[inside], expected[inside])[0, 1]) if np.ptp(smooth[inside]) > 0 else 0.0
    pooled = sum(v.var(ddof=1) * (v.size - 1) for v in values if v.size > 1) / (sum(v.size for v in values) - 3)
    grey = values[0]
    dispersion = float(pooled / abs(grey.mean())) if grey.mean() != 0 else float("inf")
    return max(alike, 0.0), dispersion, float(np.mean(grey < 0))


def qei(structure: float, dispersion: float, negative: float) -> float:
    """Quality evaluation index, 0 to 1 (Dolui 2024, doi:10.1002/jmri.29308).

    >>> round(qei(1.0, 0.0, 0.0), 3), qei(0.0, 10.0, 0.1)
    (0.983, 0.0)
    """
    alike = 1 - np.exp(-3.0126 * structure**2.4419)
    return float(np.cbrt(alike * np.exp(-(0.054 * dispersion**0.9272 + 2.8478 * negative**0.5196))))


def tissue_doubts(fit: PerfusionFit) -> list[str]:
    """Sentences on tissue maps: a class that the mask holds nothing of, or one that is perfused more than what is given as grey matter."""
    if fit.scan.tissue is None:
        return []
    order = "they must be grey matter, white matter, CSF in this order (FSL’s FAST begins with CSF)"
    share = fit.scan.tissue[fit.usable].astype(float)
    amount = share.sum(axis=0)
    if empty := [name for name, voxels in zip(TISSUES, amount, strict=True) if voxels < 1]:
        told = f"The tissue map of {' and of '.join(empty)} is empty inside the mask, so what is there counts as another tissue"
        return [f"{told}; if the maps were exchanged: {order}."]
    signal = fit.scan.difference[fit.usable].mean(axis=1)
    mean, *_ = np.linalg.lstsq(share, signal, rcond=None)
    spread = np.var(signal - share @ mean) * np.linalg.pinv(share.T @ share)
    above = [(mean[k] - mean[0]) / np.sqrt(spread[0, 0] + spread[k, k] - 2 * spread[0, k]) for k in (1, 2)]
    k = 1 + int(np.argmax(above))
    if signal.mean() <= 0 or not above[k - 1] > BEYOND_DOUBT:
        return []
    return [f"What the tissue maps call {TISSUES[k]} is perfused more than what they call grey matter: {order}."]


@dataclass(frozen=True)
class Check:
    """One figure of `quality` and the range in which it is plausible in a living brain; `advice` is what to look at where it is not."""

    key: str
    title: str
    unit: str
    low: float
    high: float
    advice: str
    absolute: bool = False  # only where CBF is in mL/100 g/min


PLAUSIBLE_CBF = (10.0, 120.0)  # mL/100 g/min, median over a brain mask of a living adult or child
CHECKS = (
    Check("gm_cbf_mean", "Mean CBF of grey matter", "mL/100 g/min", 10, 120, "M0 on another scale, a wrong delay or label duration", True),
    Check("gm_wm_ratio", "CBF of grey over white matter", "", 1.2, 6, "tissue maps not in the order GM, WM, CSF, noise, or late arrival"),
    Check("gm_att_mean", "Mean arrival time of grey matter", "s", 0.3, 2.2, "delays or label duration that are not those of the scan"),
    Check("cbf_share_negative", "Share of negative CBF", "", 0, 0.15, "noise, motion, or control and label exchanged"),
    Check("cbf_share_above_150", "Share of CBF above 150", "", 0, 0.05, "blood in arteries, noise or another M0 scale", True),
    Check("gm_spatial_cov", "Spatial variation of CBF in grey matter", "", 0, 0.8, "label still in arteries, noise or motion"),
    Check("qei", "Quality evaluation index", "", 0.5, 1, "noise or motion: look at the map before using it"),
)


def plausibility(fit: PerfusionFit) -> list[dict[str, object]]:
    """One row a check that can be made: figure, value, range, whether it is plausible, a sentence, and all of it as text."""
    row, rows = quality(fit), []
    for check in CHECKS:
        value = row.get(check.key)
        if not isinstance(value, float) or (check.absolute and fit.maps["cbf"].kind.unit == "arbitrary"):
            continue
        fine = check.low <= value <= check.high
        share = "share" in check.key
        low, high, told = (f"{100 * x:.3g}" if share else f"{x:.3g}" for x in (check.low, check.high, value))
        unit = " %" if share else f" {check.unit}" if check.unit else ""
        bounds = f"{low} to {high}{unit}"
        said = "is as in a living brain" if fine else f"is outside {bounds}; look for {check.advice}"
        sentence = f"{check.title} ({told}{unit}) {said}."
        line = {"figure": check.key, "value": value, "low": check.low, "high": check.high, "plausible": fine, "sentence": sentence}
        title = f"{check.title}, {unit.strip()}" if unit else check.title
        rows.append(line | {"title": title, "shown": told, "range": f"{low} to {high}"})
    return rows


def cautions(fit: PerfusionFit) -> list[str]:
    """Plain sentences about what in these maps calls for care. The scan's own notes are not repeated."""
    usable, mask = fit.usable, fit.scan.mask
    if not usable.any():
        return ["No voxel could be fitted: the maps hold zeros only. The status table says why."]
    out = []
    converged = float(np.mean(fit.status[mask] == 1))
    if converged < 0.8:
        out.append(f"Only {100 * converged:.0f} % of the voxels converged; the status map shows where to trust the maps.")
    cbf = fit.maps["cbf"]
    middle = float(np.median(cbf.value[usable]))
    if middle < 0:
        out.append("The median perfusion is negative: control and label images may be in the other order than the scan’s description says.")
    elif cbf.kind.unit != "arbitrary" and not PLAUSIBLE_CBF[0] <= middle <= PLAUSIBLE_CBF[1]:
        out.append(
            f"The median CBF of {middle:.3g} {cbf.kind.unit} is outside what a brain shows "
            f"({PLAUSIBLE_CBF[0]:g} to {PLAUSIBLE_CBF[1]:g}). Usual causes: an M0 image on another scale than the series, "
            "a wrong label duration or delay, or a mask that reaches beyond the brain."
        )
    out += [str(row["sentence"]) for row in plausibility(fit) if not row["plausible"]]
    out += tissue_doubts(fit)
    if cbf.kind.unit == "arbitrary":
        out.append("Relative perfusion: compare places within this scan, not scans with each other.")
    misfit = float(np.median(fit.misfit[usable]))
    if misfit > 1.5:
        out.append(
            f"The data lie {misfit:.3g} times as far from the fitted curves as their noise explains (median): "
            "motion between the images, or a model that does not fit."
        )
    return out
