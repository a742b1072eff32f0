"""TorchCor's monodomain simulator on given.npz -> made.npz: one wave over a triangle mesh, stimulated at given nodes.

Its own Aliev-Panfilov class has one `a` for the threshold and the recovery's shift; so that both programs solve the same equations, this
one has the two. D = sigma / (chi Cm) with its chi 140 /mm and Cm 0.01 uF/mm^2. Its mass matrix and tolerances are as in its README.
"""

import importlib.metadata
import sys

import numpy as np
import torch
from told import Clock
from torchcor.simulator import Monodomain

MS_PER_TU, REST, RANGE = 12.9, -80.0, 100.0


class AlievPanfilov:
    """What the simulator asks of a model: who it is, where it holds, its start, and dVm/dt in mV/ms."""

    name, region_ids, node_indices, device, dtype = "AlievPanfilov", None, None, None, None

    def __init__(self, dt, a, b, k, mu1, mu2, eps):
        self.dt, self.a, self.b, self.k, self.mu1, self.mu2, self.eps = dt, a, b, k, mu1, mu2, eps

    def initialize(self, nodes):
        self.W = torch.zeros(nodes, dtype=self.dtype, device=self.device)
        return torch.full_like(self.W, REST)

    def differentiate(self, Vm):
        V = (Vm - REST) / RANGE
        W_t = (self.eps + self.mu1 * self.W / (V + self.mu2)) * (-self.W - self.k * V * (V - self.b - 1))
        self.W = self.W + self.dt / MS_PER_TU * W_t
        return RANGE / MS_PER_TU * (-self.k * V * (V - self.a) * (V - 1) - V * self.W)


def main(given: str, made: str) -> None:
    torch.set_num_threads(1)
    data = np.load(given)
    points, cells, first = data["points"], data["cells"], data["stimulated"]
    with open("heart.pts", "w") as file:
        file.write(f"{len(points)}\n" + "".join("{} {} {}\n".format(*row) for row in points * 1000))
    with open("heart.elem", "w") as file:
        file.write(f"{len(cells)}\n" + "".join("Tr {} {} {} 1\n".format(*row) for row in cells))
    with open("heart.lon", "w") as file:
        file.write("1\n" + "1 0 0\n" * len(cells))
    np.savetxt("start.vtx", first, fmt="%d", header=f"{len(first)}\nextra", comments="")
    dt = float(data["dt"])
    clock = Clock()
    model = AlievPanfilov(dt, *(float(x) for x in data["parameters"]))
    simulator = Monodomain([model], T=float(data["duration"]), dt=dt, dtype=torch.float64)
    simulator.load_mesh(".")
    simulator.add_conductivity(None, il=float(data["sigma"]), it=float(data["sigma"]))
    simulator.add_stimulus("start.vtx", start=0.0, duration=2.0, intensity=50.0)
    V = simulator.solve(a_tol=1e-5, r_tol=1e-5, max_iter=100, snapshot_interval=1, verbose=False, result_path=".")
    LAT = simulator.compute_activation_map(V, snapshot_interval=1.0, threshold=-30.0, interpolate=True)
    clock.write(made, importlib.metadata.version("torchcor"), LAT=LAT.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:3])
