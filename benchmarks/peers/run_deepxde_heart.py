"""The set-up of the MICCAI 2024 tutorial on PINNs for the heart, in DeepXDE, with D (and a, b) trainable: given.npz -> made.npz.

Written from a description: a 3-30-30-30-2 tanh network of (x, y, t), Glorot; mean squares of the two equations, of no flux through the
sides, and of the samples of V (anchors of the equations too), all weights 1; Adam at 5e-4. Its faults are left out: no condition at the
first frame is given, for it is not known (there V was set to 0, W never). Runs for a given CPU time; unknowns start where `given` says.

`names` "map": D(x, y) = low + (high - low) sigmoid(a second tanh network, six layers of 60), the way of EP-PINNs (Herrero Martin 2022,
doi:10.3389/fcvm.2021.768419), which hands it the true range; made.npz then holds D at `where`.
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

K, MU1, MU2, EPS = 8.0, 0.2, 0.3, 0.002


def main(given: str, made: str) -> None:
    torch.set_num_threads(1)
    dde.config.set_random_seed(0)
    data = np.load(given)
    names = str(data["names"]).split(",")
    mapped = names == ["map"]
    free = {} if mapped else {name: dde.Variable(float(data[name])) for name in names}
    network = dde.nn.FNN([2, *[60] * 6, 1], "tanh", "Glorot normal") if mapped else None
    a, b = free.get("a", 0.01), free.get("b", 0.15)
    at = data["samples"].astype(np.float32)
    low, high = at.min(axis=0), at.max(axis=0)

    def diffusivity(x):
        place = 2.0 * (x[:, :2] - torch.as_tensor(low[:2])) / torch.as_tensor(high[:2] - low[:2]) - 1.0
        return float(data["low"]) + float(data["high"] - data["low"]) * torch.sigmoid(network(place))

    def equations(x, y):
        V, W = y[:, 0:1], y[:, 1:2]
        V_t, W_t = dde.grad.jacobian(y, x, i=0, j=2), dde.grad.jacobian(y, x, i=1, j=2)
        lap = dde.grad.hessian(y, x, component=0, i=0, j=0) + dde.grad.hessian(y, x, component=0, i=1, j=1)
        g = EPS + MU1 * W / (V.clamp(min=-0.15) + MU2)
        D = diffusivity(x) if mapped else free["D"]
        spread = D * lap
        if mapped:
            spread = spread + sum(dde.grad.jacobian(D, x, i=0, j=j) * dde.grad.jacobian(y, x, i=0, j=j) for j in (0, 1))
        return [V_t - spread + K * V * (V - a) * (V - 1) + V * W, W_t - g * (-W - K * V * (V - b - 1))]

    space = dde.geometry.Rectangle(low[:2].tolist(), high[:2].tolist())
    domain = dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(float(low[2]), float(high[2])))
    conditions = [
        dde.icbc.NeumannBC(domain, lambda x: np.zeros((len(x), 1)), lambda x, on: on, component=0),
        dde.icbc.PointSetBC(at, data["value"].astype(np.float32)[:, None], component=0),
    ]
    problem = dde.data.TimePDE(domain, equations, conditions, num_domain=20000, num_boundary=1000, anchors=at)
    model = dde.Model(problem, dde.nn.FNN([3, 30, 30, 30, 2], "tanh", "Glorot normal"))
    trainable = list(network.parameters()) if mapped else list(free.values())
    model.compile("adam", lr=5e-4, external_trainable_variables=trainable)
    clock, limit = Clock(), Limit(float(data["seconds"]))
    model.train(iterations=10**9, display_every=10**9, callbacks=[limit], verbose=0)
    seconds = time.process_time() - limit.end + float(data["seconds"])
    V = model.predict(data["where"].astype(np.float32))[:, 0]
    values = {"a": 0.01, "b": 0.15, **{name: float(value.detach()) for name, value in free.items()}}
    if mapped:
        with torch.no_grad():
            values["D"] = diffusivity(torch.as_tensor(data["where"].astype(np.float32)))[:, 0].numpy()
    clock.write(made, dde.__version__, V=V, iterations=limit.steps, seconds=seconds, **values)


if __name__ == "__main__":
    main(*sys.argv[1:3])
