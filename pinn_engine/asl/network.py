"""Building the per-voxel network problem and its start: an output layer solved for the closed form at the best arrival time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import MLP, solve_spd
from .plan import Plan
from .problems import Arrival, NetworkProblem

RIDGE = 1e-4


def network_problem(plan: Plan, rows: Tensor, model_error: float, start_att: Tensor, start_flow: Tensor) -> tuple[NetworkProblem, Tensor]:
    """The problem of some voxels and its start (B, P): hidden layers Glorot (seeded), output layer by least squares."""
    c, like, s = plan.collocation, plan.tables.grid, plan.s
    unit = plan.c.amplitude

    def on(table: Tensor) -> Tensor:
        return plan.rows_of(rows, table.to(like))

    edges, low, high = on(c.edges), on(c.edges[:, c.low]), on(c.edges[:, c.high])
    edge_tau = torch.zeros(c.edges.shape[1], dtype=torch.float64)
    edge_tau[c.low], edge_tau[c.high] = c.tau, c.tau
    equation = torch.stack([c.equation_rows(g, float(plan.kinetics(g).loss_rate)) for g in range(len(plan.group_t1))])
    picker = torch.zeros(len(c.at_data), c.edges.shape[1])
    picker[torch.arange(len(c.at_data)), c.at_data] = 1
    noise = torch.as_tensor(plan.c.noise[rows.numpy()]).to(like).unsqueeze(1) / plan.root.to(like) / unit
    unknowns = plan.unknowns()
    network = MLP((3, *s.hidden, 1), s.activation, centre=0.5, scale=1.0)
    inputs = Arrival(edges, edge_tau.to(like))
    weights = start_weights(plan, network, inputs, start_att, start_flow / unit)
    problem = NetworkProblem(
        network=network,
        inputs=inputs,
        model=plan.kinetics(0),
        at_data=picker.to(like),
        equation=on(equation),
        intervals=(low, high, c.tau.to(like), on(c.widths.sqrt())),
        data=torch.as_tensor(plan.c.data[rows.numpy()]).to(like) / unit,
        noise=noise,
        model_error=torch.full_like(start_flow, model_error / unit),
        unknowns=unknowns,
        flow_sd=plan.flow_sd / unit,
        start=weights,
        unit=unit,
    )
    values = {"att": start_att, "t1b": torch.full_like(start_att, plan.t1b)}
    return problem, torch.cat([(start_flow / unit).unsqueeze(1), unknowns.internal(values), weights], dim=1)


def start_weights(plan: Plan, network: MLP, inputs: Arrival, att: Tensor, flow: Tensor) -> Tensor:
    """(B, W) hidden layers Glorot, the same for all voxels (seeded); output layer by ridge regression on the closed form at the start."""
    generator = torch.Generator().manual_seed(plan.s.seed)
    weights = network.glorot(len(att), generator, same=True, dtype=att.dtype, device=str(att.device))
    curve = plan.kinetics(0).closed_form(inputs.edges, inputs.tau, att.unsqueeze(1), torch.full_like(att, plan.t1b).unsqueeze(1))[0]
    hidden = network.layers[-2]
    output = slice(weights.shape[1] - 1 - hidden, weights.shape[1] - 1)
    features = network.jacobian(weights, inputs(att))[1][:, :, output]  # the output is linear in its own weights
    features = features - features[:, :1]
    gram = features.transpose(1, 2) @ features + RIDGE * torch.eye(hidden, dtype=att.dtype, device=att.device)
    weights[:, output] = solve_spd(gram, (features.transpose(1, 2) @ curve.unsqueeze(2)).squeeze(2)) * flow.unsqueeze(1)
    return weights
