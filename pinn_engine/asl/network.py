"""The per-voxel networks of a scan: one pre-trained hidden layer to start from, and the problem of any chunk of voxels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core import MLP, LevenbergMarquardt, Problem
from ..core.fields import ACTIVATIONS
from .kinetics import Kinetics
from .plan import Plan
from .problems import Arrival, NetworkProblem

RIDGE = 1e-6
PRETRAINING = LevenbergMarquardt(steps=40)


class VoxelNetworks:
    """Networks of shape 3 - hidden - 1, one a voxel, that start from the same hidden layers."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.network = MLP((3, *plan.s.hidden, 1), plan.s.activation, centre=0.5)
        c = plan.collocation
        self.tau = torch.zeros(c.edges.shape[1], dtype=torch.float64)  # (E,) label duration of the curve that each edge belongs to
        self.tau[c.low], self.tau[c.high] = c.tau, c.tau
        self.equation = torch.stack([c.equation_rows(g, float(plan.kinetics(g).loss_rate)) for g in range(len(plan.group_t1))])
        self.at_data = torch.zeros(len(c.at_data), c.edges.shape[1])
        self.at_data[torch.arange(len(c.at_data)), c.at_data] = 1
        self.warm_start = self._pretrain()

    def problem(self, rows: Tensor, model_error: float, att: Tensor, flow: Tensor) -> tuple[NetworkProblem, Tensor]:
        """The problem of some voxels and its start (B, P), from the best arrival time and flow (B,) of the grid."""
        plan, c, unit = self.plan, self.plan.collocation, self.plan.c.amplitude

        def on(table: Tensor) -> Tensor:
            return plan.rows_of(rows, table.to(att))

        inputs = Arrival(on(c.edges), self.tau.to(att))
        model = plan.kinetics_of(rows)
        weights = self._start(model, inputs, att, flow / unit)
        unknowns = plan.unknowns()
        problem = NetworkProblem(
            network=self.network,
            inputs=inputs,
            model=model,
            at_data=self.at_data.to(att),
            equation=on(self.equation),
            intervals=(on(c.edges[:, c.low]), on(c.edges[:, c.high]), c.tau.to(att), on(c.widths.sqrt())),
            data=torch.as_tensor(plan.c.data[rows.numpy()]).to(att) / unit,
            noise=torch.as_tensor(plan.c.noise[rows.numpy()]).to(att).unsqueeze(1) / plan.root.to(att) / unit,
            model_error=torch.full_like(flow, model_error / unit),
            unknowns=unknowns,
            flow_sd=plan.flow_sd / unit,
            start=weights,
            unit=unit,
        )
        values = {"att": att, "t1b": torch.full_like(att, plan.t1b)}
        return problem, torch.cat([(flow / unit).unsqueeze(1), unknowns.internal(values), weights], dim=1)

    def _start(self, model: Kinetics, inputs: Arrival, att: Tensor, flow: Tensor) -> Tensor:
        """(B, W) the pre-trained hidden layers, and the output layer that comes closest to the closed form at the start."""
        weights = self.warm_start.to(att).repeat(len(att), 1)
        curve = self._closed_form(model, inputs, att) * flow.unsqueeze(1)
        weights[:, -1 - self.network.layers[-2] : -1] = output_layer(self.network, weights, inputs(att), curve)[1]
        return weights

    def _pretrain(self) -> Tensor:
        """(1, W) weights whose hidden layer suits the curves of all arrival times, and of the shortest, middle and longest T1 of the scan.

        Glorot (seeded), then `SharedHiddenLayer`; on one thread, for every voxel's network depends on it to the last digits.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._pretrain_serial()
        finally:
            torch.set_num_threads(threads)

    def _pretrain_serial(self) -> Tensor:
        att = torch.linspace(0.1, 0.8, 12, dtype=torch.float64) * self.plan.att_max
        inputs = Arrival(self.plan.collocation.edges[:1], self.tau)
        by_t1 = np.argsort(self.plan.group_t1)
        groups = sorted({int(by_t1[0]), int(by_t1[len(by_t1) // 2]), int(by_t1[-1])})
        curves = torch.cat([self._closed_form(self.plan.kinetics(g), inputs, att) for g in groups])
        curves = curves / curves.abs().amax(dim=1, keepdim=True)
        start = self.network.glorot(1, torch.Generator().manual_seed(self.plan.s.seed), dtype=torch.float64)
        return PRETRAINING.solve(SharedHiddenLayer(self.network, inputs(att).repeat(len(groups), 1, 1), curves), start).theta

    def _closed_form(self, model: Kinetics, inputs: Arrival, att: Tensor) -> Tensor:
        """(B, E) curves of unit flow at the edges."""
        t1b = torch.full_like(att, self.plan.t1b)
        return model.closed_form(inputs.edges, inputs.tau, att.unsqueeze(1), t1b.unsqueeze(1))[0]


class SharedHiddenLayer(Problem):
    """One network's hidden layers for A curves (A, E) with inputs (A, E, 3): what is left after the best output layer for each.

    B = 1 problem whose theta are the network's weights; the output layers are eliminated.
    """

    def __init__(self, network: MLP, inputs: Tensor, curves: Tensor):
        self.network, self.inputs, self.curves = network, inputs, curves

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        fitted, _ = output_layer(self.network, theta.expand(len(self.inputs), -1), self.inputs, self.curves)
        return {"data": (fitted - self.curves).reshape(1, -1)}


def output_layer(network: MLP, weights: Tensor, inputs: Tensor, curves: Tensor) -> tuple[Tensor, Tensor]:
    """The curves (B, E) that the best output layers make of given hidden layers, and those layers (B, H), by ridge regression."""
    layers = network.unpack(weights)
    a = (inputs - network.centre) / network.scale
    for matrix, bias in layers[:-1]:
        a = ACTIVATIONS[network.activation].value(torch.baddbmm(bias, a, matrix))
    features = a - a[:, :1]
    gram = features.transpose(1, 2) @ features
    ridge = RIDGE * torch.eye(features.shape[2], dtype=a.dtype, device=a.device)
    output = torch.linalg.solve(gram + ridge, features.transpose(1, 2) @ curves.unsqueeze(2))
    return (features @ output).squeeze(2), output.squeeze(2)
