"""A fit by finite differences, as one would write it without any of these programs: given.npz -> made.npz.

The Aliev-Panfilov equations on a square grid (differences of fourth order, mirrored borders, midpoint rule: a planar front is .3 % too
slow), begun with the travelling wave's front; SciPy's Nelder-Mead over log D (and a, b) on the squares of (V simulated - V observed).
"""

import sys

import numpy as np
import scipy
from scipy.optimize import minimize
from told import Clock

K, MU1, MU2, EPS = 8.0, 0.2, 0.3, 0.002
STEP = 0.2  # mm


def simulate(size: np.ndarray, times: np.ndarray, D: float, a: float, b: float) -> np.ndarray:
    """(frames, X, Y) V at `times`, TU."""
    x = np.arange(0, size[0] + STEP / 2, STEP)
    s = np.sqrt(2 * D / K)
    V = np.repeat((1 / (1 + np.exp(np.clip(x / s - 5, -60, 60))))[:, None], round(size[1] / STEP) + 1, axis=1)
    W = np.zeros_like(V)
    substeps = int(np.ceil((times[1] - times[0]) / min(0.05, 0.2 * STEP**2 / D)))
    dt = (times[1] - times[0]) / substeps
    frames = [V]
    for _ in range(len(times) - 1):
        for _ in range(substeps):
            V_t, W_t = rates(V, W, D, a, b)
            V_t, W_t = rates(V + dt / 2 * V_t, W + dt / 2 * W_t, D, a, b)
            V, W = V + dt * V_t, W + dt * W_t
        frames.append(V)
    return np.stack(frames)


def rates(V: np.ndarray, W: np.ndarray, D: float, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    p = np.pad(V, 2, mode="reflect")
    far = p[4:, 2:-2] + p[:-4, 2:-2] + p[2:-2, 4:] + p[2:-2, :-4]
    near = p[3:-1, 2:-2] + p[1:-3, 2:-2] + p[2:-2, 3:-1] + p[2:-2, 1:-3]
    laplacian = (16 * near - far - 60 * V) / (12 * STEP**2)
    return D * laplacian - K * V * (V - a) * (V - 1) - V * W, (EPS + MU1 * W / (V + MU2)) * (-W - K * V * (V - b - 1))


def main(given: str, made: str) -> None:
    data = np.load(given)
    names = str(data["names"]).split(",")
    samples, value, times = data["samples"], data["value"], data["times"]
    size = samples[:, :2].max(axis=0)
    size = np.round(size / STEP) * STEP
    at = tuple(np.rint(samples[:, i] / STEP).astype(int) for i in (0, 1))
    frame = np.rint((samples[:, 2] - times[0]) / (times[1] - times[0])).astype(int)

    def numbers(theta):
        free = dict(zip(names, theta, strict=True))
        return np.exp(free["D"]), free.get("a", 0.01), free.get("b", 0.15)

    def misfit(theta):
        D, a, b = numbers(theta)
        if not (0 < a < 0.45 and 0 < b < 1 and D < 2):
            return 1e9
        return float(((simulate(size, times, D, a, b)[frame, at[0], at[1]] - value) ** 2).sum())

    start = [np.log(float(data[name])) if name == "D" else float(data[name]) for name in names]
    clock = Clock()
    found = minimize(misfit, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-2, "maxfev": 200})
    D, a, b = numbers(found.x)
    clock.write(made, f"SciPy {scipy.__version__}", D=D, a=a, b=b, iterations=found.nfev)


if __name__ == "__main__":
    main(*sys.argv[1:3])
