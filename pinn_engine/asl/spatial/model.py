"""The perfusion model of all voxels at once: of every tissue a field of relative flow m and one of arrival shift d.

A voxel's signal is the sum of its tissues', each with its own arrival and, where no T1 map was given, its own T1:
sum over t of share_t (F_t + m_t s_t) curve_t(D_t + d_t). F and D are what the tissue has on the average, s is F at the start, except in
fluid, whose F is about 0 and which goes with grey matter. Fields, m without unit and d in seconds, are about zero and smooth in space,
whatever tissue lies between: neighbours in a folded cortex are those across the sulcus too (a field a tissue: Chappell 2011,
doi:10.1002/mrm.22641). A voxel's flow is the sum of its tissues', its arrival their mean weighed by s. Fields are numbered m of all T
tissues first, then d of all. Curves come from tables on the plan's arrival grid, linear in between.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.smooth_fit import Linearised
from ..arrival import scores
from ..arterial import Marginal
from ..plan import Plan
from .loose import Loose, of_change, together
from .tissue import Tissue

LEAST_FLOW = 0.05  # of the strongest tissue's: fluid, which has none, still needs a unit
LOWEST, HIGHEST = -2.0, 15.0  # of m
PURE = 4  # power of the share that a voxel counts with where pure tissue is wanted
POOL = 8  # steps of diffusion before the start is chosen
SHIFT, SHIFT_SD = 1.5, 0.5  # s: the start's arrival times about the tissue's, and a weak pull towards it


class BrainModel:
    """Whitened data, their precision and curves of unit flow of every tissue; `linearise` is what the joint fit asks for.

    `noise_excess` (see noise.py): what neighbours say alike by noise must not be taken for structure, so the data count that much less.
    """

    def __init__(self, plan: Plan, level: float, tissue: Tissue, noise_excess: float = 1.0):
        self.plan, self.tissue, self.noise_excess, self.device = plan, tissue, noise_excess, plan.device
        self.share = torch.as_tensor(tissue.share, device=self.device)
        rows = torch.arange(len(plan.c))
        data, precision = plan.whitened(rows, plan.tables, level)
        self.data, self.precision = data.float(), precision.float() / noise_excess**0.5
        self.marginal = plan.marginal(rows, self.precision)  # integrates arterial blood out
        if self.marginal is not None:
            self.data = self.data - self.marginal.mean.unsqueeze(1) * self.marginal.column / self.precision
        self.att = plan.att.float().to(self.device)
        self.step = float(self.att[1] - self.att[0])
        own = plan.tables.grid.float()
        self.group = plan.group.to(self.device) if own.shape[0] > 1 else torch.zeros_like(plan.group, device=self.device)
        tables = [own] if tissue.t1_of is None else [plan.grid_of(t1).float() for t1 in tissue.t1_of]
        curves = [(table, torch.gradient(table, spacing=self.step, dim=1)[0]) for table in tables]
        self.curves = curves * (2 if tissue.known and tissue.t1_of is None else 1)  # T1 of a map is the voxel's, whatever it holds
        zero = self.data.new_zeros(len(self.curves), len(rows))
        self.own, self.rest = zero, zero[0]  # how a voxel's flow, by tissue, may differ from the fields'; variance beside
        self.base, self.unit = zero, zero + 1  # flow of each tissue at m = 0, and per m
        self.delay = zero + plan.att_fixed  # arrival of each tissue
        self.loose: Loose | None = None

    @property
    def count(self) -> int:
        """T, tissues with fields of their own."""
        return len(self.curves)

    @property
    def flow(self) -> Tensor:
        """(V,) flow per m, all tissues together."""
        return self.unit.sum(dim=0)

    @property
    def voxel(self) -> Tensor:
        """(2, 2T, V) slopes of a voxel's flow and arrival time by the fields."""
        none = torch.zeros_like(self.unit)
        return torch.stack([torch.cat([self.unit, none]), torch.cat([none, self.unit / self.flow])])

    def set_tissue_means(self) -> None:
        """Flow and arrival of each tissue by least squares over the whole brain, under the usual prior of arrival.

        A voxel's signal is its tissues' sum; all pairs of arrival times on the grid are tried. Fluid arrives with grey matter.
        """
        share = self.share
        weight = (share**PURE).sum(dim=1)  # shares of mixed voxels are less sure
        of = [0, 1, 0][: 3 if len(self.curves) > 1 else 1]  # whose curve
        tables = [self.curves[k][0].double() for k in of]
        square = self.precision.double().square()
        count, points = len(tables[0]), len(self.att)

        def by_group(values: Tensor) -> Tensor:
            """(G, K) sums."""
            return values.new_zeros(count, values.shape[1]).index_add_(0, self.group, values)

        signal = [
            torch.einsum("gak,gk->a", table, by_group((weight * share[:, i]).unsqueeze(1) * square * self.data))
            for i, table in enumerate(tables)
        ]
        grams = [
            [
                torch.einsum("gak,gk,gbk->ab", one, by_group((weight * share[:, i] * share[:, j]).unsqueeze(1) * square), two)
                for j, two in enumerate(tables)
            ]
            for i, one in enumerate(tables)
        ]
        grid = torch.arange(points, device=self.device)
        at = torch.cartesian_prod(*[grid] * len(self.curves)).reshape(-1, len(self.curves))  # (P, tissues with a curve)
        right = torch.stack([signal[i][at[:, of[i]]] for i in range(len(of))], dim=1)
        normal = torch.stack(
            [torch.stack([grams[i][j][at[:, of[i]], at[:, of[j]]] for j in range(len(of))], dim=1) for i in range(len(of))], dim=1
        )
        ridge = 1e-9 * normal.diagonal(dim1=1, dim2=2).sum(dim=1).mean() * torch.eye(len(of)).to(normal)
        flows = torch.linalg.solve(normal + ridge, right)
        gain = 0.5 * (flows * right).sum(dim=1) + self.plan.log_prior.to(right)[at].sum(dim=1)
        impossible = (flows[:, :2] < 0).any(dim=1)
        best = int(torch.where(impossible & ~impossible.all(), -torch.inf, gain).argmax())
        flow, delay = flows[best].float(), self.att[at[best]]
        share = share[:, : len(of)].float()
        most = float(flow[:2].max().clamp_min(1e-6))
        flow[2:] = flow[2:].clamp(0, LEAST_FLOW * most)
        of_curve = torch.eye(len(self.curves))[:, of].to(share)  # (tissues with a curve, tissues)
        self.base, self.unit = of_curve @ (share * flow).T, of_curve @ (share * flow.clamp_min(LEAST_FLOW * most)).T
        self.delay = delay.unsqueeze(1).expand_as(self.base)
        if self.tissue.doubt is not None and len(self.curves) > 1:
            self._set_own(flow[:2])

    def _set_own(self, flow: Tensor) -> None:
        """What the doubt of shares does to the flow of each tissue: its first principal axis, and the variance that this leaves out."""
        doubt = torch.as_tensor(self.tissue.doubt, dtype=torch.float32, device=self.device)[:, :2, :2] * flow * flow.unsqueeze(1)
        a, b, c = doubt[:, 0, 0], doubt[:, 0, 1], doubt[:, 1, 1]
        value, angle = 0.5 * (a + c) + torch.hypot(0.5 * (a - c), b), 0.5 * torch.atan2(2 * b, a - c)
        self.own = value.clamp_min(0).sqrt() * torch.stack([angle.cos(), angle.sin()])
        self.rest = (doubt.sum(dim=(1, 2)) - self.own.sum(dim=0).square()).clamp_min(0)

    def start_scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts of arrival (J,); data against prediction, and information on relative flow, (V, J) at each of them."""
        reach = round(SHIFT / self.step)
        shift = torch.arange(-reach, reach + 1, device=self.device)
        shifted = [
            table[:, (self._place(delay[:1])[0] + shift).clamp(0, len(self.att) - 1)]
            for (table, _), delay in zip(self.curves, self.delay, strict=True)
        ]
        cross, total = self.data.new_empty(2, len(self.data), len(shift))
        for rows in self.plan.chunks():  # most hold one group: its voxels share tables
            data, precision = self.data[rows], self.precision[rows]
            here = [self.plan.rows_of(rows, table) for table in shifted]
            units = self.unit[:, rows].unsqueeze(2)
            a = b = data.new_zeros(1)
            for i, one in enumerate(here):
                by_data, information = scores(data, precision, one)
                a, b = a + units[i] * by_data, b + units[i].square() * information
                for j in range(i):
                    b = b + 2 * units[i] * units[j] * _weighed(precision.square(), one * here[j])
            cross[rows], total[rows] = a, b
        return shift * self.step, cross, total

    def start(self, shift: Tensor, cross: Tensor, total: Tensor) -> Tensor:
        """(2, V) relative flow and shift of arrival from scores (V, J) pooled over neighbours."""
        near = -0.5 * (shift / SHIFT_SD) ** 2
        best = (0.5 * cross.clamp_min(0) ** 2 / total.clamp_min(1e-12) + near).argmax(dim=1, keepdim=True)
        m = ((cross - total) / total.clamp_min(1e-12)).gather(1, best).squeeze(1)  # 0 where no data are near
        return torch.stack([m.clamp(-0.9, 3.0), shift[best.squeeze(1)]])

    def recentre(self, x: Tensor) -> Tensor:
        """Fields about zero in their tissue: what they have on the average goes into its flow and arrival, which have no prior.

        What voxels stand apart from them is learnt again.
        """
        weight = self.unit / self.unit.sum(dim=1, keepdim=True)
        m, d = (torch.sum(weight * part, dim=1, keepdim=True) for part in (x[: self.count], x[self.count :]))
        self.base = self.base + self.unit * m
        self.delay = self.delay + d
        x = x - torch.cat([m, d])
        self.loose = Loose.of(self.linearise_data(x), self.noise_excess, self.count)
        return x

    def physical(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and arrival time (V,) of fields (2T, V), within the range of the model."""
        flow = (self.base + self.unit * x[: self.count].clamp(LOWEST, HIGHEST)).sum(dim=0)
        att = (self.unit * (self.delay + x[self.count :])).sum(dim=0) / self.flow
        return flow, self._possible(att)

    def linearise(self, x: Tensor) -> Linearised:
        """What the data say of the fields; less where a voxel likely has a signal of its own."""
        data = self.linearise_data(x)
        return data if self.loose is None else self.loose.freed(data)

    def linearise_data(self, x: Tensor) -> Linearised:
        residual, by, own = self._rows(x)
        residual = own.rows(residual)
        rows = torch.stack([own.rows(one) for one in by])
        gradient = (rows * residual).sum(dim=2)
        information = torch.einsum("fvk,gvk->fgv", rows, rows)
        return gradient, information, 0.5 * residual.square().sum(dim=1)

    def linearise_together(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (2, V) and information (2, 2, V) on what moves the fields of all tissues alike."""
        gradient, _, information = of_change(self.linearise(x), self.count)
        return gradient, information

    def alike(self, both: np.ndarray | Tensor) -> Tensor:
        """(2T, V) fields of all tissues from one change of relative flow and arrival (2, V)."""
        return torch.as_tensor(both, device=self.device).repeat_interleave(self.count, dim=0)

    def with_own_flow(self, x: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flow and arrival time (V,) and their covariance (2, 2, V) at fields x of `covariance`, the voxel's own flow included.

        Its tissues' flow is z `own` beyond the fields', z of unit variance: more of a tissue is more flow, and its arrival.
        """
        residual, by, own = self._rows(x)
        flow, att = self.physical(x)
        gain, (z, *z_by) = _own_flow(own, residual, *by)
        later = (self.own * (self.delay + x[self.count :] - att)).sum(dim=0) / self.flow
        effect = torch.stack([self.own.sum(dim=0), later])
        jacobian = self.voxel + effect.unsqueeze(1) * torch.stack(z_by)
        both = torch.einsum("afv,fgv,bgv->abv", jacobian, covariance, jacobian)
        both = both + gain * effect.unsqueeze(0) * effect.unsqueeze(1)
        both[0, 0] += self.rest
        return flow + z * effect[0], self._possible(att + z * effect[1]), both

    def predicted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated data points (V, K) at fields x with the voxel's own flow, and their slopes (V, K, 2) by flow and arrival time."""
        residual, _, own = self._rows(x)
        _, (z,) = _own_flow(own, residual)
        curve, by, more = self._curves(x)
        by_m, by_d = together(torch.stack(by), self.count)
        return curve + z.unsqueeze(1) * more, torch.stack([by_m / self.flow.unsqueeze(1), by_d], dim=2)

    def shifted(self, x: Tensor, rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated data points (B, J, K) of some voxels at fields x with all arrivals moved by `shift` (J,), their slope by relative flow
        there, and (B, J) where the voxel's arrival stays within the model's range; no shift always does."""
        curve, slope = self.data.new_zeros(2, len(rows), len(shift), self.data.shape[1])
        for k, (table, _) in enumerate(self.curves):
            arrival = (self.delay[k, rows] + x[self.count + k, rows]).unsqueeze(1) + shift
            one = _between(table, self.group[rows].unsqueeze(1), *self._cell(arrival))
            flow = self.base[k, rows] + x[k, rows].clamp(LOWEST, HIGHEST) * self.unit[k, rows]
            curve += flow[:, None, None] * one
            slope += self.unit[k, rows][:, None, None] * one
        here = (self.unit[:, rows] * (self.delay[:, rows] + x[self.count :, rows])).sum(dim=0) / self.flow[rows]
        arrival = here.unsqueeze(1) + shift
        return curve, slope, (shift == 0) | ((arrival >= self.att[0]) & (arrival <= self.att[-1]))

    def _possible(self, att: Tensor) -> Tensor:
        """Arrival within the range of the model."""
        return att.clamp(self.att[0], self.att[-1])

    def _place(self, att: Tensor) -> Tensor:
        """Nearest point of the grid."""
        return ((att - self.att[0]) / self.step).round().long()

    def _cell(self, att: Tensor) -> tuple[Tensor, Tensor]:
        """Point of the grid below, and the part of the way to the next."""
        place = ((att - self.att[0]) / self.step).clamp(0, len(self.att) - 1.001)
        low = place.long()
        return low, place - low

    def _rows(self, x: Tensor) -> tuple[Tensor, list[Tensor], Marginal]:
        """Whitened residual (V, K), its slopes by every field, and the voxel's own flow that is to be integrated out."""
        curve, by, own = self._curves(x)
        rows = [self.precision * one for one in (curve - self.data, *by, own)]
        if self.marginal is not None:
            rows = [self.marginal.rows(one) for one in rows]
        return rows[0], rows[1:-1], Marginal(rows[-1], own.new_zeros(len(own)), own.new_ones(len(own)))

    def _curves(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Rotated data points (V, K) of fields x, their slopes by every field, and what the voxel's own flow adds."""
        total, own = torch.zeros_like(self.data), torch.zeros_like(self.data)
        by_m, by_d = [], []
        for k, (table, change) in enumerate(self.curves):
            cell = self._cell(self.delay[k] + x[self.count + k])
            curve, slope = (_between(values, self.group, *cell) for values in (table, change))
            unit = self.unit[k].unsqueeze(1)
            flow = self.base[k].unsqueeze(1) + x[k].clamp(LOWEST, HIGHEST).unsqueeze(1) * unit
            total, own = total + flow * curve, own + self.own[k].unsqueeze(1) * curve
            by_m.append(unit * curve)
            by_d.append(flow * slope)
        return total, by_m + by_d, own


def _between(table: Tensor, group: Tensor, low: Tensor, part: Tensor) -> Tensor:
    """(…, K) rows of a table (G, A, K), linear between the points of its grid."""
    return torch.lerp(table[group, low], table[group, low + 1], part.unsqueeze(-1))


def _own_flow(own: Marginal, *rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Variance (V,) of the voxel's own flow z given whitened rows, and the mean of z (or its slope) that each of `rows` (V, K) asks for."""
    gain = 1 / (1 + own.column.square().sum(dim=1))
    return gain, [-gain * (own.column * one).sum(dim=1) for one in rows]


def _weighed(weight: Tensor, table: Tensor) -> Tensor:
    """(B, J) of weights (B, K) and a table (B or 1, J, K)."""
    return weight @ table[0].T if len(table) == 1 else (table @ weight.unsqueeze(2)).squeeze(2)
