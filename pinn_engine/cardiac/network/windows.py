"""V and W over a record as a chain of networks, one a time window, and the sum of squares that they minimise together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core import MLP, jets
from ...core.gauss_newton import Block, StreamedProblem
from ...core.jets import VALUE
from ..model import AlievPanfilov
from .equation import recovery, recovery_rows, voltage_rows
from .places import Places

CHUNK = 3000
SCALE_V, SCALE_U = 2.0, 0.3  # 1/TU: k / 4, and the usual |u_t|: both equations then weigh about the same
SEAM = 0.02  # sd of V and of log W allowed where two windows meet


@dataclass(frozen=True)
class Windows:
    """`edges` (n + 1,) TU; the networks of all windows have the same shape; theta = their weights side by side, then the numbers."""

    places: Places
    network: MLP
    edges: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.edges) - 1

    def which(self, time: Tensor) -> Tensor:
        """The window (R,) in which each time lies."""
        return torch.bucketize(time, torch.tensor(self.edges[1:-1], dtype=time.dtype), right=True)

    def columns(self, window: int) -> slice:
        return slice(window * self.network.size, (window + 1) * self.network.size)

    def inputs(self, window: int, nodes: Tensor, time: Tensor) -> Tensor:
        low, high = self.edges[window], self.edges[window + 1]
        half = 0.5 * (high - low)
        return self.places.at(nodes, torch.stack([(time - low) / half - 1.0, torch.full_like(time, 1.0 / half)], dim=1))

    def run(self, window: int, theta: Tensor, nodes: Tensor, time: Tensor) -> jets.Pass:
        return jets.forward(self.network, theta[self.columns(window)].to(time.dtype), self.inputs(window, nodes, time))

    def fields(self, theta: Tensor, nodes: Tensor, times: Tensor, model: AlievPanfilov) -> tuple[Tensor, Tensor]:
        """V, W (N, F) at nodes and frames."""
        V, W = [], []
        theta = theta.to(times.dtype)
        for t, window in zip(times, self.which(times).tolist(), strict=True):
            inputs = self.inputs(window, nodes, t.expand(len(nodes)))[:1, None].squeeze(1)
            out = self.network(theta[None, self.columns(window)], inputs)[0]
            V.append(torch.sigmoid(out[:, 0]))
            W.append(recovery(out[:, 1], model)[0])
        return torch.stack(V, dim=1), torch.stack(W, dim=1)


@dataclass(frozen=True)
class Observed:
    """Samples of V: `node`, `time` TU, `value`, each (R,), and their sd."""

    node: Tensor
    time: Tensor
    value: Tensor
    sd: float

    def take(self, keep: Tensor) -> Observed:
        return replace(self, node=self.node[keep], time=self.time[keep], value=self.value[keep])


@dataclass(frozen=True)
class Points:
    """Where the equations are asked to hold: `node`, `time` (M,)."""

    node: Tensor
    time: Tensor


class InverseProblem(StreamedProblem):
    """Data + `strength` * equations + seams; theta = (weights of all windows, log D[, a, b])."""

    def __init__(self, windows: Windows, model: AlievPanfilov, data: Observed, points: Points, strength: float, names: tuple[str, ...]):
        self.windows, self.model, self.data, self.points, self.names = windows, model, data, points, names
        self.weights = windows.count * windows.network.size
        self.chain = (windows.network.size,) * windows.count
        share = (strength * len(data.value) / max(len(points.node), 1)) ** 0.5
        self.per_V, self.per_u = share / SCALE_V, share / SCALE_U

    def numbers(self, theta: Tensor) -> tuple[Tensor, AlievPanfilov]:
        """D and the model at theta."""
        rest = dict(zip(self.names[1:], theta[self.weights + 1 :].tolist(), strict=True))
        return theta[self.weights].exp().to(self.data.value.dtype), replace(self.model, **rest)

    def limit(self, theta: Tensor, step: Tensor) -> Tensor:
        """At most 35 % of D and .03 of a and b a step."""
        step = step.clone()
        step[self.weights] = step[self.weights].clamp(-0.3, 0.3)
        step[self.weights + 1 :] = step[self.weights + 1 :].clamp(-0.03, 0.03)
        return step

    def blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        yield from self.data_blocks(theta, slopes)
        yield from self.equation_blocks(theta, slopes)
        yield from self.seam_blocks(theta, slopes)

    def data_blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        theta = theta.to(self.data.value.dtype)
        d, net = self.data, self.windows.network
        for window, rows in pieces(self.windows.which(d.time), self.windows.count):
            inputs = self.windows.inputs(window, d.node[rows], d.time[rows])[:1]
            columns = self.windows.columns(window)
            if not slopes:
                V = torch.sigmoid(net(theta[None, columns], inputs)[0, :, 0])
                yield Block((V - d.value[rows]) / d.sd)
                continue
            done = jets.forward(net, theta[columns], torch.cat([inputs, torch.zeros_like(inputs)]))
            V = torch.sigmoid(done.output[VALUE, :, 0])
            seeds = torch.zeros_like(done.output)
            seeds[VALUE, :, 0] = V * (1.0 - V) / d.sd
            yield Block((V - d.value[rows]) / d.sd, jets.pull_back(net, done, seeds), _range(columns))

    def equation_blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        theta = theta.to(self.data.value.dtype)
        D, model = self.numbers(theta)
        net = self.windows.network
        number_columns = torch.arange(self.weights, len(theta))
        for window, rows in pieces(self.windows.which(self.points.time), self.windows.count):
            done = self.windows.run(window, theta, self.points.node[rows], self.points.time[rows])
            columns = torch.cat([_range(self.windows.columns(window)), number_columns])
            for found, per in ((voltage_rows(done.output, D, model), self.per_V), (recovery_rows(done.output, model), self.per_u)):
                if not slopes:
                    yield Block(found.row * per)
                    continue
                by_number = {"D": found.D * D, "a": found.a, "b": found.b}
                jacobian = [jets.pull_back(net, done, found.seeds * per), *(per * by_number[name][:, None] for name in self.names)]
                yield Block(found.row * per, torch.cat(jacobian, dim=1), columns)

    def seam_blocks(self, theta: Tensor, slopes: bool) -> Iterator[Block]:
        """V and log W are continuous from window to window."""
        theta = theta.to(self.data.value.dtype)
        net, count = self.windows.network, self.windows.count
        share = (len(self.data.value) / max(count - 1, 1) / 4.0 / SEAMS) ** 0.5 / SEAM
        nodes = torch.linspace(0, self.windows.places.nodes - 1, SEAMS).long()
        for window in range(count - 1):
            time = torch.full((len(nodes),), self.windows.edges[window + 1], dtype=self.data.time.dtype)
            left, right = (self.windows.inputs(w, nodes, time)[:1] for w in (window, window + 1))
            first, second = self.windows.columns(window), self.windows.columns(window + 1)
            passes = [jets.forward(net, theta[c], torch.cat([i, torch.zeros_like(i)])) for c, i in ((first, left), (second, right))]
            rows, slope = [], []
            for k in range(2):
                values = [p.output[VALUE, :, k] for p in passes]
                if k == 0:
                    values = [torch.sigmoid(v) for v in values]
                rows.append(share * (values[1] - values[0]))
                if slopes:
                    parts = []
                    for p, v, sign in zip(passes, values, (-1.0, 1.0), strict=True):
                        seeds = torch.zeros_like(p.output)
                        seeds[VALUE, :, k] = sign * share * (v * (1.0 - v) if k == 0 else 1.0)
                        parts.append(jets.pull_back(net, p, seeds))
                    slope.append(torch.cat(parts, dim=1))
            columns = torch.cat([_range(first), _range(second)])
            yield Block(torch.cat(rows), torch.cat(slope) if slopes else None, columns)


SEAMS = 400  # nodes at which each seam is held


def pieces(which: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of each window, at most CHUNK at a time."""
    for window in range(count):
        rows = (which == window).nonzero().squeeze(1)
        for part in rows.split(CHUNK):
            yield window, part


def _range(columns: slice) -> Tensor:
    return torch.arange(columns.start, columns.stop)
