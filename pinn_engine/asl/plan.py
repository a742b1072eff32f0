"""What all voxels of a scan have in common: settings, priors, units, and one table of predictions for each group of voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core import Fixed, Free, Gaussian, ReducedNetwork, Unknowns
from .arrival import best_start, log_evidence
from .arterial import ArterialPrior, Marginal, arterial_curve
from .collocation import collocate, reduced_network
from .curves import Curves
from .kinetics import OUTFLOW, Kinetics, apparent_t1, kinetics
from .presets import T1B_SD
from .problems import ClosedForm, FeatureNetwork
from .readout import train
from .scan import Scan

ATT_PRIOR = {"PCASL": (1.3, 1.0), "CASL": (1.3, 1.0), "PASL": (0.7, 1.0)}  # mean, sd in s, as BASIL (doi:10.1109/TSP.2008.2005752)
ATT_STEP = 0.05  # s between the starts
SPACING = {"features": 0.075, "mlp": 0.2}  # s between collocation edges
T1_CLASS = 0.01  # relative width of the classes in which the voxels of a T1 map share a table
FLOW_PRIOR = 3.0  # sd of the flow prior, in typical flows of the scan: shortens the wildest tails and moves little else


@dataclass(frozen=True)
class Settings:
    """How to fit. `model_error`: sd of the equation's error relative to the typical signal; None = by evidence from the scan."""

    unknown: tuple[str, ...] = ("cbf", "att")
    model: str = "buxton"
    method: str = "pinn"
    network: str = "features"
    model_error: float | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    flow_prior: Gaussian | None = None  # of a region's mean, mL/100 g/min; None: the scan's own typical flow
    t1b_prior: Gaussian | None = None  # None: around the scan's own, sd T1B_SD
    hidden: tuple[int, ...] = (6,)
    activation: str = "tanh"
    chunk: int = 32768


@dataclass(frozen=True)
class Tables:
    """Per group of voxels (G): the rotation that whitens its data rows, the spread of model error, predictions on the arrival grid.

    Closed form: the rotation is the root of the repeats, the spread is 0. Network: what is left when its output layer is eliminated.
    """

    rotation: Tensor  # (G, K, K)
    inverse: Tensor  # (G, K, K) back from rotated rows to data
    spread: Tensor  # (G, K)
    grid: Tensor  # (G, A, K) predictions of unit flow
    propagator: Tensor | None = None  # (G, M, K)

    def to(self, device: torch.device, dtype: torch.dtype) -> Tables:
        """The same tables where and as precise as the fit wants them."""
        propagator = None if self.propagator is None else self.propagator.to(device=device, dtype=dtype)
        rotation, inverse, spread, grid = (t.to(device=device, dtype=dtype) for t in (self.rotation, self.inverse, self.spread, self.grid))
        return Tables(rotation, inverse, spread, grid, propagator)


class Plan:
    """Groups, units, priors and tables of one scan; its methods take `rows`, indices of some voxels, and give what their fit needs."""

    def __init__(self, c: Curves, scan: Scan, s: Settings):
        a = scan.acquisition
        self.c, self.s, self.labeling = c, s, a.labeling
        self.t1b, self.partition = a.t1_blood.number, a.partition.number
        self.t1b_prior = s.t1b_prior or Gaussian(self.t1b, T1B_SD)
        self.device, self.dtype = torch.device(s.device), s.dtype
        self._group_voxels(a.t1_tissue.number)
        self.known_att = None if scan.arrival is None else torch.as_tensor(scan.arrival.att[c.voxels])
        self.times, self.tau = torch.as_tensor(c.times), torch.as_tensor(c.label_duration)
        self.root = torch.as_tensor(c.repeats, dtype=torch.float64).sqrt()
        mean, sd = ATT_PRIOR[a.labeling]
        if scan.arrival is not None and self.known_att is not None:
            mean, sd = float(self.known_att.median()), scan.arrival.sd
        self.single = len(c.times) == 1 and scan.arrival is None
        self.att_fixed = 0.0 if self.single else mean  # one delay: the consensus formula, which takes all label as arrived
        self.att_max = max(float(max(c.times)) - 0.1, ATT_STEP)
        bayesian = s.method == "pinn" or scan.arrival is not None
        self.att_prior = Gaussian(mean, sd) if bayesian else None
        self.att = torch.arange(0.5 * ATT_STEP, self.att_max, ATT_STEP, dtype=torch.float64)
        self.log_prior = -0.5 * ((self.att - mean) / sd) ** 2 if bayesian else torch.zeros_like(self.att)
        if "att" not in s.unknown:
            self.att, self.log_prior = torch.tensor([self.att_fixed] * 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        self.flip = None if a.flip_angle is None else a.flip_angle.number
        unit = self.kinetics(0).closed_form(self.times, self.tau, torch.tensor(self.att_fixed), torch.tensor(self.t1b))[0]
        self.flow = c.amplitude / (float(unit.square().mean().sqrt()) or 1.0)  # typical flow of the scan
        self.flow_sd = FLOW_PRIOR * self.flow
        self.collocation = collocate(self.times, self.tau, self.group_delay, SPACING[s.network])
        self.arterial: ArterialPrior | None = None  # where arterial blood volume is sought
        self.tables = (self._network_tables() if s.method == "pinn" else self.closed_tables()).to(self.device, self.dtype)

    def _group_voxels(self, t1_default: float) -> None:
        """Voxels whose slices are read at the same time and whose T1 is the same share tables."""
        c = self.c
        t1 = np.full(len(c), t1_default) if c.t1_tissue is None else c.t1_tissue.astype(float)
        classes, member = np.unique(np.round(np.log(t1) / T1_CLASS).astype(int), return_inverse=True)
        keys, group = np.unique(c.delay * len(classes) + member.reshape(-1), return_inverse=True)
        group = group.reshape(-1)
        self.group = torch.as_tensor(group)
        self.group_delay = torch.as_tensor(c.delays[keys // len(classes)])
        self.group_t1 = np.bincount(group, weights=t1) / np.bincount(group)
        self.order = torch.argsort(self.group, stable=True)  # neighbours in memory share a group
        self.t1 = None if c.t1_tissue is None else torch.as_tensor(t1)

    def kinetics(self, g: int, t1: float | None = None) -> Kinetics:
        """The kinetic model of group g, or of another `t1` (s); one delay takes T1' = T1b, as the consensus formula does."""
        t1 = float(self.group_t1[g]) if t1 is None else t1
        if self.single:
            t1 = 1.0 / (1.0 / self.t1b - OUTFLOW / self.partition)
        return kinetics(self.labeling, self.s.model, t1, self.partition)

    def kinetics_of(self, rows: Tensor) -> Kinetics:
        """Exact T1' of every voxel where a T1 map was given."""
        if self.t1 is None or self.s.model == "simplified" or self.single:
            return self.kinetics(0)
        t1 = apparent_t1(self.t1[rows].to(self.device, self.dtype), self.partition)
        return type(self.kinetics(0))(t1.unsqueeze(1))  # type: ignore[union-attr, call-arg]

    def closed_tables(self) -> Tables:
        grid = [self._closed(g, self.kinetics(g)) for g in range(len(self.group_t1))]
        count = len(grid)
        rotation = torch.diag(self.root).expand(count, -1, -1)
        return Tables(rotation, torch.diag(1 / self.root).expand(count, -1, -1), torch.zeros(count, len(self.root)), torch.stack(grid))

    def _network_tables(self) -> Tables:
        nets, grids = zip(*(self._network(g, self.kinetics(g)) for g in range(len(self.group_t1))), strict=True)
        rotation, spread, propagator = (torch.stack([getattr(n, name) for n in nets]) for name in ("rotation", "spread", "propagator"))
        return Tables(rotation, torch.linalg.inv(rotation), spread, torch.stack(grids), propagator)

    def _closed(self, g: int, model: Kinetics) -> Tensor:
        """(A, K) weighted predictions of the closed form at the times of group g."""
        curves = model.closed_form(self.times + self.group_delay[g], self.tau, self.att.unsqueeze(1), torch.tensor(self.t1b))[0]
        seen = self.train_of(model)
        return (curves if seen is None else curves @ seen.T) * self.root

    def _network(self, g: int, model: Kinetics) -> tuple[ReducedNetwork, Tensor]:
        """The network of group g without its output layer, and its predictions (A, K)."""
        c = self.collocation
        net = reduced_network(c, g, float(model.loss_rate), self.root**2, self.train_of(model))
        low, high = c.edges[g, c.low], c.edges[g, c.high]
        supply = model.supply(low, high, c.tau, self.att.unsqueeze(1), torch.tensor(self.t1b, dtype=torch.float64))[0]
        return net, supply / c.widths[g].sqrt() @ net.propagator

    def grid_of(self, t1: float) -> Tensor:
        """(G, A, K) what `tables.grid` would be for tissue of `t1` s, each group's times and rotation as they are."""
        _, first, same = np.unique(self.group_delay.numpy(), return_index=True, return_inverse=True)
        grids = []
        for g in first:
            model = self.kinetics(int(g), t1)
            if self.tables.propagator is None:
                grids.append(self._closed(int(g), model) / self.root)
            else:
                net, grid = self._network(int(g), model)
                grids.append(grid @ torch.linalg.inv(net.rotation))
        return torch.stack(grids)[torch.as_tensor(same)].to(self.tables.grid) @ self.tables.rotation

    def train_of(self, model: Kinetics) -> Tensor | None:
        """(K, K) of a Look-Locker readout of tissue of `model`; None where each labelling is read once."""
        return None if self.flip is None else train(self.times.double(), float(model.loss_rate), self.flip)

    @property
    def equation_unit(self) -> float:
        """Equation row sd for which the model error at the data times is one typical signal (root mean square).

        e' + e/T' = q w has the variance q^2 T'/2 (1 - exp(-2 t/T')); without loss it is a random walk, q^2 t.
        """
        rate = float(np.median([float(self.kinetics(g).loss_rate) for g in range(len(self.group_t1))]))
        t = self.c.times + float(np.mean(self.c.delays))
        variance = -np.expm1(-2 * rate * t) / (2 * rate) if rate else t
        return self.c.amplitude / math.sqrt(float(np.mean(variance)))

    def unknowns(self, rows: Tensor | None = None) -> Unknowns:
        free, prior = self.s.unknown, self.att_prior
        if prior is not None and self.known_att is not None and rows is not None:
            prior = Gaussian(self.known_att[rows].to(self.device, self.dtype), prior.sd)
        att = Free(0.0, self.att_max, prior) if "att" in free else Fixed(self.att_fixed)
        t1b = Free(0.5 * self.t1b, 2.0 * self.t1b, self.t1b_prior) if "t1b" in free else Fixed(self.t1b)
        return Unknowns({"att": att, "t1b": t1b})

    def rows_of(self, rows: Tensor, table: Tensor) -> Tensor:
        """The table's row of every voxel; (1, ...) where these voxels share one."""
        if table.shape[0] == 1:
            return table
        group = self.group[rows]
        first = int(group[0])
        return table[first : first + 1] if bool((group == first).all()) else table[group.to(table.device)]

    def chunks(self) -> list[Tensor]:
        """All voxels in pieces of bounded size: large groups on their own (their voxels share tables), small ones together."""
        pieces: list[Tensor] = []
        small: list[Tensor] = []
        for rows in self.order.split(torch.bincount(self.group).tolist()):
            if len(rows) < self.s.chunk // 4:
                small.append(rows)
            else:
                pieces += rows.split(self.s.chunk)
        return pieces + list(torch.cat(small).split(self.s.chunk) if small else [])

    def whitened(self, rows: Tensor, tables: Tables, model_error: float) -> tuple[Tensor, Tensor]:
        """Rotated data (B, K) and the precision 1/sd (B, K) of each rotated row, for model error q = `model_error` in equation rows."""
        data = torch.as_tensor(self.c.data[rows.numpy()]).to(tables.grid)
        noise = torch.as_tensor(self.c.noise[rows.numpy()]).to(tables.grid)
        rotation = self.rows_of(rows, tables.rotation)
        rotated = data @ rotation[0] if rotation.shape[0] == 1 else (data.unsqueeze(1) @ rotation).squeeze(1)
        return rotated, (noise.unsqueeze(1) ** 2 + model_error**2 * self.rows_of(rows, tables.spread)).rsqrt()

    def marginal(self, rows: Tensor, precision: Tensor) -> Marginal | None:
        """The whitened arterial curve of some voxels and the prior of its volume; None where none is sought."""
        if self.arterial is None:
            return None
        a, t = self.arterial, self.times + self.group_delay[self.group[rows]].unsqueeze(1)
        curve = arterial_curve(self.labeling, t, self.tau, a.abat[rows].unsqueeze(1).to(t), self.t1b).to(precision)
        rotation = self.rows_of(rows, self.tables.rotation).to(curve)
        rotated = curve @ rotation[0] if rotation.shape[0] == 1 else (curve.unsqueeze(1) @ rotation).squeeze(1)
        return Marginal(rotated * precision, a.mean[rows].to(precision), a.sd[rows].to(precision))

    def start(self, rows: Tensor, tables: Tables, model_error: float) -> tuple[Tensor, Tensor]:
        """Best arrival time of the grid and its flow, each (B,)."""
        data, precision = self.whitened(rows, tables, model_error)
        if (marginal := self.marginal(rows, precision)) is not None:
            data = data - marginal.mean.unsqueeze(1) * marginal.column / precision
        return best_start(data, precision, self.rows_of(rows, tables.grid), self.att.to(data), self.log_prior_of(rows, data), self.flow_sd)

    def log_prior_of(self, rows: Tensor, like: Tensor) -> Tensor:
        """(A,) or, where arrival is known beforehand, (B, A)."""
        if self.known_att is None or self.att_prior is None or "att" not in self.s.unknown:
            return self.log_prior.to(like)
        away = (self.att - self.known_att[rows].unsqueeze(1)) / self.att_prior.sd
        return (-0.5 * away**2).to(like)

    def evidence(self, rows: Tensor, model_error: float) -> float:
        """log p(data of these voxels | model error), up to a constant."""
        data, precision = self.whitened(rows, self.tables, model_error)
        each = log_evidence(data, precision, self.rows_of(rows, self.tables.grid), self.log_prior_of(rows, data), self.flow_sd)
        return float(each.double().nansum())

    def prediction(self, rows: Tensor) -> ClosedForm | FeatureNetwork:
        model, c, tables = self.kinetics_of(rows), self.collocation, self.tables

        def on(table: Tensor) -> Tensor:
            return self.rows_of(rows, table.to(tables.grid))

        if tables.propagator is None:
            times, tau, root = self.times + self.group_delay.unsqueeze(1), self.tau.to(tables.grid), self.root.to(tables.grid)
            seen = (
                None
                if self.flip is None
                else on(
                    torch.stack(
                        [train(self.times.double(), float(self.kinetics(g).loss_rate), self.flip) for g in range(len(self.group_t1))]
                    )
                )
            )
            return ClosedForm(model, on(times), tau, root, seen)
        low, high = on(c.edges[:, c.low]), on(c.edges[:, c.high])
        return FeatureNetwork(model, low, high, c.tau.to(tables.grid), on(c.widths.sqrt()), self.rows_of(rows, tables.propagator))
