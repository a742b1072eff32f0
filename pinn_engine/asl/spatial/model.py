"""The perfusion model of all voxels at once: fields are relative flow m and arrival shift d.

A voxel's signal is the sum of its tissues', each with its own arrival and, where no T1 map was given, its own T1:
share_t (F_t + m s_t) curve_t(D_t + d). F and D are what the tissue has on the average; s = F except in fluid, whose F is about 0. So both
fields, m without unit and d in seconds, are about zero and smooth across a tissue. A voxel's flow is the sum of its tissues', its arrival
their mean weighed by flow. Curves come from tables on the plan's arrival grid, linear in between.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.smooth_fit import Linearised
from ..arrival import scores
from ..arterial import Marginal
from ..plan import Plan
from .tissue import Tissue

LEAST_FLOW = 0.05  # of the strongest tissue's: fluid, which has none, still needs a unit
LOWEST, HIGHEST = -2.0, 8.0  # of m
PURE = 4  # power of the share that a voxel counts with where pure tissue is wanted
POOL = 8  # steps of diffusion before the start is chosen
SHIFT, SHIFT_SD = 1.5, 0.5  # s: the start's arrival times about the tissue's, and a weak pull towards it
MEANS_SD = 0.3  # of relative flow and arrival (s) of a tissue about the start: fields have levels of their own


class BrainModel:
    """Whitened data, their precision and curves of unit flow of every tissue; `linearise` is what the joint fit asks for.

    `noise_excess` (see noise.py): what neighbours say alike by noise must not be taken for structure, so the data count that much less.
    """

    def __init__(self, plan: Plan, level: float, tissue: Tissue, noise_excess: float = 1.0):
        self.plan, self.tissue = plan, tissue
        rows = torch.arange(len(plan.c))
        data, precision = plan.whitened(rows, plan.tables, level)
        self.data, self.precision = data.float().cpu(), precision.float().cpu() / noise_excess**0.5
        self.marginal = plan.marginal(rows, self.precision)  # integrates arterial blood out
        if self.marginal is not None:
            self.data = self.data - self.marginal.mean.unsqueeze(1) * self.marginal.column / self.precision
        self.att = plan.att.float()
        self.step = float(self.att[1] - self.att[0])
        own = plan.tables.grid.float().cpu()
        self.group = plan.group if own.shape[0] > 1 else torch.zeros_like(plan.group)
        tables = [own] if tissue.t1_of is None else [plan.grid_of(t1).float().cpu() for t1 in tissue.t1_of]
        curves = [(table, torch.gradient(table, spacing=self.step, dim=1)[0]) for table in tables]
        self.curves = curves * (2 if tissue.known and tissue.t1_of is None else 1)  # T1 of a map is the voxel's, whatever it holds
        zero = torch.zeros(len(self.curves), len(rows))
        self.own, self.rest = zero, torch.zeros(len(rows))  # how a voxel's flow, by tissue, may differ from the fields'; variance beside
        self.base, self.unit = zero, zero + 1  # flow of each tissue at m = 0, and per m
        self.delay = zero + plan.att_fixed  # arrival of each tissue
        self.moved = torch.zeros(2 * len(self.curves))  # since the start: relative flow and arrival of each tissue

    @property
    def mean(self) -> Tensor:
        """(V,) flow at m = 0."""
        return self.base.sum(dim=0)

    @property
    def flow(self) -> Tensor:
        """(V,) flow per m."""
        return self.unit.sum(dim=0)

    @property
    def arrival(self) -> Tensor:
        """(V,) s, at d = 0."""
        return (self.unit * self.delay).sum(dim=0) / self.flow

    def set_tissue_means(self) -> None:
        """Flow and arrival of each tissue by least squares over the whole brain, under the usual prior of arrival.

        A voxel's signal is its tissues' sum; all pairs of arrival times on the grid are tried. Fluid arrives with grey matter.
        """
        share = torch.as_tensor(self.tissue.share)
        weight = (share**PURE).sum(dim=1)  # shares of mixed voxels are less sure
        of = [0, 1, 0][: 3 if len(self.curves) > 1 else 1]  # whose curve
        tables = [self.curves[k][0].double() for k in of]
        square = self.precision.double().square()
        count, points = len(tables[0]), len(self.att)

        def by_group(values: Tensor) -> Tensor:
            """(G, K) sums."""
            return torch.zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, self.group, values)

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
        at = torch.cartesian_prod(*[torch.arange(points)] * len(self.curves)).reshape(-1, len(self.curves))  # (P, tissues with a curve)
        right = torch.stack([signal[i][at[:, of[i]]] for i in range(len(of))], dim=1)
        normal = torch.stack(
            [torch.stack([grams[i][j][at[:, of[i]], at[:, of[j]]] for j in range(len(of))], dim=1) for i in range(len(of))], dim=1
        )
        ridge = 1e-9 * normal.diagonal(dim1=1, dim2=2).sum(dim=1).mean() * torch.eye(len(of), dtype=torch.float64)
        flows = torch.linalg.solve(normal + ridge, right)
        gain = 0.5 * (flows * right).sum(dim=1) + self.plan.log_prior.cpu()[at].sum(dim=1)
        impossible = (flows[:, :2] < 0).any(dim=1)
        best = int(torch.where(impossible & ~impossible.all(), -torch.inf, gain).argmax())
        flow, delay = flows[best].float(), self.att[at[best]]
        share = share[:, : len(of)].float()
        most = float(flow[:2].max().clamp_min(1e-6))
        flow[2:] = flow[2:].clamp(0, LEAST_FLOW * most)
        of_curve = torch.eye(len(self.curves))[:, of]  # (tissues with a curve, tissues)
        self.base, self.unit = of_curve @ (share * flow).T, of_curve @ (share * flow.clamp_min(LEAST_FLOW * most)).T
        self.delay = delay.unsqueeze(1).expand_as(self.base)
        if self.tissue.doubt is not None and len(self.curves) > 1:
            self._set_own(flow[:2])

    def _set_own(self, flow: Tensor) -> None:
        """What the doubt of shares does to the flow of each tissue: its first principal axis, and the variance that this leaves out."""
        doubt = torch.as_tensor(self.tissue.doubt, dtype=torch.float32)[:, :2, :2] * flow * flow.unsqueeze(1)
        value, axis = torch.linalg.eigh(doubt)
        self.own = (axis[:, :, 1] * value[:, 1:].clamp_min(0).sqrt()).T.contiguous()
        self.rest = (doubt.sum(dim=(1, 2)) - self.own.sum(dim=0).square()).clamp_min(0)

    def start_scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts of arrival (J,); data against prediction, and information on relative flow, (V, J) at each of them."""
        reach = round(SHIFT / self.step)
        shift = torch.arange(-reach, reach + 1)
        shifted = [
            table[:, (self._place(delay[:1])[0] + shift).clamp(0, len(self.att) - 1)]
            for (table, _), delay in zip(self.curves, self.delay, strict=True)
        ]
        cross, total = torch.empty(len(self.data), len(shift)), torch.empty(len(self.data), len(shift))
        for rows in self.plan.chunks():  # most hold one group: its voxels share tables
            data, precision = self.data[rows], self.precision[rows]
            here = [self.plan.rows_of(rows, table) for table in shifted]
            units = self.unit[:, rows].unsqueeze(2)
            a = b = torch.zeros(1)
            for i, one in enumerate(here):
                by_data, information = scores(data, precision, one)
                a, b = a + units[i] * by_data, b + units[i].square() * information
                for j in range(i):
                    b = b + 2 * units[i] * units[j] * _weighed(precision.square(), one * here[j])
            cross[rows], total[rows] = a, b
        return shift * self.step, cross, total

    def start(self, shift: Tensor, cross: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (2, V) from scores pooled over neighbours, and that arrival time (V,)."""
        near = -0.5 * (shift / SHIFT_SD) ** 2
        best = (0.5 * cross.clamp_min(0) ** 2 / total.clamp_min(1e-12) + near).argmax(dim=1, keepdim=True)
        m = (cross / total.clamp_min(1e-12)).gather(1, best).squeeze(1) - self.mean / self.flow
        d = shift[best.squeeze(1)]
        return torch.stack([m.clamp(-0.9, 3.0), d]), self.physical(torch.stack([m, d]))[1]

    def physical(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and arrival time (V,) of fields (2, V), within the range of the model."""
        return self.mean + self.flow * x[0].clamp(LOWEST, HIGHEST), (self.arrival + x[1]).clamp(float(self.att[0]), float(self.att[-1]))

    def linearise(self, x: Tensor) -> Linearised:
        residual, by, own = self._rows(x)
        residual, by_m, by_d = (own.rows(x) for x in (residual, *by))
        gradient = torch.stack([(by_m * residual).sum(dim=1), (by_d * residual).sum(dim=1)])
        cross = (by_m * by_d).sum(dim=1)
        information = torch.stack([by_m.square().sum(dim=1), cross, cross, by_d.square().sum(dim=1)]).reshape(2, 2, -1)
        return gradient, information, 0.5 * residual.square().sum(dim=1)

    def with_own_flow(self, x: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flow and arrival time (V,) and their covariance (2, 2, V) at fields x of `covariance`, the voxel's own flow included.

        Its tissues' flow is z `own` beyond the fields', z of unit variance: more of a tissue is more flow, and its arrival.
        """
        residual, by, own = self._rows(x)
        flow, att = self.physical(x)
        gain, (z, *z_by) = _own_flow(own, residual, *by)
        more = self.own.sum(dim=0)
        later = (self.own * (self.delay - self.arrival)).sum(dim=0) / self.flow
        jacobian = torch.stack([self.flow + more * z_by[0], more * z_by[1], later * z_by[0], 1 + later * z_by[1]]).reshape(2, 2, -1)
        both = torch.einsum("afv,fgv,bgv->abv", jacobian, covariance, jacobian)
        effect = torch.stack([more, later])
        both = both + gain * effect.unsqueeze(0) * effect.unsqueeze(1)
        both[0, 0] += self.rest
        return flow + z * more, att + z * later, both

    def predicted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated data points (V, K) at fields x with the voxel's own flow, and their slopes (V, K, 2) by flow and arrival time."""
        residual, _, own = self._rows(x)
        _, (z,) = _own_flow(own, residual)
        curve, by_m, by_d, more = self._curves(x)
        return curve + z.unsqueeze(1) * more, torch.stack([by_m / self.flow.unsqueeze(1), by_d], dim=2)

    def _place(self, att: Tensor) -> Tensor:
        """Nearest point of the grid."""
        return ((att - self.att[0]) / self.step).round().long()

    def _rows(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Marginal]:
        """Whitened residual (V, K), its slopes by both fields, and the voxel's own flow that is to be integrated out."""
        curve, by_m, by_d, own = self._curves(x)
        rows = [self.precision * one for one in (curve - self.data, by_m, by_d, own)]
        if self.marginal is not None:
            rows = [self.marginal.rows(one) for one in rows]
        return rows[0], (rows[1], rows[2]), Marginal(rows[3], torch.zeros(len(own)), torch.ones(len(own)))

    def linearise_shared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of relative flow and arrival (s) of each tissue, see `core.smooth_fit.Shared`.

        The unit of m stays: by a larger one the same flows would cost the prior less.
        """
        residual, by, own = self._rows(x)
        of = zip(self._tissues(x), self.unit, strict=True)
        rows = [self.precision * one for (curve, slope, flow), unit in of for one in (unit.unsqueeze(1) * curve, flow * slope)]
        if self.marginal is not None:
            rows = [self.marginal.rows(one) for one in rows]
        part = (self.unit / self.flow).T
        none = torch.zeros_like(part)
        worth = torch.stack([torch.stack([part, none], dim=2), torch.stack([none, part], dim=2)]).flatten(start_dim=2)
        fields = torch.stack([own.rows(one) for one in by])
        beyond = torch.stack([own.rows(one) for one in rows], dim=2) - torch.einsum("fvk,fvp->vkp", fields, worth)
        return (
            worth,
            torch.einsum("vkp,vk->p", beyond, own.rows(residual)) + self.moved / MEANS_SD**2,
            torch.einsum("vkp,vkq->pq", beyond, beyond) + torch.eye(len(self.moved)) / MEANS_SD**2,
            torch.einsum("fvk,vkp->fvp", fields, beyond),
        )

    def move_shared(self, step: Tensor) -> None:
        self.moved = self.moved + step
        flow, delay = step.reshape(-1, 2, 1).unbind(dim=1)
        self.base = self.base + self.unit * flow
        self.delay = self.delay + delay

    def _tissues(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Curve (V, K), slope by arrival time and flow (V, 1) of each tissue at fields x."""
        out, m = [], x[0].clamp(LOWEST, HIGHEST)
        for (table, change), base, unit, delay in zip(self.curves, self.base, self.unit, self.delay, strict=True):
            place = ((delay + x[1] - self.att[0]) / self.step).clamp(0, len(self.att) - 1.001)
            low = place.long()
            part = (place - low).unsqueeze(1)
            curve = torch.lerp(table[self.group, low], table[self.group, low + 1], part)
            slope = torch.lerp(change[self.group, low], change[self.group, low + 1], part)
            out.append((curve, slope, (base + m * unit).unsqueeze(1)))
        return out

    def _curves(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotated data points (V, K) of fields x, their slopes by both, and what the voxel's own flow adds."""
        total, by_m, by_d, own = (torch.zeros_like(self.data) for _ in range(4))
        for (curve, slope, flow), unit, more in zip(self._tissues(x), self.unit, self.own, strict=True):
            total, by_m, by_d = total + flow * curve, by_m + unit.unsqueeze(1) * curve, by_d + flow * slope
            own = own + more.unsqueeze(1) * curve
        return total, by_m, by_d, own


def _own_flow(own: Marginal, *rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Variance (V,) of the voxel's own flow z given whitened rows, and the mean of z (or its slope) that each of `rows` (V, K) asks for."""
    gain = 1 / (1 + own.column.square().sum(dim=1))
    return gain, [-gain * (own.column * one).sum(dim=1) for one in rows]


def _weighed(weight: Tensor, table: Tensor) -> Tensor:
    """(B, J) of weights (B, K) and a table (B or 1, J, K)."""
    return weight @ table[0].T if len(table) == 1 else (table @ weight.unsqueeze(2)).squeeze(2)


def alikeness(share: np.ndarray, first: Tensor, second: Tensor, width: float = 0.25) -> Tensor:
    """(E,) 1 where the ends of an edge are of one tissue, towards 0 where they are not."""
    p = torch.as_tensor(share, dtype=torch.float32)
    return torch.exp(-0.5 * (p[first] - p[second]).square().sum(dim=1) / width**2)
