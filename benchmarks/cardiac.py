"""Accuracy of heart fits on phantoms whose truth comes from another grid than the fit's: `python benchmarks/cardiac.py ROW… [--draws 5]`.

Every row prints a line for each unseen noise draw and the median; baselines beside it: a constant (the true median of D) and smoothing with
the closed form (bi-Laplacian smoothing of the activation times, of three stiffnesses the one that is best against the truth, then
D = 1 / (c0^2 |grad T|^2); from V the times are the matched filter's). The atrium is simulated on its own mesh, or with `atrium-refined` on
one with every triangle split in four.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pinn_engine.cardiac import phantom, protocols, shapes
from pinn_engine.cardiac.beat import beats
from pinn_engine.cardiac.fem import Diffusion
from pinn_engine.cardiac.fit import equation_of, fit
from pinn_engine.cardiac.mapfit import at_nodes
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.nodes import apparent_speed
from pinn_engine.cardiac.pacing import last_beat
from pinn_engine.cardiac.read import HeartData, from_mesh, grids
from pinn_engine.cardiac.result import NodeStatus
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.starts import matched_filter, spline
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.files import mesh as meshes
from pinn_engine.files.grid import Grid
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.meshcheck import clean

MODEL, TU, MS = AlievPanfilov(), TimeUnit("tu"), 12.9
FIRST_SEED = 1000  # no fit was tuned on these


def square(D_map, seed, kind, planar=False, count=300):
    """A 10x10 mm square simulated at 0.1 mm; observed at its nodes, fitted on the coarser grid that `read` would choose."""
    mesh, grid = shapes.rectangle((10.0, 10.0), 0.1)
    D = D_map(mesh.points)
    start = protocols.planar(mesh, MODEL, 0.1) if planar else protocols.point(mesh, MODEL, 0.1, 0)
    run = _once(("square", kind == "V", planar, float(D.sum())), lambda: simulate(mesh, D, start, duration=70.0, frame_step=1.0))
    whole, coarse, up = grids(grid.shape, np.full(3, 0.1))
    inside = np.ones(len(mesh.points), bool)
    g = Grid(grid.shape, grid.affine)
    if kind == "V":
        V = phantom.observe_V(run.V, 0.05, 0.1, seed).astype(float)
        return HeartData(whole, coarse, up, inside, TU, None, V, run.times, g), D
    LAT = phantom.observe_LAT(run.LAT, count, 2.0 / MS, seed)
    return HeartData(whole, coarse, up, inside, TU, LAT, None, None, g), D


def paced(seed, period=80.0, beats=3):
    """The scar, its corner wave set off again every `period` TU in tissue that has not wholly recovered; 5 % of V of the whole record."""
    mesh, grid = shapes.rectangle((10.0, 10.0), 0.1)
    D = phantom.scar_map()(mesh.points)
    start = protocols.paced(mesh, MODEL, 0.1, at=0, period=period, beats=beats)
    run = _once(("paced", period, beats), lambda: simulate(mesh, D, start, duration=beats * period - 1.0, frame_step=1.0))
    whole, coarse, up = grids(grid.shape, np.full(3, 0.1))
    V = phantom.observe_V(run.V, 0.05, 0.1, seed).astype(float)
    g = Grid(grid.shape, grid.affine)
    return HeartData(whole, coarse, up, np.ones(len(mesh.points), bool), TU, None, V, run.times, g), D


_runs: dict = {}


def _once(key, make):
    if key not in _runs:
        _runs[key] = make()
    return _runs[key]


def surface(seed, count):
    """Ellipsoid simulated with 40,962 nodes, fitted on every fourth: 10,242; `count` activation times, or V of a tenth of the nodes."""
    fine, mesh = shapes.ellipsoid(level=6), shapes.ellipsoid(level=5)
    D_map = phantom.scar_map((10.0, 0.0, 0.0), 4.0, 1.0, 0.2)
    start = protocols.point(fine, MODEL, 1.0, POLE)
    n = len(mesh.points)
    if count is None:
        run = _once("surface-V", lambda: simulate(fine, D_map(fine.points), start, duration=70.0, frame_step=1.0))
        seen = np.random.default_rng(seed).choice(n, n // 10, replace=False)
        V = phantom.observe_V(run.V[:n], 1.0, 0.1, seed, seen).astype(float)
        return from_mesh(mesh, TU, V=V, times=run.times), D_map(mesh.points)
    run = _once("surface", lambda: simulate(fine, D_map(fine.points), start, duration=22.0))
    return from_mesh(mesh, TU, LAT=phantom.observe_LAT(run.LAT[:n], count, 2.0 / MS, seed)), D_map(mesh.points)


def refined(mesh):
    """Every triangle split in four flat ones; the old nodes first. Cell data go with their cell."""
    edges = np.sort(mesh.cells[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    ends, middle = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = middle.reshape(-1, 3).T + len(mesh.points)
    a, b, c = mesh.cells.T
    cells = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], axis=1).reshape(-1, 3)
    points = np.concatenate([mesh.points, mesh.points[ends].mean(axis=1)])
    return Mesh(
        points, cells, {}, {k: np.repeat(v, 4, axis=0) for k, v in mesh.cell_data.items()}, fibres=np.repeat(mesh.fibres, 4, axis=0)
    )


def atrium(seed, path, fine=False, count=500):
    """FiberNet's left atrium, D 15.6 along and 3.1 across the fibres, a fifth of it in its scar."""
    mesh = meshes.read(path)
    tidy = clean(mesh)
    m = refined(tidy.mesh) if fine else tidy.mesh
    scar = m.cell_data.get("scar", np.zeros(len(m.cells))).astype(float) > 0.5
    D = np.where(scar, 0.2 * 15.6, 15.6)
    start = protocols.point(m, MODEL, 15.6, 0)
    run = _once(("atrium", fine), lambda: simulate(m, Diffusion(D, 0.2 * D), start, duration=30.0))
    true = run.LAT[: len(tidy.mesh.points)]
    LAT = tidy.back(phantom.observe_LAT(true, count, 2.0 / MS, seed))
    return from_mesh(mesh, TimeUnit("ms"), LAT=LAT), true, tidy


STIFFNESS = (0.1, 1.0, 10.0)


def smoothing(data: HeartData, off) -> tuple[np.ndarray, np.ndarray]:
    """The classical way: (D, CV) on the input's nodes; of STIFFNESS the one whose `off(D, CV)` is least."""
    equation, _ = equation_of(data, None)
    samples = data.samples(0.1 if data.V is not None else 2.0 / MS)
    if data.V is not None:
        T, sharp, _ = matched_filter(equation.element, samples, beats([MODEL])[0])
        told = (sharp > 0.2 * sharp.median()).numpy()
        samples = at_nodes(np.flatnonzero(told), T.numpy()[told], 0.2)
    speeds = [apparent_speed(equation.element, spline(equation.element, samples, stiffness)) for stiffness in STIFFNESS]
    return min(((data.back_log(np.log(MODEL.diffusivity(speed))), data.back(speed)) for speed in speeds), key=lambda pair: off(*pair))


def scores(D, fitted, healthy, limit):
    scar = limit > D
    error = np.abs(fitted / D - 1.0)
    dice = 2.0 * np.sum(scar & (fitted < limit)) / max(np.sum(scar) + np.sum(fitted < limit), 1)
    return {"healthy": np.median(error[healthy < D]), "scar": np.median(error[scar]), "dice": dice}


@dataclass(frozen=True)
class MapCase:
    """A map to be found: `make(seed)` -> data and true D.

    `healthy` tissue's D, `limit` below which D is a scar's, `counted` above which it is scored as healthy; `start` of the wave (a node or a
    place, mm); `sd` of the data in their unit, None = not told (V).
    """

    make: Callable
    healthy: float = 0.1
    limit: float = 0.05
    counted: float = 0.09
    start: int | np.ndarray = 0
    sd: float | None = 2.0 / MS


POLE = np.array([0.0, 0.0, 13.0])


def hard(wavelength=None):
    return MapCase(lambda s: square(phantom.hard_map(wavelength=wavelength), s, "LAT"), counted=0.07)


def ellipsoid(count):
    return MapCase(lambda s: surface(s, count), 1.0, 0.5, 0.9, POLE, None if count is None else 2.0 / MS)


MAPS = {
    "scar-V": MapCase(lambda s: square(phantom.scar_map(), s, "V"), sd=None),
    "scar-LAT": MapCase(lambda s: square(phantom.scar_map(), s, "LAT")),
    "hard-LAT": hard(),
    "hard-5mm": hard(5.0),  # the same scars in a background of longer waves; hard-LAT: 3 mm
    "hard-8mm": hard(8.0),
    "hard-16mm": hard(16.0),
    "surface-1000": ellipsoid(1000),
    "surface-V": ellipsoid(None),
    "paced": MapCase(paced, sd=None),
    "surface-500": ellipsoid(500),
}


def map_row(case, seed):
    data, D = case.make(seed)
    begin, cpu = time.perf_counter(), time.process_time()
    found = fit(data, map=("D",), noise=case.sd)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    one = found.maps["D"]
    value, std = one.value.astype(float), one.std.astype(float)
    covers = np.mean(np.abs(np.log(value / D)) <= 1.645 * std / value)
    out = {**scores(D, value, case.counted, case.limit), "cover90": covers, "wall": wall, "cpu": cpu}
    plain, _ = smoothing(last_beat(data, MODEL)[0], lambda D_smooth, speed: -scores(D, D_smooth, case.counted, case.limit)["dice"])
    out |= {f"smooth_{k}": v for k, v in scores(D, plain, case.counted, case.limit).items()}
    return out | {f"const_{k}": v for k, v in scores(D, np.full(len(D), np.median(D)), case.counted, case.limit).items()}


def numbers_row(seed):
    data, _ = square(lambda p: np.full(len(p), 0.1), seed, "V", planar=True)
    begin, cpu = time.perf_counter(), time.process_time()
    found = fit(data, unknown=("D", "a", "b"), model=AlievPanfilov(a=0.02, b=0.3)).parameters
    out = {"D": found["D"].value / 0.1 - 1, "a": found["a"].value - 0.01, "b": found["b"].value / 0.15 - 1}
    z = [(found[n].value - t) / found[n].std for n, t in (("D", 0.1), ("a", 0.01), ("b", 0.15))]
    return {k: abs(v) for k, v in out.items()} | {
        "covered95": float(np.mean(np.abs(z) < 1.96)),
        "wall": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
    }


def atrium_row(seed, path, fine=False):
    data, true_LAT, tidy = atrium(seed, path, fine)
    begin, cpu = time.perf_counter(), time.process_time()
    found = fit(data, noise=2.0)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    element = equation_of(data, None)[0].element
    true = apparent_speed(element, torch.from_numpy(true_LAT)) / MS
    used = np.flatnonzero(tidy.node >= 0)
    value, std = (np.zeros(len(true)) for _ in range(2))
    value[tidy.node[used]], std[tidy.node[used]] = found.maps["CV"].value[used], found.maps["CV"].std[used]
    off = np.abs(value - true)

    def on_mesh(speed):
        plain = np.zeros(len(true))
        plain[tidy.node[used]] = speed[used] / MS
        return plain

    def smooth_off(D, speed):
        return np.median(np.abs(on_mesh(speed) - true))

    constant = np.median(np.abs(np.median(true) - true))
    inside = np.abs(np.log(value / true)) <= 1.645 * std / value
    fitted = np.zeros(len(true), bool)
    fitted[tidy.node[used]] = found.status[used] == NodeStatus.FITTED
    error = smooth_off(*smoothing(data, smooth_off))
    return {
        "CV": np.median(off),
        "smooth_CV": error,
        "const_CV": constant,
        "gain": 1 - np.median(off) / error,
        "cover90": np.mean(inside),
        "cover90_fitted": np.mean(inside[fitted]),
        "wall": wall,
        "cpu": cpu,
    }


ROWS = {
    "planar": numbers_row,
    **{name: partial(map_row, case) for name, case in MAPS.items()},
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("rows", nargs="*", default=[*ROWS])
    p.add_argument("--draws", type=int, default=5)
    p.add_argument("--first", type=int, default=0, metavar="N", help="start at this draw")
    p.add_argument("--atrium", metavar="LA_model.vtk", help="FiberNet's mesh: adds the rows `atrium` and `atrium-refined`")
    call = p.parse_args()
    rows = dict(ROWS)
    if call.atrium:
        rows["atrium"] = lambda s: atrium_row(s, call.atrium)
        rows["atrium-refined"] = lambda s: atrium_row(s, call.atrium, fine=True)
    torch.set_num_threads(1)
    for name in call.rows:
        results = []
        for draw in range(call.first, call.first + call.draws):
            results.append(rows[name](FIRST_SEED + draw))
            print(name, draw, "  ".join(f"{k} {v:.3g}" for k, v in results[-1].items()), flush=True)
        middle = {k: float(np.median([r[k] for r in results])) for k in results[0]}
        print(f"{name} MEDIAN of {len(results)}:", "  ".join(f"{k} {v:.3g}" for k, v in middle.items()), flush=True)


if __name__ == "__main__":
    main()
