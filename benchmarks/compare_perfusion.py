"""Perfusion side by side: this package, SciPy, asltk, osipy and vaby on one brain; the tutorial's DeepXDE program on its voxels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM, WM
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.cli.demo import blurred

from . import methods, peers
from .accuracy import BRAINS, sample
from .scoring import errors
from .side_by_side import Entry, Section, attempt
from .tutorial import TAU, TIMES, as_scan, draw

MEASURES = ("GM CBF error, mL/100 g/min: median / RMSE", "GM ATT error, s", "95 % intervals cover GM CBF / ATT", "WM CBF: median")


def brain(quick: bool, seed: int, snr: float, short: bool = True) -> Section:
    """All methods are scored on the same voxels; those that take milliseconds a voxel fit these alone, the others the whole brain.

    `short`: some of its rows are for the README.
    """
    shape, spacing = BRAINS[quick]
    p = asl.phantom(shape, spacing, seed, snr=snr)
    few = sample(p, 300 if quick else 2000, seed)
    all_voxels = p.cbf > 0
    score = partial(_score, p, few)
    entries = [Entry("constant: the true mean of each tissue", score(_maps(methods.constant(p))), headline="constant (true mean)")]

    def ours(who: str, scan, headline: str = "", reference: bool = False, **options) -> None:
        work = partial(peers.own, "perfusion", scan=scan, **options)
        entries.append(attempt(who, work, score, items=int(scan.mask.sum()), headline=headline, reference=reference))

    one, true = p.scan(), p.scan(t1_map=True)
    ours("pinn_engine, voxel by voxel", one, "**PINN, voxel by voxel**", reference=True, spatial=False)
    ours("pinn_engine, all voxels together", one, "**PINN, all voxels together (`--spatial`)**", spatial=True)
    if not quick:
        ours("pinn_engine, one network a voxel", one, "PINN, one network a voxel", network="mlp", spatial=False)
    ours("pinn_engine, closed form", one, "closed form (`nlls`)", method="nlls")
    ours("pinn_engine, closed form after 6 mm blur", blurred(one, 6.0), "closed form after 6 mm blur", method="nlls")
    ours("pinn_engine, voxel by voxel, with the true T1 map", true, spatial=False)
    ours("pinn_engine, closed form, with the true T1 map", true, method="nlls")
    signal, delays, tau, _ = methods.averaged(p, few)
    data = {"signal": signal, "delays": delays, "tau": tau, "t1": p.t1_tissue[few], **methods.constants(p)}
    for bounded, how in ((True, "bounded"), (False, "unbounded")):
        work = partial(peers.own, "curve_fit", bounded=bounded, **data)
        who = f"SciPy curve_fit, {how}, true T1"
        headline = who if bounded else ""
        entries.append(attempt(who, work, partial(_score, p, few, few), items=int(few.sum()), headline=headline))
    for peer, voxels in ((peers.ASLTK, few), (peers.OSIPY, all_voxels), (peers.VABY, all_voxels)):
        given = methods.for_peers(p, voxels)
        if peer is peers.VABY:
            given["repeats"] = _repeats(p, voxels)
        work = partial(peers.run, peer, given, True)
        who = f"{peer.name}, inputs corrected"
        entries.append(attempt(who, work, partial(_score, p, few, voxels), items=int(voxels.sum()), headline=who))
    title = f"Brain, SNR {snr:g} ({int(all_voxels.sum()):,} voxels, 6 delays x 4 repeats)"
    return Section(title, MEASURES, "voxel", tuple(e if short else replace(e, headline="") for e in entries))


def _repeats(p: Phantom, where: np.ndarray) -> np.ndarray:
    """(V, delays, repeats) differences per M0 of blood."""
    pld = p.acquisition.pld
    m0 = p.m0_image[where] / methods.constants(p)["partition"]
    return np.stack([p.difference[where][:, pld == d] for d in np.unique(pld)], axis=1) / m0[:, None, None]


def _maps(e) -> dict[str, Any]:
    return {"cbf": e.cbf, "att": e.att}


def _score(p: Phantom, scored: np.ndarray, *more: Any) -> tuple[str, ...]:
    """Of maps, or of values (V,) at the voxels that were fitted."""
    *fitted, made = more
    maps = {k: methods.image(p, fitted[0], v) if fitted else v for k, v in made.items() if k in ("cbf", "att", "cbf_sd", "att_sd")}
    grey, white = scored & (p.tissue == GM), scored & (p.tissue == WM)
    cbf, att = (errors(maps[k], getattr(p, k), maps.get(f"{k}_sd"), grey) for k in ("cbf", "att"))
    covers = "" if cbf.covers is None or att.covers is None else f"{100 * cbf.covers:.0f} %, {100 * att.covers:.0f} %"
    in_white = errors(maps["cbf"], p.cbf, None, white).median
    return f"{cbf.median:.1f} / {cbf.rmse:,.1f}", f"{att.median:.3f}", covers, f"{in_white:.1f}"


def tutorial(quick: bool, seed: int) -> Section:
    """The simplified model with T1 of blood known; DeepXDE with its own schedule, and stopped when our fit of the same voxel is done."""
    few = 1 if quick else 20
    v = draw(4000, 0.02, seed)
    one = draw(1, 0.02, seed)
    options = {"model": "simplified", "unknown": ("cbf", "att"), "spatial": False}  # no voxel is another's neighbour

    def score(made: dict[str, Any]) -> tuple[str, ...]:
        cbf, att = np.ravel(made["cbf"])[:few], np.ravel(made["att"])[:few]
        off = np.median(np.abs(cbf / v.cbf[: len(cbf)] - 1))
        return f"{100 * off:.1f} %", f"{1000 * np.median(np.abs(att - v.att[: len(att)])):.0f} ms"

    def deepxde(limit: float | None = None) -> dict[str, Any]:
        data = {"times": TIMES, "signal": v.signal[:few], "tau": np.array(TAU), "t1b": np.array(2.0)}
        made = peers.run(peers.DEEPXDE, data | ({"limit": np.array(limit)} if limit else {}), True)
        return made | {"seconds": np.sum(made["seconds"])}

    ours = attempt(
        "pinn_engine, 4,000 such voxels at once",
        partial(peers.own, "perfusion", scan=as_scan(v), **options),
        score,
        items=4000,
        reference=True,
        headline="**PINN, voxel by voxel**",
    )
    network = attempt(
        "pinn_engine, one network a voxel, 4,000 at once",
        partial(peers.own, "perfusion", scan=as_scan(v), network="mlp", **options),
        score,
        items=4000,
    )
    alone = attempt("pinn_engine, a scan of one voxel", partial(peers.own, "perfusion", scan=as_scan(one), **options), lambda made: ())
    entries = [ours, network, alone]
    if alone.seconds:
        same = attempt("DeepXDE, as long as our scan of one voxel", partial(deepxde, alone.seconds), score, items=few)
        entries.append(same)
    headline = "the tutorial's set-up in DeepXDE"
    entries.append(attempt("DeepXDE, the tutorial's 10,000 Adam steps", deepxde, score, items=few, headline=headline))
    title = f"One voxel of the tutorial (12 times, noise sd .02; errors on the same {few})"
    return Section(title, ("CBF error: median", "ATT error: median"), "voxel", tuple(entries))
