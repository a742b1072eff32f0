"""The map problem: activation time T(x) and u(x) = log D(x) on the nodes of a mesh, from activation times or from samples of V.

    data      LAT: (I T - y) / sd, or V: (Phi(t - I T) - v) / sd, robust against outliers
    equation  eikonal-diffusion residual / 0.05, robust: one count a patch of `length`^2 (colliding fronts do not fit it)
    edges     strength * integral of |grad u| (total variation): the background even, the border of a scar sharp; where a map is of
              pieces (`spare`), steep places of a first fit count less and flat ones more: their contrast is not shrunk then;
              with a smooth `background` in u it counts what u has beside that, and the background has its own normal prior
    sources   no tissue but where a wave starts comes before all the tissue round it (`basins.py`)
    smooth    a whisper of biharmonic energy on T (where the equation is off), a broad normal prior on u round its mean
Everything scales with l0 = sqrt(D0 / k), so that the same settings serve D = 0.02 and D = 20 mm^2/TU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import Contaminated, Gaussian, Huber, Loss, Rows, SparseProblem, weighted_rows
from .background import Background
from .basins import Landscape
from .beat import Beat, beats
from .eikonal import EikonalDiffusion, front_constant
from .model import AlievPanfilov

EVEN = 30.0  # strength at which D is one number
STEEP = 0.05  # of |grad u| l0, at which sparing changes nothing; half an e-fold over two cells' widths has 0.2


@dataclass(frozen=True)
class Tuning:
    """Settings of the map problem; lengths in units of l0 = sqrt(D0 / k), times in TU. Flat optima all: see docs/cardiac.md."""

    equation_sd: float = 0.05
    patch: float = 2.2
    knee: float = 4.0  # Huber's, in equation_sd
    rounding: tuple[float, float] = (0.112, 0.005)  # of |grad u|: first and last
    shrink: float = 0.6
    smooth: float = 0.009
    prior_sd: float = 2.0
    source_sd: float = 0.05  # of how far a node may lie in a basin of T
    start_time: float = 1.0  # no equation before the earliest activation plus this: the stimulus' shape is not known


@dataclass(frozen=True)
class Samples:
    """R observations at places given by interpolation: place r is sum of weight * node over its coordinates (row, column, weight).

    LAT: `value` TU, `time` None. V: `value` without unit at `time` (R,) TU.
    """

    row: Tensor
    column: Tensor
    weight: Tensor
    value: Tensor
    sd: Tensor
    time: Tensor | None = None

    def at(self, nodal: Tensor) -> Tensor:
        """(R,) a nodal field at the observations' places."""
        return nodal.new_zeros(len(self.value)).index_add(0, self.row, self.weight * nodal[self.column])

    def take(self, keep: np.ndarray) -> Samples:
        """Some of the observations, (R,) bool."""
        kept = torch.as_tensor(keep)
        place = torch.cumsum(kept.long(), 0) - 1
        on = kept[self.row]
        time = None if self.time is None else self.time[kept]
        return Samples(place[self.row[on]], self.column[on], self.weight[on], self.value[kept], self.sd[kept], time)

    def nearest(self) -> Tensor:
        """(R,) the node of the greatest weight for each observation."""
        rising = self.weight.abs().argsort()
        nodes = np.zeros(len(self.value), int)
        nodes[self.row[rising].numpy()] = self.column[rising].numpy()  # the last one written stays
        return torch.from_numpy(nodes)

    def with_sd(self, sd: float) -> Samples:
        return replace(self, sd=torch.full_like(self.value, sd))


def at_nodes(nodes: np.ndarray, value: np.ndarray, sd: float, time: np.ndarray | None = None) -> Samples:
    """Observations that stand on nodes."""
    r = torch.arange(len(nodes))
    v = torch.as_tensor(value, dtype=torch.float64)
    t = None if time is None else torch.as_tensor(time, dtype=torch.float64)
    return Samples(r, torch.as_tensor(nodes), torch.ones(len(nodes), dtype=torch.float64), v, torch.full_like(v, sd), t)


class MapProblem(SparseProblem):
    """theta = T (N,), u (N,) and, with `free` (a and b unknown), the coordinates of a and b: log a, b; or, with a `background`, its K
    coefficients."""

    def __init__(
        self,
        equation: EikonalDiffusion,
        data: Samples,
        model: AlievPanfilov,
        D0: float,
        strength: float,
        *,
        loss: Loss | None = None,
        beat: Beat | None = None,
        free: bool = False,
        tuning: Tuning | None = None,
        mask: Tensor | None = None,
        even: bool = False,
    ):
        self.equation, self.data, self.model, self.D0, self.strength = equation, data, model, D0, strength
        self.loss: Loss = loss or Gaussian()
        self.beat, self.free, self.mask = beat, free, mask
        self.tuning = tuning or Tuning()
        self.length = (D0 / model.k) ** 0.5
        self.rounding = self.tuning.rounding[0]
        self.active: Tensor | None = None
        self.share: Tensor | None = None  # (M,) of the strength in each cell, see `spare`
        self.begin = -np.inf if data.time is None or not len(data.time) else float(data.time.min())  # T is not seen before the record
        e = equation.element
        dimension = e.cells.shape[1] - 1
        self.patch = (self.tuning.patch * self.length) ** dimension
        self.even = even  # one D for the whole tissue
        self.landscape: Landscape | None = None  # where given, T gets no basins but where the equation is not asked to hold:
        self.starts: Tensor | None = None  # (N,) bool, there, beside where T is earliest
        self.background: Background | None = None  # coefficients of a smooth part of u follow in theta then
        self._laplacian = equation.laplacian_rows(D0)

    @property
    def nodes(self) -> int:
        return self.equation.element.nodes

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return theta[: self.nodes], theta[self.nodes : 2 * self.nodes]

    def pieces(self, theta: Tensor) -> Tensor:
        """(N,) u without the smooth background."""
        u = self.split(theta)[1]
        return u if self.background is None else u - self.background.basis @ theta[2 * self.nodes :]

    def parameters(self, theta: Tensor) -> AlievPanfilov:
        """The model with the a and b of theta."""
        if not self.free:
            return self.model
        return replace(self.model, a=float(theta[-2].exp()), b=float(theta[-1]))

    def spare(self, theta: Tensor) -> None:
        """Weigh total variation by 2 / (1 + |grad u| l0 / STEEP) of this theta from now on.

        Total variation charges a border for its height and so shrinks it; a second fit with such weights hardly does. The sum is about
        that of a log of |grad u|: Candes, Wakin & Boyd 2008, doi:10.1007/s00041-008-9045-x, one round.
        """
        slope = self.equation.element.gradient(self.pieces(theta)).norm(dim=1) * self.length
        self.share = 2.0 / (1.0 + slope / STEEP)

    def advance(self, theta: Tensor) -> bool:
        last = self.tuning.rounding[1]
        moving = self.rounding > last
        if self.active is None or moving:  # the mask follows T at first, then stays: a moving one lets the cost wander
            T = self.split(theta)[0]
            self.active = self.mask if self.mask is not None else T.min().clamp(min=self.begin) + self.tuning.start_time < T
            if self.starts is not None:
                self.active = self.active & ~self.starts
        if moving and self._stepped:
            self.rounding = max(last, self.rounding * self.tuning.shrink)
        self._stepped = True
        if self.free:
            model = self.parameters(theta)
            if self.beat is None or abs(self.beat.a - model.a) > 2e-3 or abs(self.beat.b - model.b) > 5e-3:
                self.beat = beats([model], slopes=True)[0]
        return moving

    _stepped = False

    def terms(self, theta: Tensor) -> dict[str, Rows]:
        if self.active is None:
            self.advance(theta)
        T, u = self.split(theta)
        e, t = self.equation.element, self.tuning
        terms = {"data": self._data(theta, T), "equation": self._equation(theta, T, u)}
        terms["edges"] = self._edges(self.pieces(theta))
        terms["smooth"] = self._smooth(T)
        if self.landscape is not None:
            terms["sources"] = self._sources(T)
        mean = float(np.log(self.D0))
        root = (e.mass / self.patch).sqrt() * (0.44 / t.prior_sd)
        index = torch.arange(self.nodes)
        terms["prior"] = Rows(root * (u - mean), index, index + self.nodes, root)
        if self.background is not None:
            empty = torch.zeros(0, dtype=torch.long)
            sd = self.background.sd
            terms["background"] = Rows(theta[2 * self.nodes :] / sd, empty, empty, sd.new_zeros(0), dense=torch.diag(1.0 / sd))
        if self.free:  # broad: a within a factor, b within its usual range
            away = torch.stack([(theta[-2] - np.log(0.02)) / 1.5, (theta[-1] - 0.15) / 0.3])
            two = torch.arange(2)
            terms["ab"] = Rows(away, two, two + 2 * self.nodes, torch.tensor([1 / 1.5, 1 / 0.3], dtype=torch.float64))
        return terms

    def _equation(self, theta: Tensor, T: Tensor, u: Tensor) -> Rows:
        t, model = self.tuning, self.parameters(theta)
        c0 = torch.tensor(front_constant(model), dtype=torch.float64)
        slope = c0 * model.log_speed_by_a * theta[-2].exp() if self.free else None  # d c0 / d log a
        scale = (self.active.to(T) * self.equation.element.mass / self.patch).sqrt()  # type: ignore[union-attr]
        return self.equation.rows(T, u, c0, scale, Huber(t.knee), t.equation_sd, slope)

    def _data(self, theta: Tensor, T: Tensor) -> Rows:
        d = self.data
        where = d.at(T)
        if d.time is None:
            return weighted_rows((where - d.value) / d.sd, d.row, d.column, d.weight / d.sd[d.row], self.loss)
        assert self.beat is not None
        s = d.time - where
        phi, slope = self.beat.V_and_slope(s)
        row, column, value = d.row, d.column, -d.weight * (slope / d.sd)[d.row]
        if self.free:
            da, db = self.beat.parameter_slopes(s)
            model = self.parameters(theta)
            phi = phi + da * (model.a - self.beat.a) + db * (model.b - self.beat.b)
            every = torch.arange(len(s))
            row = torch.cat([row, every, every])
            column = torch.cat([column, torch.full_like(every, 2 * self.nodes), torch.full_like(every, 2 * self.nodes + 1)])
            value = torch.cat([value, da * theta[-2].exp() / d.sd, db / d.sd])
        return weighted_rows((phi - d.value) / d.sd, row, column, value, self.loss)

    def _edges(self, pieces: Tensor) -> Rows:
        e = self.equation.element
        gradient = e.gradient(pieces) * self.length  # without unit
        size = (gradient**2).sum(dim=1)
        round_ = self.rounding
        weight = (EVEN if self.even else self.strength) * e.size / self.length ** (e.cells.shape[1] - 1)
        if self.share is not None:
            weight = weight * self.share
        root = (weight / (size + round_**2).sqrt()).sqrt()
        m, corners = e.cells.shape
        row = torch.arange(3 * m).reshape(m, 1, 3).expand(-1, corners, -1).reshape(-1)
        column = e.cells[:, :, None].expand(-1, -1, 3).reshape(-1) + self.nodes
        value = (root[:, None, None] * e.gradients * self.length).reshape(-1)
        exact = (weight * ((size + round_**2).sqrt() - round_)).sum()
        dense = None
        if self.background is not None:
            slopes = torch.einsum("mci,mck->mik", e.gradients, self.background.basis[e.cells]) * self.length
            dense = -(root[:, None, None] * slopes).reshape(3 * m, -1)
        return Rows((root[:, None] * gradient).reshape(-1), row, column, value, exact, dense)

    def _sources(self, T: Tensor) -> Rows:
        assert self.landscape is not None
        found = self.landscape.basins(T.numpy(), ~self.active.numpy())  # type: ignore[union-attr]
        node, saddle, row = torch.from_numpy(found.node), torch.from_numpy(found.saddle), torch.arange(len(found.node))
        slope = T.new_full((len(row),), 1.0 / self.tuning.source_sd)
        return Rows((T[saddle] - T[node]) * slope, torch.cat([row, row]), torch.cat([node, saddle]), torch.cat([-slope, slope]))

    def _smooth(self, T: Tensor) -> Rows:
        row, column, value = self._laplacian
        root = (self.tuning.smooth / self.patch) ** 0.5
        residual = T.new_zeros(self.nodes).index_add(0, row, root * value * T[column])
        return Rows(residual, row, column, root * value)

    def limit(self, theta: Tensor, step: Tensor) -> Tensor:
        n = self.nodes
        step = torch.cat([step[:n].clamp(-2.0, 2.0), step[n : 2 * n].clamp(-1.0, 1.0), step[2 * n :]])
        if self.free:
            step[-2] = step[-2].clamp(-0.7, 0.7)
            step[-1] = step[-1].clamp(-0.05, 0.05)
        return step


def contaminated(sd: float, spread: float, share: float = 0.02) -> Contaminated:
    """For data of which a share may lie anywhere within `spread`."""
    return Contaminated(max(1e-6, share / (1.0 - share) * (2.0 * np.pi) ** 0.5 * sd / max(spread, sd)))
