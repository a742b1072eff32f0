"""Maps of D by what one would take instead, on the rows of `cardiac.py`: `python -m benchmarks.cardiac_rivals ROW… [--deepxde PYTHON]`.

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

from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.read import HeartData

from .cardiac import FIRST_SEED, MAPS, MODEL, scores, smoothing
from .simulator_fit import Simulated, simulator_fit

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


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("rows", nargs="+", choices=[name for name in MAPS if name != "paced"])
    p.add_argument("--seed", type=int, default=FIRST_SEED)
    p.add_argument("--times", type=float, default=10.0, help="the longer look, in CPU seconds of our fit")
    p.add_argument("--weights", type=float, nargs="*", default=WEIGHTS, help="of the simulator fit's prior")
    p.add_argument("--deepxde", metavar="PYTHON", help="interpreter of an environment with deepxde and torch: rows of V on squares")
    p.add_argument("--seconds", type=float, default=300.0, help="CPU seconds of DeepXDE's longer look")
    call = p.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # ahead of the front slopes are 1e-40: five times slower
    for name in call.rows:
        case = MAPS[name]
        data, D = case.make(call.seed)

        def tell(what, map, more="", D=D, name=name, case=case):
            found = scores(D, map, case.counted, case.limit)
            print(name, call.seed, what, "  ".join(f"{k} {v:.3g}" for k, v in found.items()), more, flush=True)

        cpu = time.process_time()
        ours = fit(data, map=("D",), noise=case.sd)
        cpu = time.process_time() - cpu
        tell("ours", ours.maps["D"].value.astype(float), f"cpu {cpu:.1f}")
        smooth, _ = smoothing(data, lambda found, speed, D=D, case=case: -scores(D, found, 0.0, case.limit)["dice"])
        tell("smoothing", smooth)
        tell("constant", np.full(len(D), np.median(D)))
        on_mesh = data.to_input.T @ smooth / np.maximum(np.asarray(data.to_input.sum(axis=0)).ravel(), 1e-9)
        problem = Simulated(data, MODEL, case.healthy, case.start, case.sd or 0.1)
        ends = [cpu, call.times * cpu]
        for weight in call.weights:
            for end, (found, steps) in zip(("", f" x{call.times:g}"), simulator_fit(problem, on_mesh, weight, ends), strict=True):
                tell(f"simulator{end}, weight {weight:g}", data.back_log(np.log(found)), f"steps {steps}")
        if call.deepxde and case.sd is None and data.grid is not None:
            for seconds in (cpu, call.seconds):
                found, steps = tutorial(call.deepxde, data, seconds)
                tell(f"deepxde {seconds:.0f} s", found, f"iterations {steps}")


if __name__ == "__main__":
    main()
