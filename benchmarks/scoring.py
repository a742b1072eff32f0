"""Estimates against the truth of a phantom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pinn_engine.asl import PerfusionFit
from pinn_engine.asl.phantom.brain import GM, WM
from pinn_engine.asl.phantom.make import Phantom, positions

from . import table
from .table import Row

LARGE, SMALL = 8.0, 5.0  # mm: radius of a large lesion at least, of a small one at most


@dataclass(frozen=True)
class Estimate:
    """Maps (X, Y, Z) that some method made, NaN where it did not fit; `seconds` for `voxels` of them."""

    name: str
    cbf: np.ndarray
    att: np.ndarray
    cbf_sd: np.ndarray | None = None
    att_sd: np.ndarray | None = None
    seconds: float | None = None
    voxels: int = 0
    note: str = ""

    @property
    def speed(self) -> float | None:
        return self.voxels / self.seconds if self.seconds else None

    @staticmethod
    def of(name: str, fit: PerfusionFit, seconds: float | None = None, note: str = "") -> Estimate:
        cbf, att = fit.maps["cbf"], fit.maps["att"]
        return Estimate(name, cbf.value, att.value, cbf.std, att.std, seconds, int(fit.scan.mask.sum()), note)


@dataclass(frozen=True)
class Errors:
    """Errors over some voxels; a method that gives no intervals has no coverage."""

    median: float
    rmse: float
    bias: float
    relative: float  # median of |error| / truth
    covers: float | None  # share of voxels whose truth lies within 1.96 sd


def errors(estimate: np.ndarray, truth: np.ndarray, sd: np.ndarray | None, where: np.ndarray) -> Errors:
    where = where & np.isfinite(estimate)
    true = truth[where].astype(float)
    error = estimate[where].astype(float) - true
    covers = None if sd is None else float((np.abs(error) <= 1.96 * sd[where]).mean())
    size = np.abs(error)
    return Errors(float(np.median(size)), float(np.sqrt((error**2).mean())), float(error.mean()), float(np.median(size / true)), covers)


def score(p: Phantom, e: Estimate, where: np.ndarray | None = None, lesions: bool = True) -> Row:
    """A row of the table: both tissues, speed, lesions. `where` restricts it to some voxels."""
    where = p.mask if where is None else where
    row = {table.WHAT: e.name, table.OTHER: e.note}
    if e.speed:
        row[table.SPEED] = table.count(e.speed)
    for tissue, columns in (
        (GM, (table.GM_CBF, table.GM_ATT, table.GM_COVERS)),
        (WM, (table.WM_CBF, table.WM_ATT, table.WM_COVERS)),
    ):
        inside = where & (p.tissue == tissue)
        cbf, att = errors(e.cbf, p.cbf, e.cbf_sd, inside), errors(e.att, p.att, e.att_sd, inside)
        row[columns[0]] = f"{cbf.median:.2f} / {cbf.rmse:.1f} / {cbf.bias:+.1f}"
        row[columns[1]] = f"{att.median:.3f}"
        if cbf.covers is not None and att.covers is not None:
            row[columns[2]] = f"{cbf.covers:.3f} / {att.covers:.3f}"
    if lesions and p.lesions:
        row[table.LESIONS] = " / ".join(f"{kept:.2f}" for kept in lesion_contrast(p, e.cbf))
    return row


def lesion_contrast(p: Phantom, cbf: np.ndarray) -> tuple[float, float]:
    """How much of the lesions' contrast a map shows, for large and for small ones; 1 = all of it, 0 = none.

    The contrast of a lesion is the median CBF of its grey matter relative to that of the grey matter up to 10 mm around it.
    """
    place = positions(p.grid)
    shown: dict[bool, list[float]] = {True: [], False: []}
    there: dict[bool, list[float]] = {True: [], False: []}
    for lesion in p.lesions:
        distance = np.linalg.norm(place - lesion.centre, axis=-1)
        grey = (p.tissue == GM) & np.isfinite(cbf)
        inside, around = grey & (p.lesion == lesion.label), grey & (p.lesion == 0) & (distance < lesion.radius + 10)
        if inside.sum() < 3 or SMALL < lesion.radius < LARGE:
            continue
        sign, large = np.sign(lesion.contrast), lesion.radius >= LARGE
        shown[large].append(sign * (np.median(cbf[inside]) / np.median(cbf[around]) - 1))
        there[large].append(sign * (np.median(p.cbf[inside]) / np.median(p.cbf[around]) - 1))
    kept = [float(sum(shown[k]) / sum(there[k])) if there[k] else float("nan") for k in (True, False)]
    return kept[0], kept[1]
