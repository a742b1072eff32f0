"""The methods that are compared and need nothing but this package and SciPy."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

from pinn_engine import asl
from pinn_engine.asl import Scan
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.cli.demo import blurred

from .machine import best_of
from .scoring import Estimate

METHODS: dict[str, dict[str, Any]] = {  # voxel by voxel
    "nlls": {"method": "nlls"},
    "pinn, features": {"method": "pinn", "network": "features", "spatial": False},
    "pinn, mlp": {"method": "pinn", "network": "mlp"},
}


def warm_up() -> None:
    """What is slow the first time is not timed."""
    scan = asl.phantom((12, 14, 8), seed=100).scan()
    for options in METHODS.values():
        asl.fit(scan, device="cpu", **options)


def ours(name: str, scan: Scan, repeats: int = 1, label: str = "") -> Estimate:
    """One of METHODS; only `asl.fit` on a scan in memory is timed."""
    seconds, fit = best_of(repeats, lambda: asl.fit(scan, device="cpu", **METHODS[name]))
    level = fit.settings.get("model_error")
    return Estimate.of(label or name, fit, seconds, f"model error {level:g}" if isinstance(level, float) else "")


def constant(p: Phantom) -> Estimate:
    """An oracle that knows the mean of the truth in each tissue, and nothing about the place."""
    cbf, att = np.full(p.mask.shape, np.nan), np.full(p.mask.shape, np.nan)
    for tissue in np.unique(p.tissue[p.mask]):
        inside = p.mask & (p.tissue == tissue)
        cbf[inside], att[inside] = p.cbf[inside].mean(), p.att[inside].mean()
    return Estimate("constant predictor (true mean of each tissue)", cbf, att)


def smoothed(scan: Scan, fwhm: float, suffix: str = "") -> Estimate:
    """The closed form after a Gaussian (FWHM in mm) on the difference images, normalised within the mask."""
    fit = asl.fit(blurred(scan, fwhm), method="nlls", device="cpu")
    return Estimate.of(f"nlls after smoothing, {fwhm:g} mm FWHM{suffix}", fit)


def averaged(p: Phantom, where: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean differences per M0 of blood (V, K) of the voxels `where`, their delays and label durations (K,), and that M0 (V,).

    Every peer is given these: its differences are averaged as ours are.
    """
    a = p.acquisition
    delays = np.unique(a.pld)
    m0 = p.m0_image[where] / float(a.partition.number)
    mean = np.stack([p.difference[where][:, a.pld == d].mean(axis=1) for d in delays], axis=1)
    return mean / m0[:, None], delays, np.array([a.label_duration[a.pld == d][0] for d in delays]), m0


def for_peers(p: Phantom, where: np.ndarray) -> dict[str, np.ndarray]:
    """What the adapters of perfusion's peers read: mean differences per M0 of blood (V, K), delays, label durations, constants."""
    signal, delays, tau, _ = averaged(p, where)
    numbers = constants(p) | {"t1_tissue": float(p.acquisition.t1_tissue.number)}
    return {"signal": signal, "pld": delays, "tau": tau, **{name: np.array(value) for name, value in numbers.items()}}


def buxton(times: np.ndarray, tau: np.ndarray, cbf: float, att: float, t1: float, alpha: float, t1b: float, partition: float) -> np.ndarray:
    """Difference per M0b of pCASL, written down once more, independently of the package; the flow is in T1' too, as in the phantom."""
    f = cbf / 6000
    t1_apparent = 1 / (1 / t1 + f / partition)
    since = np.clip(times - att, 0, None)
    ended = np.clip(since - tau, 0, None)
    return 2 * alpha * f * t1_apparent * np.exp(-att / t1b) * (np.exp(-ended / t1_apparent) - np.exp(-since / t1_apparent))


def curve_fits(
    signal: np.ndarray, delays: np.ndarray, tau: np.ndarray, t1: np.ndarray, alpha: float, t1b: float, partition: float, bounded: bool
) -> np.ndarray:
    """(4, V) CBF, ATT and their standard deviations by `scipy.optimize.curve_fit`, voxel by voxel, from CBF 60 and ATT 1 s; NaN: failed."""
    times = delays + tau
    found = np.full((4, len(signal)), np.nan)
    extra = {"bounds": ([-50, 0], [500, times.max()])} if bounded else {"method": "lm"}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # an interval it cannot give is infinite
        for v, (y, own) in enumerate(zip(signal, t1.astype(float), strict=True)):

            def model(t, cbf, att, own=own):
                return buxton(t, tau, cbf, att, own, alpha, t1b, partition)

            try:
                best, covariance = curve_fit(model, times, y, p0=(60.0, 1.0), **extra)
                found[:, v] = *best, *np.sqrt(np.diag(covariance))
            except RuntimeError:
                pass  # no convergence: stays NaN and is counted
    return found


def constants(p: Phantom) -> dict[str, float]:
    """alpha, T1 of blood (s) and lambda of the phantom's acquisition."""
    a = p.acquisition
    return {"alpha": float(a.alpha.number), "t1b": float(a.t1_blood.number), "partition": float(a.partition.number)}


def scipy_curve_fit(p: Phantom, where: np.ndarray, bounded: bool) -> Estimate:
    """`curve_fits` with the true model and the true T1."""
    data, delays, tau, _ = averaged(p, where)
    start = time.process_time()
    found = curve_fits(data, delays, tau, p.t1_tissue[where], **constants(p), bounded=bounded)
    seconds = time.process_time() - start
    failed = int(np.isnan(found[0]).sum())
    how = "bounded (trf)" if bounded else "unbounded (lm)"
    maps = [image(p, where, x) for x in found]
    return Estimate(f"scipy curve_fit, true model and T1, {how}", *maps, seconds, len(data), f"{failed} of {len(data)} did not converge")


def image(p: Phantom, where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(X, Y, Z) `values` at the voxels `where`, NaN elsewhere."""
    image = np.full(p.mask.shape, np.nan)
    image[where] = values
    return image
