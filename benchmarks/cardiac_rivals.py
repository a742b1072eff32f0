"""Maps of D by what one would take instead, on the rows of `cardiac.py`: `python -m benchmarks.cardiac_rivals ROW… [--deepxde PYTHON]`.

With `--atrium LA_model.vtk` the row `atrium` too, by its own measure: median error of CV, m/s. The rival's CV is read from a run of the
simulator with its D, as the truth is from one with the true D, on the same mesh: the grid's error is in both.

Fit over the simulator (simulator_fit.py), generous: the true start of the wave (place and shape) is given, the grid's slowing corrected, it
begins at the smoothed closed form's map; the `weight` of its prior to be taken is the one of three that is best *against the truth*. Looked
at after our fit's own CPU seconds and after `--times` of them.

DeepXDE (V on squares): the tutorial's program with D(x, y) a second network as in EP-PINNs, D's true range given; for our fit's CPU seconds
and for `--seconds`. It takes V, not activation times.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pinn_engine.cardiac import protocols
from pinn_engine.cardiac.fem import Diffusion
from pinn_engine.cardiac.fit import ACROSS, equation_of, fit
from pinn_engine.cardiac.nodes import apparent_speed, at_nodes
from pinn_engine.cardiac.read import HeartData
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.starts import spline

from .cardiac import FIRST_SEED, MAPS, MODEL, MS, STIFFNESS, atrium, scores, smoothing
from .simulator_fit import CENTRES, Simulated, simulator_fit

WEIGHTS = (1.0, 5.0, 25.0)
HERE = Path(__file__).parent


def tutorial(python: str, data: HeartData, seconds: float) -> tuple[np.ndarray, int]:
    """D (N,) by the tutorial's program with a network for D, and its iterations."""
    node, frame = np.nonzero(np.isfinite(data.V))
    at = np.column_stack([data.whole.points[node, :2], data.times[frame]])
    where = np.column_stack([data.whole.points[:, :2], np.zeros(len(data.whole.points))])
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        np.savez(given, samples=at, value=data.V[node, frame], where=where, seconds=seconds, names="map", low=0.02, high=0.1)
        subprocess.run([python, str(HERE / "peers/run_deepxde_heart.py"), str(given), str(made)], check=True, capture_output=True)
        with np.load(made) as result:
            return result["D"], int(result["iterations"])


def simulated(problem: Simulated, first: np.ndarray, weight: float, cpu: float, times: float):
    """(which look, D (N,) of the simulator, steps) after our fit's CPU seconds and after `times` of them."""
    looks = simulator_fit(problem, first, weight, [cpu, times * cpu])
    return [(name, found, f"steps {steps}") for name, (found, steps) in zip(("", f" x{times:g}"), looks, strict=True)]


def map_row(name: str, call: argparse.Namespace) -> None:
    case = MAPS[name]
    data, D = case.make(call.seed)

    def tell(what, map, more=""):
        found = scores(D, map, case.counted, case.limit)
        print(name, call.seed, what, "  ".join(f"{k} {v:.3g}" for k, v in found.items()), more, flush=True)

    cpu = time.process_time()
    ours = fit(data, map=("D",), noise=case.sd)
    cpu = time.process_time() - cpu
    tell("ours", ours.maps["D"].value.astype(float), f"cpu {cpu:.1f}")
    smooth, _ = smoothing(data, lambda found, speed: -scores(D, found, 0.0, case.limit)["dice"])
    tell("smoothing", smooth)
    tell("constant", np.full(len(D), np.median(D)))
    problem = Simulated(data, MODEL, case.healthy, case.start, case.sd or 0.1, call.centres)
    for weight in call.weights:
        for look, found, more in simulated(problem, _on_mesh(data, smooth), weight, cpu, call.times):
            tell(f"simulator{look}, weight {weight:g}", data.back_log(np.log(problem.slowing * found)), more)
    if call.deepxde and case.sd is None and data.grid is not None:
        for seconds in (cpu, call.seconds):
            found, steps = tutorial(call.deepxde, data, seconds)
            tell(f"deepxde {seconds:.0f} s", found, f"iterations {steps}")


def atrium_row(call: argparse.Namespace) -> None:
    data, LAT, _ = atrium(call.seed, call.atrium)
    problem = Simulated(data, MODEL, 15.6, 0, 2.0 / MS, call.centres)
    element = problem.element
    true = apparent_speed(element, torch.from_numpy(LAT)) / MS

    def off(speed):
        """`speed` (N,) m/s on the fitted nodes."""
        return np.median(np.abs(speed - true))

    def tell(what, speed, more=""):
        print("atrium", call.seed, what, f"CV {off(speed):.4f}", more, flush=True)

    cpu = time.process_time()
    ours = fit(data, noise=2.0)
    cpu = time.process_time() - cpu
    tell("ours", _on_mesh(data, ours.maps["CV"].value), f"cpu {cpu:.1f}")
    equation, samples = equation_of(data, None)[0], data.samples(2.0 / MS)
    T = min((spline(element, samples, stiffness) for stiffness in STIFFNESS), key=lambda T: off(apparent_speed(element, T) / MS))
    tell("smoothing", apparent_speed(element, T) / MS)
    tell("constant", np.full(len(true), np.median(true)))
    slope = element.gradient(T)
    closed = MODEL.diffusivity((slope * equation.along(slope)).sum(dim=1).clamp_min(1e-9) ** -0.5)  # along the fibres
    first = at_nodes(element, closed.log()).exp().numpy()
    for weight in call.weights:
        for look, found, more in simulated(problem, first, weight, cpu, call.times):
            begun = protocols.point(data.mesh, MODEL, 15.6, 0)
            run = simulate(data.mesh, Diffusion(found, ACROSS * found), begun, duration=60.0)
            tell(f"simulator{look}, weight {weight:g}", apparent_speed(element, torch.from_numpy(run.LAT)) / MS, more)


def _on_mesh(data: HeartData, values: np.ndarray) -> np.ndarray:
    """(N,) on the input's nodes -> (N',): the mean of those that a fitted node gives its value to."""
    return data.to_input.T @ values / np.maximum(np.asarray(data.to_input.sum(axis=0)).ravel(), 1e-9)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("rows", nargs="+", choices=["atrium", *(name for name in MAPS if name != "paced")])
    p.add_argument("--seed", type=int, default=FIRST_SEED)
    p.add_argument("--times", type=float, default=10.0, help="the longer look, in CPU seconds of our fit")
    p.add_argument("--weights", type=float, nargs="*", default=WEIGHTS, help="of the simulator fit's prior")
    p.add_argument("--centres", type=int, default=CENTRES, help="unknowns of the simulator fit")
    p.add_argument("--atrium", metavar="LA_model.vtk", help="FiberNet's mesh, for the row `atrium`")
    p.add_argument("--deepxde", metavar="PYTHON", help="interpreter of an environment with deepxde and torch: rows of V on squares")
    p.add_argument("--seconds", type=float, default=300.0, help="CPU seconds of DeepXDE's longer look")
    call = p.parse_args()
    if "atrium" in call.rows and not call.atrium:
        p.error("the row atrium needs --atrium LA_model.vtk")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # ahead of the front slopes are 1e-40: five times slower
    for name in call.rows:
        atrium_row(call) if name == "atrium" else map_row(name, call)


if __name__ == "__main__":
    main()
