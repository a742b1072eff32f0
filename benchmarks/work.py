"""What `benchmarks.compare` runs of this package and of SciPy, each call in a process of its own (peers/run_own.py).

Every function takes arrays and dataclasses and returns arrays by name, and the version.
"""

from __future__ import annotations

from typing import Any

import scipy

import pinn_engine
from pinn_engine import asl

from . import methods
from .machine import one_thread

__all__ = ["curve_fit", "heart", "one_thread", "perfusion", "sheet", "smoothed_heart", "warm_up"]

Results = tuple[dict[str, Any], str]
OURS = f"pinn_engine {pinn_engine.__version__}"


def warm_up(name: str) -> None:
    """What is slow the first time is not timed: a fit of a very small brain first."""
    if name == "perfusion":
        asl.fit(asl.phantom((12, 14, 8), seed=100).scan(), device="cpu")


def perfusion(scan, **options) -> Results:
    """`asl.fit` of a scan in memory."""
    fit = asl.fit(scan, device="cpu", **options)
    maps = {name: fit.maps[name].value for name in ("cbf", "att")} | {f"{name}_sd": fit.maps[name].std for name in ("cbf", "att")}
    return maps, OURS


def curve_fit(bounded: bool, **data) -> Results:
    """SciPy, voxel by voxel: (V,) of each."""
    cbf, att, cbf_sd, att_sd = methods.curve_fits(**data, bounded=bounded)
    return {"cbf": cbf, "att": att, "cbf_sd": cbf_sd, "att_sd": att_sd}, f"SciPy {scipy.__version__}"


def heart(data, **options) -> Results:
    """`cardiac.fit` of a heart in memory: maps with their standard deviations, or, where no map is asked for, numbers with theirs."""
    from pinn_engine.cardiac.fit import fit

    found = fit(data, **options)
    if options.get("map"):
        told: dict[str, Any] = {name: one.value for name, one in found.maps.items()}
        told |= {f"{name}_sd": one.std for name, one in found.maps.items()}
    else:
        told = {name: one.value for name, one in found.parameters.items()} | {f"{n}_sd": one.std for n, one in found.parameters.items()}
    return told, OURS


def smoothed_heart(data, D) -> Results:
    """Bi-Laplacian smoothing of the times, of three stiffnesses the one that is best against the truth, then D = 1 / (c0 |grad T|)^2."""
    from .cardiac import scores, smoothing

    found, speed = smoothing(data, lambda fitted, speed: -scores(D, fitted, 0.09, 0.05)["dice"])
    return {"D": found, "CV": speed}, OURS


def sheet(mesh, D, start, duration, max_step) -> Results:
    """`cardiac.simulate`: activation times (TU)."""
    from pinn_engine.cardiac.simulate import simulate

    return {"LAT": simulate(mesh, D, start, duration=duration, max_step=max_step, frame_step=1.0).LAT}, OURS
