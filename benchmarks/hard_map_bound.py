"""What 300 activation times can tell about the harder map: `python -m benchmarks.hard_map_bound [--count 300] [--seed 0] [--wavelength 3]`.

A fit that is told what no fit can know: where the scars and the isthmus are and how slow, and the covariance the background was drawn from
(log-normal, sd 0.25, squared-exponential). Only the background is left to find, under its own true prior, with the same equation and data.
Its error is near the least that any method can reach on average; the flat background's error stands beside it.

With `--tell background` the fit is told the background exactly and finds the scars under the package's own prior on pieces: what the times
tell of borders.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import diags
from scipy.sparse.linalg import splu

from benchmarks.cardiac import MODEL, MS, scores, square
from pinn_engine.cardiac import phantom
from pinn_engine.cardiac.fit import equation_of
from pinn_engine.cardiac.lat import fit_lat
from pinn_engine.cardiac.mapfit import MapProblem
from pinn_engine.cardiac.path import UNDER, WARM
from pinn_engine.core.sparse import SparseGaussNewton, assemble, total

SPREAD = 0.25  # of phantom.hard_map: sd of log D


def background(points: np.ndarray, wavelength: float) -> np.ndarray:
    """(N, K) columns whose normal mixture has the covariance at `points` (N, 3) of a background of `wavelength` mm."""
    number = 2.0 * np.pi / wavelength / 2.0**0.5  # sd of the wave numbers, 1/mm
    gap = ((points[:, None, :2] - points[None, :, :2]) ** 2).sum(axis=-1)
    value, vector = np.linalg.eigh(SPREAD**2 * np.exp(-0.5 * number**2 * gap))
    kept = value > 1e-4 * value.max()
    return vector[:, kept] * np.sqrt(value[kept])


def damped_step(TT, Tc: np.ndarray, cc: np.ndarray, by_T: np.ndarray, by_c: np.ndarray, mu: float) -> tuple[np.ndarray, np.ndarray]:
    """-(H + mu diag H)^-1 slope for H = [[TT, Tc], [Tc', cc]], its large sparse block eliminated."""
    factor = splu((TT + mu * diags(TT.diagonal())).tocsc())
    solved = factor.solve(Tc)
    small = cc + mu * np.diag(np.diag(cc)) - Tc.T @ solved
    c = -cho_solve(cho_factor(small), by_c - solved.T @ by_T)
    return -factor.solve(by_T) - solved @ c, c


def told(count: int, seed: int, number: int, wavelength: float = 3.0) -> dict[str, float]:
    data, D = square(phantom.hard_map(seed=number, wavelength=wavelength), seed, "LAT", count=count)
    equation, _ = equation_of(data, None)
    samples = data.samples(2.0 / MS)
    flat = phantom.hard_map(seed=number, spread=0.0)
    mean, basis = np.log(flat(data.mesh.points)), background(data.mesh.points, wavelength)
    problem = MapProblem(equation, samples, MODEL, 0.1, 0.0)
    T, c, mu = fit_lat(equation, samples, MODEL, sd=2.0 / MS, strength=0.25, draws=2).T.copy(), np.zeros(basis.shape[1]), 1e-3
    n = len(T)
    problem.advance(torch.from_numpy(np.concatenate([T, mean])))

    def terms(T, c):
        every = problem.terms(torch.from_numpy(np.concatenate([T, mean + basis @ c])))
        return {name: every[name] for name in ("data", "equation", "smooth")}

    for _ in range(25):
        now = terms(T, c)
        cost = total(now) + 0.5 * c @ c
        normal = assemble(now, 2 * n)
        by_T, by_c = normal.jacobian[:, :n], normal.jacobian[:, n:] @ basis
        parts = by_T.T @ by_T, np.asarray(by_T.T @ by_c), by_c.T @ by_c + np.eye(len(c))
        slope = normal.gradient.numpy()
        for _ in range(8):
            along_T, along_c = damped_step(*parts, slope[:n], basis.T @ slope[n:] + c, mu)
            new = total(terms(T + along_T, c + along_c)) + 0.5 * np.sum((c + along_c) ** 2)
            if new < cost:
                break
            mu *= 5.0
        if not new < cost:
            break
        T, c, mu = T + along_T, c + along_c, max(0.2 * mu, 1e-7)
        if cost - new < 1e-3 * cost:
            break
    found = scores(D, data.back_log(mean + basis @ c), 0.07, 0.05)
    whole = flat(data.whole.points)
    return {**found, "healthy_flat_background": float(np.median(np.abs(whole / D - 1.0)[D > 0.07]))}


class OverKnown(MapProblem):
    """Total variation on what u has beside a `known` background, (N,) log of it."""

    known: torch.Tensor

    def pieces(self, theta: torch.Tensor) -> torch.Tensor:
        return self.split(theta)[1] - self.known


def told_background(count: int, seed: int, number: int, wavelength: float = 3.0) -> dict[str, float]:
    D_map, flat = phantom.hard_map(seed=number, wavelength=wavelength), phantom.hard_map(seed=number, spread=0.0)
    data, D = square(D_map, seed, "LAT", count=count)
    equation, _ = equation_of(data, None)
    samples = data.samples(2.0 / MS)
    theta = fit_lat(equation, samples, MODEL, sd=2.0 / MS, strength=UNDER, draws=2).solution.theta
    problem = OverKnown(equation, samples.with_sd(2.0 / MS), MODEL, 0.1, UNDER)
    problem.rounding = problem.tuning.rounding[1]
    problem.known = torch.from_numpy(np.log(D_map(data.mesh.points) / flat(data.mesh.points)))
    theta = SparseGaussNewton(12, relative=1e-3, damping=WARM).solve(problem, theta).theta
    problem.spare(theta)
    theta = SparseGaussNewton(12, relative=1e-3, damping=WARM).solve(problem, theta).theta
    return scores(D, data.back_log(problem.split(theta)[1].numpy()), 0.07, 0.05)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--seed", type=int, default=0, help="of the first draw")
    p.add_argument("--draws", type=int, default=1)
    p.add_argument("--wavelength", type=float, default=3.0, metavar="MM", help="of the background; default %(default)s, the scored map's")
    p.add_argument("--tell", choices=("scars", "background"), default="scars")
    p.add_argument("--map", type=int, default=7, help="seed of the background; the scored map is 7")
    call = p.parse_args()
    for seed in range(call.seed, call.seed + call.draws):
        found = (told if call.tell == "scars" else told_background)(call.count, seed, call.map, call.wavelength)
        print(f"{call.wavelength:g} mm, seed {seed}:", "  ".join(f"{k} {v:.3g}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main()
