"""What a network sees of a place: smooth functions whose normal slope vanishes on every edge, with their derivatives at the nodes.

A network of such functions has no flux through any edge, exactly, whatever its weights. Boxes take cosines; meshes take the lowest modes
phi of their Laplace-Beltrami operator, M^-1 K phi = lambda phi, whose derivatives come from finite elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...files.mesh import Mesh
from ..fem import elements
from ..starts import laplacian


@dataclass(frozen=True)
class Places:
    """`jets` (C, N, K): features of the N nodes with channels value, d/dt (zero), gradient, L; see core.jets."""

    jets: Tensor

    @property
    def nodes(self) -> int:
        return self.jets.shape[1]

    @property
    def features(self) -> int:
        return self.jets.shape[2]

    def at(self, nodes: Tensor, time: Tensor) -> Tensor:
        """Jets (C, R, K + 1) of the network's inputs at nodes (R,) and scaled times (R, 2): value and slope."""
        chosen = self.jets[:, nodes]
        clock = chosen.new_zeros(chosen.shape[0], len(nodes), 1)
        clock[0, :, 0], clock[1, :, 0] = time[:, 0], time[:, 1]
        return torch.cat([chosen, clock], dim=2)


def box(points: np.ndarray, low: np.ndarray, high: np.ndarray, orders: int = 3) -> Places:
    """cos(n pi (x - low) / (high - low)), n = 1..orders, along each axis of points (N, d): their slope is 0 on every face."""
    x = torch.as_tensor((points - low) / (high - low), dtype=torch.float64)
    length = torch.as_tensor(high - low, dtype=torch.float64)
    n, d = x.shape
    jets = torch.zeros(3 + d, n, orders * d, dtype=torch.float64)
    for axis in range(d):
        for order in range(1, orders + 1):
            rate, column = order * torch.pi, axis * orders + order - 1
            jets[0, :, column] = torch.cos(rate * x[:, axis])
            jets[2 + axis, :, column] = -rate / length[axis] * torch.sin(rate * x[:, axis])
            jets[-1, :, column] = -((rate / length[axis]) ** 2) * jets[0, :, column]
    return Places(jets)


def mesh_modes(mesh: Mesh, count: int = 48) -> Places:
    """The lowest `count` modes of the mesh (the constant left away), unit root mean square; L of a mode is -lambda times it, exactly.

    Gradients are those of the finite elements, averaged over the cells round each node; on a surface they lie in its plane.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import eigsh

    element = elements(mesh)
    K, mass = laplacian(element)
    start = np.random.default_rng(0).standard_normal(len(mass))
    value, mode = eigsh(K, k=count + 1, M=diags(mass), sigma=-1e-3 * K.diagonal().mean() / mass.mean(), which="LM", v0=start)
    order = np.argsort(value)[1:]
    modes = torch.from_numpy(np.ascontiguousarray(mode[:, order])) * float(mass.sum()) ** 0.5
    n, corners = element.nodes, element.cells.shape[1]
    share = (element.size / corners)[:, None].expand(-1, corners).reshape(-1)
    jets = torch.zeros(6, n, count, dtype=torch.float64)
    jets[0], jets[-1] = modes, -modes * torch.from_numpy(value[order].clip(min=0.0))
    for k in range(count):
        gradient = element.gradient(modes[:, k])[:, None, :].expand(-1, corners, -1).reshape(-1, 3)
        total = torch.zeros(n, 3, dtype=torch.float64).index_add(0, element.cells.reshape(-1), share[:, None] * gradient)
        jets[2:5, :, k] = (total / element.mass[:, None]).T
    return Places(jets)
