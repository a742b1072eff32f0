"""The problems of a chunk of voxels: fast Jacobians against the plain ones, the shared-feature network against GLS, networks that train."""

import numpy as np
import pytest
import torch
from small_scans import GM, LONG_AND_SHORT, flow_problem, gls, phantom, plan, some_voxels

from pinn_engine.asl.kinetics import Continuous, Pulsed
from pinn_engine.asl.network import SharedHiddenLayer, VoxelNetworks, output_layer
from pinn_engine.asl.problems import NetworkProblem
from pinn_engine.core import LevenbergMarquardt, linearise_reference

SCANS = {
    "pcasl": {},
    "pasl": {"labeling": "PASL"},
    "slices": {"slice_time": 0.04},
    "label durations": LONG_AND_SHORT,
}
UNKNOWNS = [("cbf",), ("cbf", "att"), ("cbf", "att", "t1b"), ("cbf", "t1b")]


def few(every: int = 40, t1_map: bool = True, **made):
    return some_voxels(phantom(seed=14, **made).scan(t1_map=t1_map), every)


def theta_of(p, batch: int) -> torch.Tensor:
    """Points between the bounds, none on a kink."""
    return torch.randn(batch, p.unknowns().size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("name", "model"), [*((name, "buxton") for name in SCANS), ("pasl", "simplified")])
@pytest.mark.parametrize("method", ["nlls", "pinn"])
@pytest.mark.parametrize("unknown", UNKNOWNS, ids="+".join)
def test_the_jacobian_of_a_flow_problem(name, unknown, method, model):
    """As any separable problem (core): the gradient is exact, the rest differs by what lies along the basis alone."""
    p = plan(few(**SCANS[name]), unknown=unknown, method=method, model=model)
    problem, theta = flow_problem(p), theta_of(p, len(p.c))
    residual, jacobian = problem.linearise(theta)
    plain_residual, full = linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual, rtol=1e-9, atol=1e-9)
    size = float(full.abs().max()) if full.numel() else 1.0
    gradient, plain = ((j * residual.unsqueeze(2)).sum(dim=1) for j in (jacobian, full))
    torch.testing.assert_close(gradient, plain, rtol=1e-7, atol=1e-8 * size)
    basis = problem.basis(problem.unknowns.values(theta))[0]
    rows = basis.shape[1]
    q = basis / basis.norm(dim=1, keepdim=True)
    apart = full[:, :rows] - jacobian[:, :rows]
    torch.testing.assert_close(q @ (q.transpose(1, 2) @ apart), apart, rtol=1e-7, atol=1e-8 * size)
    assert jacobian.shape[2] == 0 or float((q.transpose(1, 2) @ jacobian[:, :rows]).abs().max()) < 1e-8 * size
    torch.testing.assert_close(jacobian[:, rows:], full[:, rows:], rtol=1e-8, atol=1e-10)


def networks(s, model_error: float = 0.1, **settings) -> tuple[NetworkProblem, torch.Tensor, VoxelNetworks]:
    """One network a voxel and their start."""
    p = plan(s, network="mlp", **settings)
    made = VoxelNetworks(p)
    batch = len(p.c)
    att = 0.3 + 1.2 * torch.rand(batch, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem, start = made.problem(torch.arange(batch), model_error * p.equation_unit, att, torch.linspace(20, 80, batch).double())
    return problem, start, made


@pytest.mark.parametrize(
    "case",
    [
        ("pcasl", {}),
        ("pcasl", {"unknown": ("cbf",)}),
        ("pcasl", {"unknown": ("cbf", "att", "t1b")}),
        ("pasl", {"unknown": ("cbf", "att", "t1b")}),
        ("pasl", {"model": "simplified", "unknown": ("cbf", "att", "t1b")}),
        ("slices", {"hidden": (5, 4)}),
        ("label durations", {"activation": "swish"}),
    ],
    ids=lambda case: "-".join([case[0], *map(str, case[1].values())]),
)
def test_the_jacobian_of_a_network_problem(case):
    problem, start, _ = networks(few(90, **SCANS[case[0]]), **case[1])
    theta = start + 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    residual, jacobian = problem.linearise(theta)
    plain_residual, plain = linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacobian, plain, rtol=1e-8, atol=1e-9 * float(plain.abs().max()))


@pytest.mark.parametrize("weights", [{"equation": 0.0}, {"data": 4.0, "prior": 0.0}, {"weights": 0.25}])
def test_weights_of_a_network_problem(weights):
    problem, theta, _ = networks(few(90))
    problem.weights = weights
    (residual, jacobian), (plain_residual, plain) = problem.linearise(theta), linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacobian, plain, rtol=1e-8, atol=1e-9 * float(plain.abs().max()))


def test_a_weight_that_differs_between_voxels():
    problem, theta, _ = networks(few(90))
    problem.weights = {"equation": torch.linspace(0, 2, len(theta)).double()}
    (residual, jacobian), (plain_residual, plain) = problem.linearise(theta), linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacobian, plain, rtol=1e-8, atol=1e-9 * float(plain.abs().max()))


def test_take_is_the_same_problem_for_fewer_voxels():
    rows = torch.tensor([5, 0, 3])
    problem, theta, _ = networks(few(60, **SCANS["slices"]))
    for k in (0, 1):
        torch.testing.assert_close(problem.take(rows).linearise(theta[rows])[k], problem.linearise(theta)[k][rows], rtol=1e-12, atol=1e-12)
    for method in ("nlls", "pinn"):
        p = plan(few(60, **SCANS["slices"]), method=method)
        problem, theta = flow_problem(p), theta_of(p, len(p.c))
        for k in (0, 1):
            torch.testing.assert_close(
                problem.take(rows).linearise(theta[rows])[k], problem.linearise(theta)[k][rows], rtol=1e-11, atol=1e-11
            )


# --- the shared-feature network is generalised least squares -----------------------------------------------------------


@pytest.mark.parametrize("model_error", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("name", SCANS)
def test_the_shared_feature_network_is_generalised_least_squares(name, model_error):
    """The objective over arrival time, flow eliminated, against the exact solution with the covariance noise + model error in
    continuous time: NumPy alone, no network and no intervals. And the flow at each arrival time with it."""
    s = few(60, t1_map=False, **SCANS[name])
    p = plan(s)
    problem = flow_problem(p, model_error)
    kind, mean = (Pulsed, 0.7) if s.acquisition.labeling == "PASL" else (Continuous, 1.3)
    model = kind(1 / (1 / 1.33 + 0.01 / 0.9))
    for att in np.linspace(0.15, 2.1, 14):
        theta = problem.unknowns.internal({"att": torch.full((len(p.c),), att).double()})
        found, flow = 0.5 * problem.residual(theta).square().sum(dim=1), problem.values(theta)["cbf"]
        for voxel in range(len(p.c)):
            t, covariance = gls(p, voxel, model_error)
            data = p.c.data[voxel].astype(float)
            curve = model.closed_form(torch.as_tensor(t), p.tau, torch.tensor(att), torch.tensor(1.65))[0].numpy()
            weighed = np.linalg.solve(covariance, curve)
            best = data @ weighed / (curve @ weighed + p.flow_sd**-2)
            away = data - best * curve
            exact = 0.5 * (away @ np.linalg.solve(covariance, away) + (best / p.flow_sd) ** 2 + (att - mean) ** 2)
            assert float(found[voxel]) == pytest.approx(exact, rel=0.02, abs=0.01)
            assert float(flow[voxel]) == pytest.approx(best, rel=0.01, abs=0.3)


def test_whitened_rows_have_the_covariance_of_noise_and_model_error():
    p = plan(few(130, **SCANS["slices"]))
    level = 0.2
    for voxel in (0, 3):
        rows = torch.tensor([voxel])
        _, precision = p.whitened(rows, p.tables, level * p.equation_unit)
        back = p.rows_of(rows, p.tables.inverse)[0]
        found = back.T @ torch.diag(1 / precision[0] ** 2) @ back
        np.testing.assert_allclose(found, gls(p, voxel, level)[1], rtol=5e-3, atol=1e-4 * float(found.max()))


@pytest.mark.parametrize("name", ["pcasl", "pasl"])
def test_the_unit_of_model_error_is_the_typical_signal(name):
    """e' + e/T' = q w: at model error 1 the rms of e over the data times is a typical signal (90th percentile of the voxels' rms)."""
    p = plan(few(20, t1_map=False, **SCANS[name]))
    t1 = 1 / (1 / 1.33 + 0.01 / 0.9)
    variance = p.equation_unit**2 * t1 / 2 * (1 - np.exp(-2 * p.c.times / t1))
    assert np.sqrt(variance.mean()) == pytest.approx(p.c.amplitude, rel=1e-6)
    assert p.c.amplitude == pytest.approx(np.percentile(np.sqrt((p.c.data**2).mean(axis=1)), 90), rel=1e-5)


# --- the networks ----------------------------------------------------------------------------------------------------


def test_the_start_is_the_same_hidden_layer_for_all_and_close_to_the_closed_form():
    problem, start, made = networks(few(t1_map=False))
    hidden = start[:, 2 : -1 - made.network.layers[-2]]
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))
    signal = problem.signal(start)
    assert not signal[:, 0].any()  # the initial condition is exact
    att = problem.values(start)["att"]
    exact = made.plan.kinetics(0).closed_form(problem.inputs.edges, problem.inputs.tau, att.unsqueeze(1), torch.tensor(1.65))[0]
    exact = exact * start[:, :1]
    assert float((signal - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 0.03


def test_pretraining_is_worth_it_and_seeded():
    p = plan(few(), network="mlp")
    made, again, other = VoxelNetworks(p), VoxelNetworks(p), VoxelNetworks(plan(few(), network="mlp", seed=1))
    assert torch.equal(made.warm_start, again.warm_start)
    assert not torch.equal(made.warm_start, other.warm_start)
    raw = made.network.glorot(1, torch.Generator().manual_seed(0), dtype=torch.float64)
    att = torch.linspace(0.3, 2.0, 9).double()
    inputs = made_inputs(made)(att)
    curves = p.kinetics(0).closed_form(p.collocation.edges[:1], made.tau, att.unsqueeze(1), torch.tensor(1.65))[0]
    problem = SharedHiddenLayer(made.network, inputs, curves)
    before, after = (float(problem.residual(w).square().mean().sqrt() / curves.square().mean().sqrt()) for w in (raw, made.warm_start))
    assert after < 0.02
    assert after < before / 5


def made_inputs(made: VoxelNetworks):
    from pinn_engine.asl.problems import Arrival

    return Arrival(made.plan.collocation.edges[:1], made.tau)


def test_the_output_layer_is_least_squares():
    _, start, made = networks(few(90))
    weights = start[:, 2:]
    att = torch.full((len(weights),), 0.8).double()
    x = made_inputs(made)(att)
    curves = torch.rand(len(weights), x.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fitted, output = output_layer(made.network, weights, x, curves)
    changed = weights.clone()
    changed[:, -1 - output.shape[1] : -1] = output
    value = made.network(changed, x).squeeze(2)
    torch.testing.assert_close(value - value[:, :1], fitted, rtol=1e-9, atol=1e-10)
    for b in range(2):
        hidden = []
        for unit in range(output.shape[1]):
            one = changed[b : b + 1].clone()
            one[:, -1 - output.shape[1] : -1] = torch.eye(output.shape[1]).double()[unit]
            v = made.network(one, x[b : b + 1])[0, :, 0]
            hidden.append(v - v[0])
        features = torch.stack(hidden, dim=1).numpy()
        gram = features.T @ features + 1e-6 * np.eye(output.shape[1])
        np.testing.assert_allclose(output[b], np.linalg.solve(gram, features.T @ curves[b].numpy()), rtol=1e-6, atol=1e-8)


SOLVER = LevenbergMarquardt(steps=30, absolute=1e-4)


def test_training_moves_every_weight_of_every_network_its_own_way():
    problem, start, made = networks(few())
    found = SOLVER.solve(problem, start)
    hidden = slice(2, -1 - made.network.layers[-2])
    moved = (found.theta - start)[:, hidden].abs()
    assert float(moved.amax(dim=1).min()) > 1e-3  # in every voxel
    assert bool((moved.amax(dim=0) > 1e-3).all())  # every hidden weight and bias
    assert float(found.theta[:, hidden].std(dim=0).min()) > 1e-4  # differently
    frozen = problem.residual(torch.cat([found.theta[:, :2], start[:, 2:]], dim=1)).square().sum(dim=1)
    assert bool((found.cost < 0.5 * frozen).all())
    assert not problem.signal(found.theta)[:, 0].any()


@pytest.mark.parametrize("weights", [{"equation": 0.0}, {"equation": 1e-8}], ids=["gone", "faint"])
def test_taking_the_equation_away_leaves_the_network_to_the_data(weights):
    """Without its equation rows nothing ties flow and arrival time to the curve: they fall back to their priors."""
    problem, start, _ = networks(few(40, snr=None))
    with_physics = SOLVER.solve(problem, start)
    problem.weights = weights
    without = SOLVER.solve(problem, start)
    grey = (phantom(seed=14, snr=None).tissue == GM)[few(40, snr=None).mask][: len(start)]
    change = (without.values["cbf"] - with_physics.values["cbf"]).abs() / with_physics.values["cbf"]
    assert float(change[grey].median()) > 0.2
    assert float(without.std("cbf")[grey].median()) > 3 * float(with_physics.std("cbf")[grey].median())
    terms = problem.terms(without.theta)
    assert float(terms["equation"].square().mean()) > 2 * float(problem.terms(with_physics.theta)["equation"].square().mean())
