"""From volumes to curves: repeats averaged, noise measured, everything in units of flow.

A voxel's data point y is 6000 * mean difference / (2 alpha M0b), so that y = CBF * S(t) with CBF in mL/100 g/min and S the kinetic
model for unit flow. Without M0 the factor is 1 / (2 alpha) and flow is relative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import polygamma

from .scan import Scan
from .weights import same_delay

FLOW = 6000.0  # mL/g/s -> mL/100 g/min
POSSIBLE_M0 = (1e-4, 1e12)  # scanner units: with others float32 squares overflow
WILD = 100.0  # typical signals: no voxel of a scan that can be fitted reaches it
NOISE_FLOOR = 1e-4  # of the typical signal: keeps noise-free data solvable


@dataclass(frozen=True)
class Curves:
    """V voxels at K distinct (PLD, label duration) pairs, in flow units; arrays are NumPy float32, V leading."""

    voxels: tuple[np.ndarray, ...]  # 3 indices of the V voxels
    data: np.ndarray  # (V, K) mean over repeats
    noise: np.ndarray  # (V,) sd of one difference, shrunk towards the scan's typical value
    repeats: np.ndarray  # (K,) sum of the weights of what is averaged
    pld: np.ndarray  # (K,) s
    label_duration: np.ndarray  # (K,) s
    times: np.ndarray  # (K,) s from the start of labelling, first slice
    delay: np.ndarray  # (V,) index into `delays`
    delays: np.ndarray  # distinct slice delays, s
    t1_tissue: np.ndarray | None  # (V,) s
    scale: np.ndarray  # (V,) flow units per scanner unit
    degrees: int  # degrees of freedom behind each voxel's own noise estimate, 0 = taken from the fit's residuals
    amplitude: float  # typical signal of the scan in flow units: 90th percentile of the root mean square over delays

    def __len__(self) -> int:
        return len(self.data)


def curves(scan: Scan, weight: np.ndarray | None = None) -> Curves:
    """Average the repeats of every voxel of the mask whose data and M0 are usable; `weight` (N,) of each difference, None = all 1."""
    acquisition = scan.acquisition
    pairs = np.stack([acquisition.pld, acquisition.label_duration], axis=1).round(6)
    distinct, member = np.unique(pairs, axis=0), same_delay(scan)
    weight = np.ones(len(member)) if weight is None else weight
    usable = scan.mask & np.isfinite(scan.difference).all(axis=3)
    if scan.m0 is not None:
        usable &= (scan.m0 > POSSIBLE_M0[0]) & (scan.m0 < POSSIBLE_M0[1])
    voxels = np.nonzero(usable)
    raw = scan.difference[voxels]
    scale = np.full(len(raw), 1.0 / (2 * acquisition.alpha.number), np.float32)
    if scan.m0 is not None:
        scale *= FLOW / scan.m0[voxels]
    data = np.empty((len(raw), len(distinct)), np.float32)
    squares = np.zeros(len(raw))  # of one damaged difference they are beyond float32
    repeats = np.bincount(member, weights=weight)
    for k in range(len(distinct)):
        group, w = raw[:, member == k], weight[member == k].astype(np.float32)
        data[:, k] = (group * (w / w.sum())).sum(axis=1)
        squares += ((group.astype(float) - data[:, k : k + 1]) ** 2 * w).sum(axis=1)
    data *= scale[:, None]
    degrees = round(np.maximum(repeats - 1, 0).sum())
    amplitude = float(np.percentile(np.sqrt((data**2).mean(axis=1)), 90)) if len(data) else 1.0
    slice_delay = acquisition.slice_delay[voxels[acquisition.slice_axis]]
    delays, delay = np.unique(slice_delay, return_inverse=True)
    times = distinct[:, 0] if acquisition.labeling == "PASL" else distinct.sum(axis=1)
    variance = scale.astype(float) ** 2 * squares / degrees if degrees else np.zeros(len(scale))
    most = (WILD * (amplitude or 1.0)) ** 2
    return Curves(
        voxels=voxels,
        data=data,
        noise=_floored(np.sqrt(shrink(np.minimum(variance, most), degrees)), amplitude),
        repeats=repeats,
        pld=distinct[:, 0],
        label_duration=distinct[:, 1],
        times=times,
        delay=delay.reshape(-1),
        delays=delays,
        t1_tissue=None if scan.t1_tissue is None else scan.t1_tissue[voxels].astype(np.float32),
        scale=scale,
        degrees=degrees,
        amplitude=amplitude or 1.0,
    )


def impossible(c: Curves) -> np.ndarray:
    """(V,) True where the signal is beyond what tissue or noise makes, as of a damaged voxel or one whose M0 is next to nothing."""
    return np.asarray((np.abs(c.data) > WILD * c.amplitude).any(axis=1) | (c.noise > 0.5 * WILD * c.amplitude))


def weightless(c: Curves, which: np.ndarray) -> Curves:
    """Curves in which the voxels `which` (V,) say nothing: what stands there must not reach their neighbours."""
    if not which.any():
        return c
    data, noise = np.where(which[:, None], np.float32(0), c.data), np.where(which, np.float32(WILD * c.amplitude), c.noise)
    return replace(c, data=data, noise=noise)


def with_residual_noise(c: Curves, chi2: np.ndarray, parameters: int) -> Curves:
    """Noise from the residuals of a first fit, for data without repeats; `chi2` (V,) sum of (residual^2 * repeats) in flow units."""
    degrees = max(len(c.times) - parameters, 0)
    variance = chi2 / degrees if degrees else np.full(len(c), (0.1 * c.amplitude) ** 2, np.float32)
    return replace(c, noise=_floored(np.sqrt(shrink(variance.astype(np.float32), degrees)), c.amplitude))


def shrink(variance: np.ndarray, degrees: int) -> np.ndarray:
    """(V,) variances drawn towards their common value, as far as their scatter is what so few degrees of freedom would give anyway.

    Empirical Bayes with a scaled inverse chi-square prior (Smyth 2004, doi:10.2202/1544-6115.1027).
    """
    positive = variance[(variance > 0) & (variance < 1e4 * np.median(variance))]  # damaged voxels must not say how noise scatters
    if degrees == 0 or len(positive) < 3:
        return variance
    logs = np.log(positive)
    excess = logs.var() - polygamma(1, degrees / 2)
    prior_degrees = 2 * _inverse_trigamma(excess) if excess > 1e-3 else 1e3
    offset = polygamma(0, degrees / 2) - np.log(degrees / 2) - polygamma(0, prior_degrees / 2) + np.log(prior_degrees / 2)
    common = np.exp(logs.mean() - offset)
    return ((degrees * variance + prior_degrees * common) / (degrees + prior_degrees)).astype(np.float32)


def _inverse_trigamma(y: float) -> float:
    """x of trigamma(x) = y, Newton on 1/trigamma as in the paper's appendix."""
    x = 0.5 + 1 / y
    for _ in range(20):
        x += polygamma(1, x) * (1 - polygamma(1, x) / y) / polygamma(2, x)
    return float(x)


def _floored(sd: np.ndarray, amplitude: float) -> np.ndarray:
    return np.maximum(sd, NOISE_FLOOR * (amplitude or 1.0)).astype(np.float32)
