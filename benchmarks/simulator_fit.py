"""A map of D by Gauss-Newton over the package's own simulator: the classical way, a rival of the product's fit (see cardiac_rivals.py).

    minimise  1/2 sum ((seen(c) - y) / sd)^2 + weight / 2 * integral |grad log D|^2 ,   log D = B c on hat-like functions
`seen`: activation times or V of the simulator on the fit's own grid; D along the fibres where there are any. All slopes in one run: a
tangent beside the wave for each centre (what D itself moves enters once a step: 1.5 % from differences of runs, 2 % with fibres).
Marquardt's damping.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from torch import Tensor

from pinn_engine.cardiac import protocols
from pinn_engine.cardiac.fem import Stiffness, local_stiffness, stiffness
from pinn_engine.cardiac.fit import equation_of
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.propagate import Frames, Linear, Propagator, grid_slowing, reaction_slopes
from pinn_engine.cardiac.read import HeartData
from pinn_engine.cardiac.simulate import THRESHOLD
from pinn_engine.cardiac.starts import laplacian

STEP = 0.1  # TU
CENTRES = 120
RANGE = (0.02, 6.0)  # of D over the healthy one


def hats(points: np.ndarray, count: int) -> csr_matrix:
    """(N, count) weights of centres spread as far apart as they go, none beyond twice their distance; each row sums to 1."""
    chosen, distance = [0], np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    near = 1.0 - np.linalg.norm(points[:, None] - points[None, chosen], axis=2) / (2.0 * distance.max())
    weight = np.maximum(near, 0.0) ** 2
    return csr_matrix(weight / weight.sum(axis=1, keepdims=True))


class Simulated:
    """Residuals and slopes for one heart; `D` and `where`: the wave's true start, which is given."""

    def __init__(self, data: HeartData, model: AlievPanfilov, D: float, where: int | np.ndarray, sd: float, centres: int = CENTRES):
        equation, _ = equation_of(data, None)
        self.element, self.data, self.model, self.D, self.centres = equation.element, data.samples(sd), model, D, centres
        ones = torch.ones_like(self.element.size)
        self.shape = ones if equation.shape is None else equation.shape  # (M,) or, with fibres, (M, 3, 3): of D = 1
        self.B = hats(data.mesh.points, centres)
        self.start = torch.from_numpy(protocols.point(data.mesh, model, D, where).V)
        last = float(data.times[-1]) if data.times is not None else 1.2 * float(self.data.value.max()) + 2.0
        self.steps, self.frame = round(last / STEP), None if self.data.time is None else torch.round(self.data.time).long()
        self.slowing = grid_slowing(self.element, data.mesh, D, model, STEP)
        self.K, n = local_stiffness(self.element, self.shape), len(self.element.cells)
        cells = self.element.cells.numpy()
        self.to_cells = csr_matrix((np.full(3 * n, 1.0 / 3.0), (np.repeat(np.arange(n), 3), cells.ravel())), shape=(n, len(self.start)))
        self.place = csr_matrix((self.data.weight, (self.data.row, self.data.column)), shape=(len(self.data.value), len(self.start)))
        self.rows = None if self.frame is None else [np.flatnonzero(self.frame.numpy() == k) for k in range(int(last) + 1)]

    def diffusivity(self, c: np.ndarray) -> np.ndarray:
        return self.D * np.exp(np.clip(self.B @ c, np.log(RANGE[0]), np.log(RANGE[1])))

    def run(self, c: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Residuals (R,) over sd, and their slopes (R, centres)."""
        D = self.diffusivity(c)
        operator = stiffness(self.element, torch.einsum("m,m...->m...", torch.from_numpy(self.to_cells @ D), self.shape))
        wave = Propagator(operator, Frames(2, 1, STEP), 1.0)
        V, W = self.start, torch.zeros_like(self.start)
        if slopes:
            light = Propagator(Stiffness(operator.matrix.float(), operator.mass.float(), operator.bound), Frames(2, 1, STEP), 1.0)
            v, w = (torch.zeros(len(V), self.centres, dtype=torch.float32) for _ in range(2))
            pairs, moved = self._forcing(D, operator.mass.numpy())
        seen, by = torch.full_like(self.data.value, torch.nan).numpy(), np.zeros((len(self.data.value), self.centres), np.float32)
        LAT, slope = torch.where(THRESHOLD <= V, 0.0, self.steps * STEP).to(V), torch.zeros(len(V), self.centres if slopes else 0)
        waits = THRESHOLD > V
        for number in range(self.steps + 1):
            if self.rows is not None and number % round(1.0 / STEP) == 0:
                rows = self.rows[number // round(1.0 / STEP)]
                seen[rows] = self.place[rows] @ V.numpy()
                by[rows] = self.place[rows] @ v.numpy() if slopes else 0.0
            if number == self.steps or (self.rows is None and not bool(waits.any())):
                break
            before, v_before = V, v if slopes else None
            for half in (0, 1):
                if slopes:
                    v, w = _through(reaction_slopes(V, W, self.model, 0.5 * STEP, ()), v, w)
                V, W = self.model.midpoint(V, W, 0.5 * STEP)
                if half == 0:
                    V = wave.diffuse(V, 1.0)
                    if slopes:
                        v = light.diffuse(v, 1.0)
                        flow = torch.einsum("mij,mj->mi", self.K, V[self.element.cells]).numpy().ravel()
                        v.view(-1).index_add_(0, pairs, torch.from_numpy((moved @ flow).astype(np.float32)))
            if self.rows is None:
                now = waits & (THRESHOLD <= V)
                waits = waits & ~now
                share = ((THRESHOLD - before) / (V - before))[now]
                LAT[now] = (number + share) * STEP
                if slopes:
                    s = share[:, None].float()
                    slope[now] = -STEP * ((1.0 - s) * v_before[now] + s * v[now]) / (V - before)[now, None].float()
        if self.rows is None:
            seen, by = self.place @ LAT.numpy(), self.place @ slope.numpy() if slopes else by
        sd = self.data.sd.numpy()
        return (seen - self.data.value.numpy()) / sd, by / sd[:, None].astype(np.float32) if slopes else None

    def _forcing(self, D: np.ndarray, mass: np.ndarray) -> tuple[Tensor, csr_matrix]:
        """Which (node, centre) a change of c moves, and the map from every cell's K V to by how much: -STEP / mass * dD/dc * K V."""
        Q = (self.to_cells @ (csr_matrix(self.B.multiply(D[:, None])))).tocsr()
        count = np.diff(Q.indptr)
        corner = np.repeat(np.arange(3 * len(count)), np.repeat(count, 3))
        cell = corner // 3
        first = np.repeat(np.cumsum(np.repeat(count, 3)) - np.repeat(count, 3), np.repeat(count, 3))
        entry = Q.indptr[cell] + np.arange(len(corner)) - first
        node = self.element.cells.numpy().ravel()[corner]
        pairs, at = np.unique(node * self.centres + Q.indices[entry], return_inverse=True)
        values = -STEP / mass[node] * Q.data[entry]
        return torch.from_numpy(pairs), coo_matrix((values, (at, corner)), shape=(len(pairs), 3 * len(count))).tocsr()


def _through(one: Linear, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    vv, wv, vw, ww = one.J[:, :, None].float()
    return torch.addcmul(vv * v, vw, w), torch.addcmul(wv * v, ww, w)


def simulator_fit(problem: Simulated, first: np.ndarray, weight: float, ends: list[float]) -> list[tuple[np.ndarray, int]]:
    """D (N,) of the simulator on the fitted nodes and the Gauss-Newton steps done, at each of the CPU seconds `ends`.

    `first` (N,): D to begin with. What the grid slows is not corrected, see `Simulated.slowing`.
    """
    begin, kept, done, damping = time.process_time(), [], 0, 1e-2
    K, mass = laplacian(problem.element)
    R = weight * (problem.B.T @ K @ problem.B).toarray() + 1e-3 * weight * np.diag(problem.B.T @ mass)
    ratio = np.clip(np.log(first / problem.D), *np.log(RANGE))
    c = np.linalg.solve((problem.B.T @ problem.B).toarray() + 1e-6 * np.eye(problem.centres), problem.B.T @ ratio)
    middle = float(np.median(c))

    def cost(r: np.ndarray, c: np.ndarray) -> float:
        return 0.5 * float(r @ r + (c - middle) @ R @ (c - middle))

    r, best = None, np.inf
    while len(kept) < len(ends):
        r, J = problem.run(c, True)
        best, H, g = cost(r, c), (J.T @ J).astype(float) + R, J.T.astype(float) @ r + R @ (c - middle)
        for _ in range(6):
            move = -np.linalg.solve(H + damping * np.diag(np.diag(H)), g)
            trial = c + move * min(1.0, 1.0 / np.abs(move).max())
            lower = cost(problem.run(trial, False)[0], trial)
            if time.process_time() - begin > ends[len(kept)]:
                kept.append((problem.diffusivity(c), done))
            if len(kept) == len(ends) or lower < best:
                break
            damping *= 10.0
        if len(kept) == len(ends):
            break
        done, damping = done + 1, 0.1 * damping
        if not lower < best * (1.0 - 1e-4):
            c = trial if lower < best else c
            kept += [(problem.diffusivity(c), done)] * (len(ends) - len(kept))
        c = trial
    return kept
