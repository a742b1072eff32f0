"""The set-up of the MICCAI 2024 tutorial on PINNs for perfusion, in DeepXDE: one voxel after another from given.npz -> made.npz.

Written from a description of the set-up: a 32-32 tanh network of (t, sin t, sin 2t) whose output is multiplied by tanh(t); the mean
squares of the differential equation, with switches smoothed by tanh(x / 0.1 s), and of the data, 1:1; as many Hammersley points as data,
10 boundary points and the data times; Adam at 1e-3 for 10,000 full-batch steps; CBF (mL/100 g/s) and arrival time start at 0.5, T1 of
blood (s) at 1.5 unless it is known, all through a rectifier clipped to 0.01 … 2.5. With `limit` (CPU s) training of a voxel ends then.
"""

import os
import sys
import time

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import numpy as np
import torch
from limit import Limit
from told import Clock

WIDTH = 0.1  # s, of a switch
STEPS = 10_000


def clipped(raw: torch.Tensor) -> torch.Tensor:
    return torch.where(raw < 0.01, torch.zeros_like(raw), raw.clamp(max=2.5))


def network() -> dde.nn.FNN:
    net = dde.nn.FNN([3, 32, 32, 1], "tanh", "Glorot normal")
    net.apply_feature_transform(lambda t: torch.cat([t, torch.sin(t), torch.sin(2 * t)], dim=1))
    net.apply_output_transform(lambda t, s: s * torch.tanh(t))
    return net


def fit(times: np.ndarray, signal: np.ndarray, tau: float, known_t1b: float | None, seed: int, limit: float) -> tuple[float, float, float]:
    """CBF in mL/100 g/s, arrival time in s, and the CPU seconds that training took."""
    dde.config.set_random_seed(seed)
    flow, arrival, decay = dde.Variable(0.5), dde.Variable(0.5), dde.Variable(1.5)
    free = [flow, arrival] if known_t1b else [flow, arrival, decay]

    def equation(t, s):
        att, t1b = clipped(arrival), known_t1b or clipped(decay)
        begun, ended = (0.5 * (1 + torch.tanh((t - edge) / WIDTH)) for edge in (att, att + tau))
        rate = (begun - ended) * (1 - (t - att) / t1b) - ended * tau / t1b
        return dde.grad.jacobian(s, t) - clipped(flow) * torch.exp(-t / t1b) * rate

    points = times.reshape(-1, 1).astype(np.float32)
    data = dde.data.PDE(
        dde.geometry.TimeDomain(0, float(times.max())),
        equation,
        [dde.icbc.PointSetBC(points, signal.reshape(-1, 1).astype(np.float32))],
        num_domain=len(times),
        num_boundary=10,
        train_distribution="Hammersley",
        anchors=points,
    )
    model = dde.Model(data, network())
    model.compile("adam", lr=1e-3, external_trainable_variables=free)
    start = time.process_time()
    model.train(iterations=STEPS, display_every=STEPS, callbacks=[Limit(limit)], verbose=0)
    seconds = time.process_time() - start
    return float(clipped(flow.detach())), float(clipped(arrival.detach())), seconds


def main(given: str, made: str) -> None:
    torch.set_num_threads(1)
    data = np.load(given)
    known = float(data["t1b"]) or None  # 0: not known
    limit = float(data["limit"]) if "limit" in data else float("inf")
    clock = Clock()
    found = [fit(data["times"], y, float(data["tau"]), known, k, limit) for k, y in enumerate(data["signal"])]
    cbf, att, seconds = np.array(found).T
    clock.write(made, dde.__version__, cbf=60 * cbf, att=att, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:3])
