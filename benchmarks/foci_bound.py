"""How much of its contrast a focus can keep at all: `python -m benchmarks.foci_bound [--spacing 3] [--expected 10,100,750]`.

A detector that is told what no fit can know: flow and arrival of the brain without foci, exactly; that foci are balls of the phantom's
six radii, how often each; that they change flow by 40 %. Left to find: where they are, how many, and whether flow is up or down. Each
candidate (a centre, a radius, a sign) is weighed by its exact likelihood, those nearer than 10.5 mm are alternatives to each other, and the
map is the mean over them. `--expected` foci a brain is the prior; the truth is 10. The phantoms are those of `benchmarks.spatial`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM, RADII
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.asl.spatial.balls import Balls
from pinn_engine.asl.spatial.foci import APART

from .spatial import SHAPES, SNR_3MM, Found, capped, expected_z, kept

CHANGE = 0.4
BAND = 20.0  # of log likelihoods whose exponentials one transform sums: the rounding of larger ones would drown the rest


def log_near(log: np.ndarray, balls: Balls, ball: int) -> np.ndarray:
    """(V,) log of 1 + the sum of exp(`log`) (V,) over a ball around each voxel."""
    parts, band = [np.zeros_like(log)], np.maximum(np.floor(log / BAND), 0)
    for k in np.unique(band):
        inside = band == k
        weight = np.exp(np.where(inside, log - k * BAND, -np.inf))
        sums = balls.spread(torch.as_tensor(np.stack([weight, inside.astype(float)], axis=1)), ball).numpy()
        parts.append(np.where(sums[:, 1] > 0.5, np.log(np.maximum(sums[:, 0], 1e-300)) + k * BAND, -np.inf))
    return np.logaddexp.reduce(parts)


def detected(p: Phantom, balls: Balls, radii: tuple[float, ...], noise: np.ndarray, expected: float) -> np.ndarray:
    """(X, Y, Z) CBF as the detector has it, from one draw of unit `noise` (V,) in the voxels that hold flow."""
    inside = p.mask & (p.cbf > 0)
    relative = np.zeros(p.mask.shape)
    for one in p.lesions:
        relative[p.lesion == one.label] = one.contrast
    without = (p.cbf / (1 + relative))[inside].astype(float)
    information = np.square(without * expected_z(p)[inside])  # on a relative change of flow
    score = relative[inside] * information + np.sqrt(information) * noise
    sums = balls.forward(torch.as_tensor(np.stack([score, information], axis=1)))
    logs = {}
    for ball, radius in enumerate(radii):
        pulled, known = balls.total(sums, ball).numpy().T
        prior = np.log(expected * RADII.count(radius) / len(RADII) / 2 / len(without))
        for change in (CHANGE, -CHANGE):
            logs[ball, change] = prior + change * pulled - 0.5 * change**2 * known
    near = log_near(np.logaddexp.reduce(list(logs.values())), balls, len(radii))
    found = sum(change * balls.spread(torch.as_tensor(np.exp(log - near))[:, None], ball)[:, 0] for (ball, change), log in logs.items())
    out = np.zeros(p.mask.shape)
    out[inside] = without * (1 + np.asarray(found))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", default="201,202,203,205,206")
    parser.add_argument("--spacing", type=float, default=3.0, choices=list(SHAPES))
    parser.add_argument("--expected", default="10,100,750", help="foci a brain, before the data")
    parser.add_argument("--draws", type=int, default=4, help="of noise, a brain")
    o = parser.parse_args()
    radii = tuple(sorted(set(RADII)))
    brains = [
        asl.phantom(SHAPES[o.spacing], o.spacing, int(seed), snr=SNR_3MM * (o.spacing / 3.0) ** 1.5, lesions=True, territories=True)
        for seed in o.seeds.split(",")
    ]
    for expected in (float(part) for part in o.expected.split(",")):
        foci: list[Found] = []
        squares = []
        for p in brains:
            inside = p.mask & (p.cbf > 0)
            balls = Balls(np.nonzero(inside), np.full(3, o.spacing), (*radii, APART))
            rng = np.random.default_rng(0)
            for _ in range(o.draws):
                cbf = detected(p, balls, radii, rng.standard_normal(int(inside.sum())), expected)
                foci += kept(p, cbf, set())
                squares.append(np.square(cbf - p.cbf)[p.tissue == GM].mean())
        by_radius = [f"{radius:g} mm {capped(f for f in foci if f.radius == radius):.2f}" for radius in radii]
        words = f"{capped(foci):.2f} of the contrast kept ({', '.join(by_radius)}), RMSE of GM CBF {np.mean(squares) ** 0.5:.2f}"
        print(f"{o.spacing:g} mm voxels, {expected:g} foci expected: {words}", flush=True)


if __name__ == "__main__":
    main()
