"""The heart side by side: numbers and maps of D from the same samples, and one simulation of the same wave."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pinn_engine.cardiac import phantom, protocols, shapes
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.read import HeartData
from pinn_engine.cardiac.simulate import Start
from pinn_engine.cardiac.units import MS_PER_TU, conductivity_from_diffusivity

from . import peers
from .cardiac import FIRST_SEED, MODEL, MS, scores, square
from .side_by_side import Entry, Section, attempt

TRUE = {"D": 0.1, "a": 0.01, "b": 0.15}
START = {"D": 0.2, "a": 0.02, "b": 0.3}


def numbers(quick: bool, seed: int) -> Section:
    """The tutorial's inverse problem: a planar wave, 5 % of V, noise .1, W hidden, from 2x off. DeepXDE: as long as our fit took."""
    names = ("D",) if quick else ("D", "a", "b")
    data, _ = square(lambda points: np.full(len(points), TRUE["D"]), FIRST_SEED + seed, "V", planar=True)
    model = AlievPanfilov() if quick else AlievPanfilov(a=START["a"], b=START["b"])

    def score(made: dict[str, Any]) -> tuple[str, ...]:
        off = [f"D {100 * (float(made['D']) / TRUE['D'] - 1):+.1f} %"]
        if not quick:
            off += [f"a {float(made['a']) - TRUE['a']:+.4f}", f"b {100 * (float(made['b']) / TRUE['b'] - 1):+.1f} %"]
        sds = [float(made.get(f"{name}_sd", np.nan)) for name in names]
        held = sum(abs(float(made[name]) - TRUE[name]) < 1.96 * sd for name, sd in zip(names, sds, strict=True))
        return ", ".join(off), f"{held} of {len(names)}" if np.isfinite(sds).all() else "no intervals"

    ours = attempt(
        "pinn_engine, travelling beat + simulator",
        partial(peers.own, "heart", data=data, unknown=names, model=model),
        score,
        reference=True,
        headline="**this package**",
    )
    given = _samples(data) | {"names": ",".join(names), **START}
    entries = [ours]
    work = partial(peers.run, peers.DIFFERENCES, given, False)
    entries.append(attempt("finite differences + Nelder-Mead (SciPy)", work, score, headline="finite differences + Nelder–Mead"))
    seconds = ours.seconds or 60.0
    who = "the tutorial's program in DeepXDE, as long"
    work = partial(peers.run, peers.DEEPXDE, given | {"seconds": seconds, "where": given["samples"][:100]}, True, "deepxde_heart")
    entry = attempt(who, work, score, headline=who)
    steps = f"{int(entry.made['iterations']):,} Adam steps" if entry.made else ""
    entries.append(replace(entry, note=entry.note or steps))
    title = f"{', '.join(names)} of a planar wave, 5 % of V, noise .1, W hidden"
    return Section(title, ("errors", "95 % intervals that hold the truth"), "fit", tuple(entries))


def _samples(data: HeartData) -> dict[str, Any]:
    assert data.V is not None
    assert data.times is not None
    node, frame = np.nonzero(np.isfinite(data.V))
    place = np.column_stack([data.whole.points[node, :2], data.times[frame]])
    return {"samples": place, "value": data.V[node, frame], "times": data.times}


def maps(quick: bool, seed: int) -> list[Section]:
    """A scar, seen by 300 activation times or by 5 % of V. Neither the tutorial nor the finite differences fit a map."""
    return [_map(kind, seed) for kind in (("LAT",) if quick else ("LAT", "V"))]


def _map(kind: str, seed: int) -> Section:
    data, D = square(phantom.scar_map(), FIRST_SEED + seed, kind)

    def score(made: dict[str, Any]) -> tuple[str, ...]:
        s = scores(D, made["D"], 0.09, 0.05)
        covers = "" if "D_sd" not in made else f"{100 * np.mean(np.abs(np.log(made['D'] / D)) <= 1.645 * made['D_sd'] / made['D']):.0f} %"
        return f"{100 * s['healthy']:.1f} / {100 * s['scar']:.1f} %", f"{s['dice']:.2f}", covers

    constant = {"D": np.full(len(D), np.median(D))}
    sd = {"noise": 2.0 / MS} if kind == "LAT" else {}
    ours = partial(peers.own, "heart", data=data, map=("D",), **sd)
    entries = (
        Entry("constant: the true median", score(constant), headline="constant (true median)"),
        attempt("pinn_engine", ours, score, reference=True, headline="**this package**"),
        attempt(
            "smoothing, then the closed form (best of three stiffnesses against the truth)",
            partial(peers.own, "smoothed_heart", data=data, D=D),
            score,
            headline="smoothing + closed form",
        ),
    )
    what = "300 activation times, noise 2 ms" if kind == "LAT" else "5 % of V, noise .1"
    return Section(f"Map of D with a scar, {what}", ("error of D, healthy / scar", "Dice of the scar", "90 % cover"), "fit", entries)


def simulation(quick: bool, seed: int) -> Section:
    """A planar wave over a sheet for 200 ms: our simulator and TorchCor on the same triangles, speed against sqrt(k D / 2) (1 - 2 a)."""
    spacing = 0.5 if quick else 0.25
    mesh, _ = shapes.rectangle((100.0, 20.0) if not quick else (60.0, 10.0), spacing)
    D = 1.0 * MS_PER_TU  # 1 mm^2/ms
    true = float(MODEL.speed(D)) / MS_PER_TU  # m/s
    duration = 200.0 if not quick else 100.0

    def score(made: dict[str, Any], ms: float = 1.0) -> tuple[str, ...]:
        x, LAT = mesh.points[:, 0], np.asarray(made["LAT"]) * ms
        away = (x > 0.3 * x.max()) & (x < 0.7 * x.max()) & np.isfinite(LAT)
        speed = 1.0 / np.polyfit(x[away], LAT[away], 1)[0]
        return (f"{100 * (speed / true - 1):+.2f} %",)

    start = Start(V=protocols.planar(mesh, MODEL, D).V)
    ours = attempt(
        "pinn_engine, step .05 TU = .65 ms",
        partial(peers.own, "sheet", mesh=mesh, D=D, start=start, duration=duration / MS_PER_TU, max_step=0.05),
        partial(score, ms=MS_PER_TU),
        reference=True,
        headline="**this package**",
    )
    entries = [ours]
    for dt in (0.2,) if quick else (0.2, 0.05):
        given = {
            "points": mesh.points,
            "cells": mesh.cells,
            "stimulated": np.flatnonzero(mesh.points[:, 0] < 2.0),
            "dt": dt,
            "duration": duration,
            "sigma": conductivity_from_diffusivity(D),
            "parameters": [MODEL.a, MODEL.b, MODEL.k, MODEL.mu1, MODEL.mu2, MODEL.eps],
        }
        who = f"TorchCor on the CPU, step {dt:g} ms"
        entries.append(attempt(who, partial(peers.run, peers.TORCHCOR, given, True), score, headline=who if dt == 0.2 else ""))
    title = f"Simulation of {duration:g} ms on {len(mesh.points):,} nodes"
    return Section(title, ("error of the front's speed",), "run", tuple(entries))
