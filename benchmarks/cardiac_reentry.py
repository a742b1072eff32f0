"""Waves that come back: D and V from sparse noisy V, the state at the first frame unknown. `python benchmarks/cardiac_reentry.py ROW…`.

Truth from a grid twice or four times finer than the fit's. Beside the fit: smoothing with the closed form (phase of the best cycle, then
D = 1/(c0 |grad T|)^2; V by local linear regression of the samples), a constant (the mean of V), and with --deepxde PYTHON the tutorial's
program in DeepXDE for the same CPU time (at most 300 s).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pinn_engine.cardiac import phantom, protocols, shapes
from pinn_engine.cardiac.cycles import read_V
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.numbers import with_floor
from pinn_engine.cardiac.read import HeartData, from_mesh, grids
from pinn_engine.cardiac.reentry import share_firing_again
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.state_fit import fit_state
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.files.grid import Grid
from pinn_engine.files.mesh import Mesh

MODEL, TU = AlievPanfilov(), TimeUnit("tu")
FIRST_SEED = 1000  # no fit was tuned on these
WINDOW = 20  # TU
HERE = Path(__file__).parent
_runs: dict = {}


def _once(key, make):
    if key not in _runs:
        _runs[key] = make()
    return _runs[key]


def square(seed: int, protocol, size: float = 10.0, begin: int = 100):
    """Simulated every 0.05 mm; a movie every 0.1 mm, 5 % of it seen; fitted on the grid of about 3,000 nodes that `read` would choose."""
    fine, grid = shapes.rectangle((size, size), 0.05)
    end = begin + WINDOW
    run = _once(protocol, lambda: simulate(fine, 0.1, protocol(fine), duration=float(end), frame_step=1.0, keep_W=True))
    still = bool((run.V[:, -1] > 0.5).any() & (run.V[:, -1] < 0.1).any())
    V, W = (x.reshape(*grid.shape[:2], -1)[::2, ::2, begin : end + 1] for x in (run.V, run.W))
    shape = (*V.shape[:2], 1)
    whole, coarse, up = grids(shape, np.full(3, 0.1))
    V, W = V.reshape(len(whole.points), -1), W.reshape(len(whole.points), -1)
    seen = phantom.observe_V(V, 0.05, 0.1, seed).astype(float)
    inside = np.ones(len(whole.points), bool)
    g = Grid(shape, np.diag([0.1, 0.1, 0.1, 1.0]))
    return HeartData(whole, coarse, up, inside, TU, None, seen, np.arange(WINDOW + 1.0), g), V, W, 0.1, still


def ball(seed: int, begin: int = 60):
    """A sphere of 10 mm, re-entry round its axis: simulated with 51,842 nodes, fitted on 12,962 of them, of whose V 20 % is seen."""
    coarse = geodesic(10.0, 9, 2)
    fine = geodesic(10.0, 9, 3)
    end = begin + WINDOW
    start = protocols.reentry(fine, MODEL)
    run = _once("ball", lambda: simulate(fine, 0.2, start, duration=float(end), frame_step=1.0, keep_W=True))
    still = bool((run.V[:, -1] > 0.5).any() & (run.V[:, -1] < 0.1).any())
    V, W = (x[: len(coarse.points), begin:] for x in (run.V, run.W))
    seen = phantom.observe_V(V, 0.2, 0.1, seed).astype(float)
    return from_mesh(coarse, TU, V=seen, times=np.arange(WINDOW + 1.0)), V, W, 0.2, still


def geodesic(radius: float, frequency: int, splits: int) -> Mesh:
    """An icosahedron, each edge in `frequency` parts, then every triangle split in four `splits` times; old nodes stay first."""
    base = shapes.sphere(1.0, 0)
    points, cells = [], []
    for face in base.points[base.cells]:
        place = {}
        for i in range(frequency + 1):
            for j in range(frequency + 1 - i):
                place[i, j] = len(points)
                points.append(((frequency - i - j) * face[0] + i * face[1] + j * face[2]) / frequency)
        for i in range(frequency):
            for j in range(frequency - i):
                cells.append((place[i, j], place[i + 1, j], place[i, j + 1]))
                if i + j < frequency - 1:
                    cells.append((place[i + 1, j], place[i + 1, j + 1], place[i, j + 1]))
    unique, inverse = np.unique(np.round(points, 9), axis=0, return_inverse=True)
    unique, faces = radius * unique / np.linalg.norm(unique, axis=1, keepdims=True), inverse.ravel()[np.array(cells)]
    for _ in range(splits):
        unique, faces = shapes._split_in_four(unique, faces)
    return Mesh(unique, faces, source="sphere")


ROWS = {
    "spiral": lambda seed: square(seed, _spiral),
    "breakup": lambda seed: square(seed, _break_up, size=14.0, begin=14),
    "breakup-other": lambda seed: square(seed, _break_up_other, size=14.0, begin=20),
    "sphere": ball,
}


def _spiral(mesh):
    return protocols.spiral(mesh, MODEL, 0.1)


def _break_up(mesh):
    """Of seeds 1-10 (simulated at 0.1 mm, 60 TU): five die out; here fronts break and merge (2, 4, 2 tips)."""
    return protocols.break_up(mesh, MODEL, 6.0, seed=8)


def _break_up_other(mesh):
    """Four tips that become two."""
    return protocols.break_up(mesh, MODEL, 6.0, seed=4)


def tips(V: np.ndarray, W: np.ndarray) -> np.ndarray:
    """(X, Y, F) twice -> (F,) the points round which V and W turn once: the tips of the wavelets."""
    angle = np.angle((V - 0.4) + 0.5j * (W - 1.0))
    corner = angle[:-1, :-1], angle[1:, :-1], angle[1:, 1:], angle[:-1, 1:]
    turns = sum(np.mod(after - before + np.pi, 2.0 * np.pi) - np.pi for before, after in zip(corner, corner[1:] + corner[:1], strict=True))
    return (np.abs(turns) > np.pi).sum(axis=(0, 1))


def row(name: str, seed: int, deepxde: str | None) -> dict[str, float]:
    data, V, W, D, still = ROWS[name](seed)
    again = share_firing_again(data)
    samples = data.samples(0.1)
    begin, cpu = time.perf_counter(), time.process_time()
    found = fit_state(data.mesh, samples, data.times, MODEL)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    V_fit, W_fit = data.back(found.V), data.back(found.W)
    n = V_fit.shape[1]
    element = elements(data.mesh)
    middle = [read_V(element, samples, t, data.mesh.points, np.full(len(data.mesh.points), 0.3)) for t in (5.0, 10.0, 15.0)]
    smooth = np.stack([data.back(x) for x in middle], axis=1)
    sd = float(with_floor(found.solution.covariance[0].numpy(), ("D",), found.D)[0, 0] ** 0.5)
    out = {
        "nodes": len(data.mesh.points),
        "turning": float(still),
        **_tips(data, V, W),
        "fires_again": again,
        "frames": n,
        "D_error": abs(found.D / D - 1),
        "D": found.D,
        "D_sd": sd,
        "covered95": float(abs(found.D - D) < 1.96 * sd),
        "V_rmse": rmse(V_fit, V[:, :n]),
        "W_rmse": rmse(W_fit, W[:, :n]),
        "wall": wall,
        "cpu": cpu,
        "uncorrected_D_error": abs(found.D / found.slowing / D - 1),
        "smooth_D_error": abs(found.guess_D / D - 1),
        "smooth_V_rmse": rmse(smooth, V[:, [5, 10, 15]]),
        "const_V_rmse": float(V.std()),
    }
    if deepxde and data.grid is not None:
        out |= {f"deepxde_{k}": v for k, v in tutorial(deepxde, data, V, D, min(cpu, 300.0)).items()}
    return out


def _tips(data: HeartData, V: np.ndarray, W: np.ndarray) -> dict[str, float]:
    """How many wavelets the truth has, where it stands on a grid."""
    if data.grid is None:
        return {}
    shape = (*data.grid.shape[:2], -1)
    count = tips(V.reshape(shape), W.reshape(shape))
    return {"tips_least": float(count.min()), "tips_most": float(count.max())}


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def tutorial(python: str, data: HeartData, V: np.ndarray, D: float, seconds: float, names: str = "D") -> dict[str, float]:
    """The tutorial's set-up in DeepXDE (peers/run_deepxde_heart.py) on the same samples for `seconds`."""
    node, frame = np.nonzero(np.isfinite(data.V))
    picked = np.random.default_rng(0).integers(0, V.size, 4000)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        at = [np.column_stack([data.whole.points[i, :2], data.times[j]]) for i, j in ((node, frame), np.unravel_index(picked, V.shape))]
        np.savez(given, samples=at[0], value=data.V[node, frame], where=at[1], seconds=seconds, names=names, D=2.0 * D, a=0.02, b=0.3)
        subprocess.run(
            [python, str(HERE / "peers/run_deepxde_heart.py"), str(given), str(made)], check=True, capture_output=True, text=True
        )
        with np.load(made) as result:
            out = {"D_error": abs(float(result["D"]) / D - 1), "V_rmse": rmse(result["V"], V.ravel()[picked])}
            return out | {k: float(result[k]) for k in ("a", "b", "iterations", "seconds")}


def planar(seed: int, seconds: float):
    """The planar wave of benchmarks/cardiac.py: D, a and b free."""
    mesh, grid = shapes.rectangle((10.0, 10.0), 0.1)
    run = _once("planar", lambda: simulate(mesh, 0.1, protocols.planar(mesh, MODEL, 0.1), duration=70.0, frame_step=1.0))
    V = phantom.observe_V(run.V, 0.05, 0.1, seed).astype(float)
    whole, coarse, up = grids(grid.shape, np.full(3, 0.1))
    return HeartData(whole, coarse, up, np.ones(len(mesh.points), bool), TU, None, V, run.times, Grid(grid.shape, grid.affine)), run.V


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("rows", nargs="*", default=[*ROWS])
    p.add_argument("--draws", type=int, default=5)
    p.add_argument("--first", type=int, default=0, metavar="N", help="start at this draw")
    p.add_argument("--deepxde", metavar="PYTHON", help="interpreter of an environment with deepxde and torch")
    p.add_argument("--seconds", type=float, default=120.0, help="for DeepXDE on the planar wave (row deepxde-planar)")
    call = p.parse_args()
    torch.set_num_threads(1)
    for name in call.rows:
        results = []
        for draw in range(call.first, call.first + call.draws):
            if name == "deepxde-planar":
                data, V = planar(FIRST_SEED + draw, call.seconds)
                results.append(tutorial(call.deepxde, data, V, 0.1, call.seconds, "D,a,b"))
            else:
                results.append(row(name, FIRST_SEED + draw, call.deepxde))
            print(name, draw, "  ".join(f"{k} {v:.3g}" for k, v in results[-1].items()), flush=True)
        middle = {k: float(np.median([r[k] for r in results])) for k in results[0]}
        print(f"{name} MEDIAN of {len(results)}:", "  ".join(f"{k} {v:.3g}" for k, v in middle.items()), flush=True)


if __name__ == "__main__":
    main()
