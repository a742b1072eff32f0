"""Field networks V, W(x, t): `python benchmarks/cardiac_fields.py ROW… [--draws 5] [--threads 1]`.

Rows: `forward` (planar front on 10 x 10 mm, 70 TU, no data; truth: a strip at 0.025 mm), `spiral` (20 TU of a sustained spiral, 5 % of V,
noise 0.1, W hidden, start 2x off; truth: the simulator at 0.1 mm) and `sphere` (10,242 nodes of a sphere of 10 mm, a pair of re-entries,
20 % of V, noise 0.1; truth: 40,962 nodes), `small-sphere` (2,562 nodes of 5 mm, 10 TU). Beside each: a constant (the mean of V), and, for
V, the samples smoothed in place and time.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch

from pinn_engine.cardiac import phantom, protocols, shapes
from pinn_engine.cardiac.from_network import fit_network
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.network.forward import Settings, solve
from pinn_engine.cardiac.network.places import Places, box
from pinn_engine.cardiac.read import HeartData, from_mesh, grids
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.units import TimeUnit

MODEL, TU, FIRST_SEED = AlievPanfilov(), TimeUnit("tu"), 2000  # no fit was tuned on these


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def forward(seed: int, duration: float = 70.0, D: float = 0.1) -> dict[str, float]:
    strip, _ = shapes.rectangle((10.0, 0.1), 0.025)
    run = simulate(strip, D, protocols.planar(strip, MODEL, D), duration=duration, frame_step=1.0, keep_W=True)
    line = np.flatnonzero(strip.points[:, 1] == 0.0)[::4]
    mesh, _ = shapes.rectangle((10.0, 10.0), 0.1)
    column = np.rint(mesh.points[:, 0] / 0.1).astype(int)
    places = box(mesh.points[:, :2], np.zeros(2), np.full(2, 10.0), 5)
    begin, cpu = time.perf_counter(), time.process_time()
    start = protocols.planar(mesh, MODEL, D).V
    found = solve(Places(places.jets.float()), MODEL, D, start, 0.0, run.times, Settings(seed=seed))
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    V, W = run.V[line][column], run.W[line][column]
    frames = np.sqrt(np.mean((found.V - V) ** 2, axis=0))
    return {
        "V": rms(found.V - V),
        "V_worst_frame": float(frames.max()),
        "relative_V": rms(found.V - V) / rms(V),
        "W": rms(found.W - W),
        "constant_V": rms(V - V.mean()),
        "residual": max(found.residual),
        "wall": wall,
        "cpu": cpu,
    }


_truths: dict = {}


def spiral(seed: int) -> dict[str, float]:
    mesh, grid = shapes.rectangle((10.0, 10.0), 0.1)
    if "spiral" not in _truths:
        _truths["spiral"] = simulate(mesh, 0.1, protocols.spiral(mesh, MODEL, 0.1), duration=80.0, frame_step=1.0, keep_W=True)
    run = _truths["spiral"]
    V, W = run.V[:, 60:].astype(float), run.W[:, 60:].astype(float)
    whole, coarse, up = grids(grid.shape, np.full(3, 0.1))
    seen = phantom.observe_V(V, 0.05, 0.1, seed).astype(float)
    data = HeartData(whole, coarse, up, np.ones(len(whole.points), bool), TU, None, seen, run.times[60:], grid)
    return inverse(data, V, W, 0.1)


def sphere(seed: int, D: float = 0.2, radius: float = 10.0, level: int = 5, end: float = 60.0) -> dict[str, float]:
    """From 40 to `end` TU; the truth has four times the nodes."""
    fine, mesh = shapes.sphere(radius, level + 1), shapes.sphere(radius, level)
    key = f"sphere {radius} {level}"
    if key not in _truths:
        _truths[key] = simulate(fine, D, protocols.reentry(fine, MODEL), duration=end, frame_step=1.0, keep_W=True)
    run, count = _truths[key], len(mesh.points)
    V, W = run.V[:count, 40:].astype(float), run.W[:count, 40:].astype(float)
    seen = phantom.observe_V(V, 0.2, 0.1, seed).astype(float)
    return inverse(from_mesh(mesh, TU, V=seen, times=run.times[40:]), V, W, D)


def inverse(data: HeartData, V: np.ndarray, W: np.ndarray, D: float) -> dict[str, float]:
    """Start 2x off, noise not told."""
    begin, cpu = time.perf_counter(), time.process_time()
    found = fit_network(data, MODEL, ("D",), None, 0, lambda stage, done: None, D=0.5 * D)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    assert found.V is not None
    assert found.W is not None
    one = found.parameters["D"]
    return {
        "D": one.value / D - 1.0,
        "D_network": found.settings["stages"][-1]["D"] / D - 1.0,
        "covered95": float(abs(one.value - D) < 1.96 * one.std),
        "V": rms(found.V - V),
        "W": rms(found.W - W),
        "constant_V": rms(V - V.mean()),
        "smooth_V": rms(smoothed(data) - V),
        "wall": wall,
        "cpu": cpu,
    }


def smoothed(data: HeartData, reach: float = 0.6, late: float = 1.0) -> np.ndarray:
    """The nearest samples in place and time, weighted as a Gaussian of `reach` mm and `late` TU would (ten at most 3 sd away)."""
    from scipy.spatial import cKDTree

    assert data.V is not None
    assert data.times is not None
    node, frame = np.nonzero(np.isfinite(data.V))
    at = np.column_stack([data.whole.points[node] / reach, data.times[frame] / late])
    tree = cKDTree(at)
    out = np.empty_like(data.V)
    for k, t in enumerate(data.times):
        asked = np.column_stack([data.whole.points / reach, np.full(len(data.whole.points), t / late)])
        distance, index = tree.query(asked, k=10)
        weight = np.exp(-0.5 * distance**2) + 1e-9
        out[:, k] = (weight * data.V[node, frame][index]).sum(axis=1) / weight.sum(axis=1)
    return out


ROWS = {"forward": forward, "spiral": spiral, "sphere": sphere, "small-sphere": partial(sphere, radius=5.0, level=4, end=50.0)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("rows", nargs="*", default=[*ROWS])
    p.add_argument("--draws", type=int, default=5)
    p.add_argument("--first", type=int, default=0, metavar="N", help="start at this draw")
    p.add_argument("--threads", type=int, default=1)
    call = p.parse_args()
    torch.set_num_threads(call.threads)
    for name in call.rows:
        results = []
        for draw in range(call.first, call.first + call.draws):
            results.append(ROWS[name](FIRST_SEED + draw))
            print(name, draw, "  ".join(f"{k} {v:.3g}" for k, v in results[-1].items()), flush=True)
        middle = {k: float(np.median([abs(r[k]) for r in results])) for k in results[0]}
        print(f"{name} MEDIAN of {len(results)}:", "  ".join(f"{k} {v:.3g}" for k, v in middle.items()), flush=True)


if __name__ == "__main__":
    main()
