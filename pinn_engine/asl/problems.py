"""The least-squares problems of one chunk of voxels: closed form, shared-feature PINN, per-voxel MLP PINN.

All three share the data rows (weighted by the measured noise) and the priors; they differ in what stands for S(t).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import MLP, Problem, Separable, Unknowns, stack
from .arterial import Marginal
from .kinetics import Derivatives, Kinetics, Tissue


def take_kinetics(model: Kinetics, rows: Tensor) -> Kinetics:
    """The kinetic model for a subset of voxels, where T1' is one a voxel (B, 1)."""
    if isinstance(model, Tissue) and isinstance(model.t1_apparent, Tensor) and model.t1_apparent.ndim:
        return type(model)(model.t1_apparent[rows])
    return model


def transposed(model: Kinetics) -> Kinetics:
    """The kinetic model for arguments with voxels along the last axis."""
    if isinstance(model, Tissue) and isinstance(model.t1_apparent, Tensor) and model.t1_apparent.ndim:
        return type(model)(model.t1_apparent.T)
    return model


def batch_last(x: Tensor) -> Tensor:
    """The same (B, K) values with the voxels of one column side by side in memory: sums over few columns become several times faster."""
    return x.T.contiguous().T


def pick(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a per-voxel table; a table without voxel axis length (1, ...) serves all."""
    return table if table.shape[0] == 1 else table[rows]


@dataclass(frozen=True)
class ClosedForm:
    """Predicted data of unit flow from the closed form: (B, K), rows multiplied by the root of the repeats."""

    model: Kinetics
    times: Tensor  # (B or 1, K)
    tau: Tensor  # (K,)
    root: Tensor  # (K,) square root of the repeats
    train: Tensor | None = None  # (B or 1, K, K) of a Look-Locker readout

    def __call__(self, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        model = transposed(self.model)  # voxels last in memory, see `batch_last`
        signal, slopes = model.closed_form(self.times.T, self.tau.unsqueeze(1), att.T, t1b.T)
        return self._seen(signal), {name: self._seen(slope) for name, slope in slopes.items()}

    def _seen(self, curve: Tensor) -> Tensor:
        """(K, B) curves as read, (B, K)."""
        if self.train is not None:
            curve = self.train[0] @ curve if self.train.shape[0] == 1 else torch.einsum("bkl,lb->kb", self.train, curve)
        return (curve * self.root.unsqueeze(1)).T

    def take(self, rows: Tensor) -> ClosedForm:
        train = None if self.train is None else pick(self.train, rows)
        return ClosedForm(take_kinetics(self.model, rows), pick(self.times, rows), self.tau, self.root, train)


@dataclass(frozen=True)
class FeatureNetwork:
    """Predicted data of unit flow from the network whose output layer is eliminated: supply per interval times the propagator."""

    model: Kinetics
    low: Tensor  # (B or 1, M)
    high: Tensor
    tau: Tensor  # (M,)
    root_width: Tensor  # (B or 1, M)
    propagator: Tensor  # (B or 1, M, K)

    def __call__(self, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        supply, slopes = self.model.supply(self.low, self.high, self.tau, att, t1b)
        return self._propagate(supply), {name: self._propagate(slope) for name, slope in slopes.items()}

    def _propagate(self, supply: Tensor) -> Tensor:
        rows = supply / self.root_width
        return batch_last(rows @ self.propagator[0] if self.propagator.shape[0] == 1 else (rows.unsqueeze(1) @ self.propagator).squeeze(1))

    def take(self, rows: Tensor) -> FeatureNetwork:
        model = take_kinetics(self.model, rows)
        tables = (pick(self.low, rows), pick(self.high, rows), self.tau, pick(self.root_width, rows), pick(self.propagator, rows))
        return FeatureNetwork(model, *tables)


class FlowProblem(Separable):
    """y = f * prediction(att[, t1b]) in whitened rows, the flow f eliminated; a weak prior N(0, flow_sd^2) on f keeps it finite.

    `data` (B, K) rotated like the prediction; `precision` (B, K) is 1 / sd of each rotated row; `marginal` integrates arterial blood out.
    """

    def __init__(
        self,
        prediction: ClosedForm | FeatureNetwork,
        data: Tensor,
        precision: Tensor,
        unknowns: Unknowns,
        flow_sd: float,
        marginal: Marginal | None = None,
    ):
        data, precision = batch_last(data), batch_last(precision)
        white = data * precision if marginal is None else batch_last(marginal.data(data * precision))
        super().__init__(self._with_prior_row(white, 0.0), unknowns, ("cbf",))
        self.prediction, self.data, self.precision, self.flow_sd, self.marginal = prediction, data, precision, flow_sd, marginal

    def _white(self, rows: Tensor) -> Tensor:
        white = rows * self.precision
        return white if self.marginal is None else self.marginal.rows(white)

    @staticmethod
    def _with_prior_row(rows: Tensor, value: float) -> Tensor:
        """(B, K + 1), batch last."""
        return torch.cat([rows.T, rows.new_full((1, len(rows)), value)]).T

    def basis(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        signal, slopes = self.prediction(values["att"].unsqueeze(1), values["t1b"].unsqueeze(1))
        basis = self._with_prior_row(self._white(signal), 1.0 / self.flow_sd).unsqueeze(2)
        columns = [self._with_prior_row(self._white(slopes[name]), 0.0) for name in self.unknowns.names]
        if len(columns) == 1:
            return basis, columns[0][:, :, None, None]
        return basis, torch.stack(columns, dim=2).unsqueeze(2) if columns else basis.new_zeros(*basis.shape, 0)

    def take(self, rows: Tensor) -> FlowProblem:
        kept = (self.prediction.take(rows), self.data[rows], self.precision[rows], self.unknowns.take(rows), self.flow_sd)
        return FlowProblem(*kept, None if self.marginal is None else self.marginal.take(rows))


@dataclass(frozen=True)
class Arrival:
    """Inputs of the per-voxel network: t, (t - ATT)+ and (t - ATT - tau)+, so that the kinks of S lie in the inputs and move with ATT."""

    edges: Tensor  # (B or 1, E)
    tau: Tensor  # (E,)

    def __call__(self, att: Tensor) -> Tensor:
        """(B, E, 3)"""
        since = self.edges - att.unsqueeze(1)
        ended = since - self.tau
        return torch.stack([self.edges.expand_as(since), since.clamp_min(0), ended.clamp_min(0)], dim=2)

    def slope(self, att: Tensor) -> Tensor:
        """(B, E, 3) derivative by ATT."""
        since = self.edges - att.unsqueeze(1)
        ended = since - self.tau
        return torch.stack([torch.zeros_like(since), -(since > 0).to(since.dtype), -(ended > 0).to(since.dtype)], dim=2)


class NetworkProblem(Problem):
    """One multilayer perceptron a voxel, all weights trained together with flow and arrival time.

    S(t) = net(t) - net(0), so S(0) = 0 is exact. theta = (flow, unknowns..., weights); flow and data are in units of `unit`.
    Rows: data / noise, equation / model error, priors; the prior of the weights, N(start, weight_sd^2), closes the valleys that a few
    data points leave open in so many weights.
    """

    def __init__(
        self,
        network: MLP,
        inputs: Arrival,
        model: Kinetics,
        at_data: Tensor,  # (K, E) picks the data times among the edges
        equation: Tensor,  # (B or 1, M, E)
        intervals: tuple[Tensor, Tensor, Tensor, Tensor],  # low, high (B or 1, M), tau (M,), root_width (B or 1, M)
        data: Tensor,  # (B, K) in units
        noise: Tensor,  # (B, K) sd of each data point, in units
        model_error: Tensor,  # (B,) sd of each equation row, in units
        unknowns: Unknowns,
        flow_sd: float,  # units
        start: Tensor,  # (B, W) weights that the prior is centred on
        weight_sd: float = 1.0,
        weights: Mapping[str, float | Tensor] | None = None,
        unit: float = 1.0,
    ):
        self.network, self.inputs, self.model, self.at_data, self.equation = network, inputs, model, at_data, equation
        self.intervals, self.data, self.noise, self.model_error = intervals, data, noise, model_error
        self.unknowns, self.flow_sd, self.weights, self.unit = unknowns, flow_sd, weights or {}, unit
        self.start, self.weight_sd = start, weight_sd
        self.names = ("cbf", *unknowns.names)

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.unknowns.size
        return theta[:, 0], theta[:, 1 : 1 + q], theta[:, 1 + q :]

    def signal(self, theta: Tensor) -> Tensor:
        """(B, E) S at the edges."""
        _, free, weights = self._split(theta)
        value = self.network(weights, self.inputs(self.unknowns.values(free)["att"])).squeeze(-1)
        return value - value[:, :1]

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        flow, free, weights = self._split(theta)
        values = self.unknowns.values(free)
        return self._blocks(flow, weights, self.signal(theta), self._supply(values)[0], self.unknowns.prior(free)[0])

    def _blocks(self, flow: Tensor, weights: Tensor, signal: Tensor, supply: Tensor, prior: Tensor) -> dict[str, Tensor]:
        equation = (self.equation @ signal.unsqueeze(2)).squeeze(2) - flow.unsqueeze(1) * supply
        return {
            "data": (signal @ self.at_data.T - self.data) / self.noise,
            "equation": equation / self.model_error.unsqueeze(1),
            "prior": torch.cat([(flow / self.flow_sd).unsqueeze(1), prior], dim=1),
            "weights": (weights - self.start) / self.weight_sd,
        }

    def linearise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        flow, free, weights = self._split(theta)
        values = self.unknowns.values(free)
        value, by_weight, by_input = self.network.jacobian(weights, self.inputs(values["att"]))
        signal = value - value[:, :1]
        by_att = (by_input * self.inputs.slope(values["att"])).sum(dim=2, keepdim=True)
        supply, slopes = self._supply(values)
        free_slopes = self.unknowns.slopes(free)
        columns = torch.cat([by_att, by_weight], dim=2)
        columns = columns - columns[:, :1]
        batch, rate = len(theta), 1 / self.model_error[:, None, None]
        data = (self.at_data @ columns) / self.noise.unsqueeze(2)
        equation = (self.equation @ columns) * rate
        q = self.unknowns.size
        data_free, equation_free = theta.new_zeros(batch, data.shape[1], q), theta.new_zeros(batch, equation.shape[1], q)
        for k, name in enumerate(self.unknowns.names):
            moved = -(flow[:, None] * slopes[name]).unsqueeze(2) * rate
            if name == "att":
                data_free[:, :, k], moved = data[:, :, 0], moved + equation[:, :, :1]
            equation_free[:, :, k] = moved.squeeze(2)
        data_free, equation_free = data_free * free_slopes.unsqueeze(1), equation_free * free_slopes.unsqueeze(1)
        prior, prior_slope = self.unknowns.prior(free)
        rows = {
            "data": torch.cat([data.new_zeros(batch, data.shape[1], 1), data_free, data[:, :, 1:]], dim=2),
            "equation": torch.cat([-supply.unsqueeze(2) * rate, equation_free, equation[:, :, 1:]], dim=2),
            "prior": self._prior_rows(prior_slope, theta),
            "weights": self._weight_rows(theta),
        }
        residual = self._blocks(flow, weights, signal, supply, prior)
        return stack(residual, self.weights), stack(rows, self.weights)

    def _prior_rows(self, slope: Tensor, theta: Tensor) -> Tensor:
        rows = theta.new_zeros(len(theta), 1 + slope.shape[1], theta.shape[1])
        rows[:, 0, 0] = 1 / self.flow_sd
        rows[:, 1:, 1 : 1 + self.unknowns.size] = slope
        return rows

    def _weight_rows(self, theta: Tensor) -> Tensor:
        rows = theta.new_zeros(self.network.size, theta.shape[1])
        rows[:, 1 + self.unknowns.size :] = torch.eye(self.network.size, dtype=theta.dtype, device=theta.device) / self.weight_sd
        return rows.expand(len(theta), -1, -1)

    def _supply(self, values: dict[str, Tensor]) -> tuple[Tensor, Derivatives]:
        low, high, tau, root_width = self.intervals
        supply, slopes = self.model.supply(low, high, tau, values["att"].unsqueeze(1), values["t1b"].unsqueeze(1))
        return supply / root_width, {name: slope / root_width for name, slope in slopes.items()}

    def values(self, theta: Tensor) -> dict[str, Tensor]:
        flow, free, _ = self._split(theta)
        values = self.unknowns.values(free)
        return {"cbf": flow * self.unit} | {name: values[name] for name in self.unknowns.names}

    def slopes(self, theta: Tensor) -> Tensor:
        flow, free, weights = self._split(theta)
        return torch.cat([torch.full_like(flow, self.unit).unsqueeze(1), self.unknowns.slopes(free), torch.ones_like(weights)], dim=1)

    def at_bound(self, theta: Tensor) -> Tensor:
        return self.unknowns.at_bound(self._split(theta)[1])

    def take(self, rows: Tensor) -> NetworkProblem:
        low, high, tau, root_width = self.intervals
        return NetworkProblem(
            self.network,
            Arrival(pick(self.inputs.edges, rows), self.inputs.tau),
            take_kinetics(self.model, rows),
            self.at_data,
            pick(self.equation, rows),
            (pick(low, rows), pick(high, rows), tau, pick(root_width, rows)),
            self.data[rows],
            self.noise[rows],
            self.model_error[rows],
            self.unknowns.take(rows),
            self.flow_sd,
            self.start[rows],
            self.weight_sd,
            self.weights,
            self.unit,
        )
