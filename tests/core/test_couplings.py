"""Coupled problems against one dense system: shared unknowns by Schur complement, a graph prior by conjugate gradients."""

import numpy as np
import pytest
import torch
from made_problems import Exponentials, Made, decay, linear, normal
from scipy.optimize import least_squares

from pinn_engine.core import Adam, Fixed, Free, Graph, Independent, LevenbergMarquardt, Shared, Status, Unknowns
from pinn_engine.core.couplings import conjugate_gradients

GROUP = torch.tensor([0, 1, 0, 0, 2, 1, 2, 0])
BATCH, ROWS, SIZE = 8, 6, 3


def dense(jacobian: torch.Tensor, columns: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The joint Jacobian of all problems with one column a group for each shared unknown, and (B, P) where theta[b, p] stands in it."""
    batch, rows, size = jacobian.shape
    place = torch.full((batch, size), -1)
    shared = {(int(g), c): k for k, (g, c) in enumerate((g, c) for g in GROUP.unique() for c in columns)}
    count = len(shared)
    for b in range(batch):
        for p in range(size):
            if p in columns:
                place[b, p] = shared[int(GROUP[b]), p]
            else:
                place[b, p], count = count, count + 1
    joint = torch.zeros(batch * rows, count, dtype=jacobian.dtype)
    for b in range(batch):
        for p in range(size):
            joint[b * rows : (b + 1) * rows, place[b, p]] = jacobian[b, :, p]
    return joint, place


@pytest.mark.parametrize("columns", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_shared_unknowns_by_schur_complement_are_the_dense_joint_solution(columns):
    jacobian, residual = normal(0, BATCH, ROWS, SIZE), normal(1, BATCH, ROWS)
    normal_matrix = jacobian.transpose(1, 2) @ jacobian
    gradient = (jacobian.transpose(1, 2) @ residual.unsqueeze(2)).squeeze(2)
    joint, place = dense(jacobian, columns)
    expected = torch.linalg.lstsq(joint, residual.reshape(-1, 1)).solution.squeeze(1)[place]
    coupling = Shared(columns, GROUP)
    step = coupling.solve(normal_matrix, gradient)
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=1e-11)
    for column in columns:
        for g in GROUP.unique():
            assert len(step[g == GROUP, column].unique()) == 1  # the same number to the last bit: members stay together
    covariance = torch.linalg.inv(joint.T @ joint)
    torch.testing.assert_close(
        coupling.covariance(normal_matrix), covariance[place.unsqueeze(2), place.unsqueeze(1)], rtol=1e-8, atol=1e-11
    )


def test_pool_sums_over_the_group_and_leaves_out_what_is_not_finite():
    amount = torch.tensor([1.0, 2, 4, torch.nan, 8, 16, torch.inf, 32])
    assert Shared((0,), GROUP).pool(amount).tolist() == [37, 18, 37, 37, 8, 18, 8, 37]
    assert torch.equal(Independent().pool(amount[:3]), amount[:3])


def shared_decays() -> tuple[Made, torch.Tensor]:
    """One rate a group, one amplitude each."""
    x = torch.linspace(0, 3, 10, dtype=torch.float64).expand(BATCH, -1)
    rate = torch.tensor([0.5, 1.0, 2.0]).double()[GROUP]
    y = torch.linspace(1, 3, BATCH).double().unsqueeze(1) * torch.exp(-rate.unsqueeze(1) * x) + 0.05 * normal(2, BATCH, 10)
    return Made(decay, ("a", "k"), {"data": 0.05**-2}, x=x, y=y), torch.ones(BATCH, 2, dtype=torch.float64)


def scipy_shared(problem: Made, members: np.ndarray):
    x, y = (problem.tensors[k][members].numpy() for k in "xy")
    return least_squares(lambda p: ((p[1:, None] * np.exp(-p[0] * x) - y) / 0.05).ravel(), np.ones(len(x) + 1), xtol=1e-13, ftol=1e-13)


def test_a_shared_rate_is_fitted_from_its_whole_group():
    problem, start = shared_decays()
    found = LevenbergMarquardt(relative=1e-12).solve(problem, start, Shared((1,), GROUP))
    assert found.status.tolist() == [Status.CONVERGED] * BATCH
    for g in range(3):
        members = np.flatnonzero(GROUP.numpy() == g)
        best = scipy_shared(problem, members)
        covariance = np.linalg.inv(best.jac.T @ best.jac)
        assert len(found.values["k"][members].unique()) == 1
        np.testing.assert_allclose(found.values["k"][members], best.x[0], rtol=1e-6)
        np.testing.assert_allclose(found.values["a"][members], best.x[1:], rtol=1e-6)
        np.testing.assert_allclose(found.std("k")[members], covariance[0, 0] ** 0.5, rtol=1e-4)
        np.testing.assert_allclose(found.std("a")[members], np.diag(covariance)[1:] ** 0.5, rtol=1e-4)
    alone = LevenbergMarquardt(relative=1e-12).solve(problem, start)
    assert float((found.std("k") / alone.std("k"))[GROUP == 0].max()) < 0.99  # sharing makes it surer


def test_adam_shares_too():
    problem, start = shared_decays()
    problem.weights = {}
    best = LevenbergMarquardt(relative=1e-12).solve(problem, start, Shared((1,), GROUP))
    found = Adam(1500, 0.05).solve(problem, start, Shared((1,), GROUP))
    torch.testing.assert_close(found.theta, best.theta, rtol=5e-3, atol=5e-3)


def test_a_broken_member_harms_no_other_of_its_group():
    problem, start = shared_decays()
    others = torch.tensor([b for b in range(BATCH) if b != 2])
    problem.tensors["y"][2, 4] = torch.nan
    found = LevenbergMarquardt(relative=1e-12).solve(problem, start, Shared((1,), GROUP))
    rest = LevenbergMarquardt(relative=1e-12).solve(problem.take(others), start[others], Shared((1,), GROUP[others]))
    assert int(found.status[2]) == Status.NOT_FINITE
    assert torch.equal(found.status[others], rest.status)
    torch.testing.assert_close(found.theta[others], rest.theta, rtol=1e-6, atol=1e-6)


def test_a_broken_member_adds_no_certainty():
    problem, start = shared_decays()
    others = torch.tensor([b for b in range(BATCH) if b != 2])
    problem.tensors["y"][2, 4] = torch.nan
    found = LevenbergMarquardt(relative=1e-12).solve(problem, start, Shared((1,), GROUP))
    rest = LevenbergMarquardt(relative=1e-12).solve(problem.take(others), start[others], Shared((1,), GROUP[others]))
    torch.testing.assert_close(found.std("k")[others], rest.std("k"), rtol=1e-3, atol=0)


def separable_shared() -> tuple[Exponentials, torch.Tensor]:
    problem, _ = shared_decays()
    problem = Exponentials(problem.tensors["x"], problem.tensors["y"], Unknowns({"k0": Free(0.05, 5.0, group=GROUP)}), scale=0.05)
    return problem, torch.full((BATCH, 1), -1.0, dtype=torch.float64)


def test_shared_unknowns_of_a_separable_problem():
    """As an infant's T1b: the flow of every voxel is eliminated, one value a subject is left."""
    problem, start = separable_shared()
    found = LevenbergMarquardt(relative=1e-12).solve(problem, start, problem.unknowns.coupling())
    for g in range(3):
        members = np.flatnonzero(GROUP.numpy() == g)
        best = scipy_shared(shared_decays()[0], members)
        np.testing.assert_allclose(found.values["k0"][members], best.x[0], rtol=1e-5)
        np.testing.assert_allclose(found.values["a"][members], best.x[1:], rtol=1e-5)


def test_uncertainty_of_shared_unknowns_of_a_separable_problem():
    problem, start = separable_shared()
    found = LevenbergMarquardt(relative=1e-12).solve(problem, start, problem.unknowns.coupling())
    for g in range(3):
        members = np.flatnonzero(GROUP.numpy() == g)
        best = scipy_shared(shared_decays()[0], members)
        covariance = np.linalg.inv(best.jac.T @ best.jac)
        np.testing.assert_allclose(found.std("k0")[members], covariance[0, 0] ** 0.5, rtol=1e-3)
        np.testing.assert_allclose(found.std("a")[members], np.diag(covariance)[1:] ** 0.5, rtol=1e-3)


def test_what_the_group_determines_is_determined():
    """Two numbers y = a + b x each at one x of its own cannot be had from one point, but a shared b can be had from the group."""
    x = torch.linspace(0, 1, 6, dtype=torch.float64).reshape(3, 2)[:, :1]
    design = torch.cat([torch.ones(3, 1, 1), x.unsqueeze(2)], dim=2).double()
    problem = Made(linear, ("a", "b"), a=design, y=normal(0, 3, 1))
    found = LevenbergMarquardt().solve(problem, torch.zeros(3, 2, dtype=torch.float64), Shared((0, 1), torch.zeros(3, dtype=torch.long)))
    assert float(found.std("b").max()) < 10
    assert Status.UNDETERMINED not in found.status.tolist()


def test_unknowns_of_different_groups_are_refused():
    with pytest.raises(ValueError, match="group"):
        Unknowns({"a": Free(group=GROUP), "b": Free(group=GROUP.flip(0)), "c": Fixed(1.0)}).coupling()


# --- graph -----------------------------------------------------------------------------------------------------------


def chain(batch: int, strength: float) -> torch.Tensor:
    """Precision of a random walk between neighbours: semi-definite."""
    d = torch.eye(batch).double().diff(dim=0)
    return (strength * d.T @ d).to_sparse_coo()


def dense_graph(graph: Graph, blocks: torch.Tensor) -> torch.Tensor:
    """(B P, B P) with theta flattened problem by problem."""
    batch, size = blocks.shape[:2]
    whole = torch.block_diag(*blocks).reshape(batch, size, batch, size)
    for k, q in enumerate(graph.precision):
        whole[:, k, :, k] += q.to_dense()
    return whole.reshape(batch * size, batch * size)


@pytest.mark.parametrize("strengths", [(1.0, 1.0), (0.0, 5.0), (1e3, 1e-2)])
def test_graph_by_conjugate_gradients_is_the_dense_solution(strengths):
    jacobian = normal(0, 40, 5, 2)
    blocks, rhs = jacobian.transpose(1, 2) @ jacobian, normal(1, 40, 2)
    graph = Graph(tuple(chain(40, s) for s in strengths), tolerance=1e-12, max_iterations=400)
    expected = torch.linalg.solve(dense_graph(graph, blocks), rhs.reshape(-1)).reshape(40, 2)
    torch.testing.assert_close(graph.solve(blocks, rhs), expected, rtol=1e-7, atol=1e-9)


def test_conjugate_gradients_stop_at_the_tolerance():
    matrix = torch.diag(torch.linspace(1, 100, 30).double())
    rhs, calls = normal(0, 30, 1), []

    def apply(x):
        calls.append(1)
        return matrix @ x

    identity = torch.eye(1).double().expand(30, 1, 1)
    rough = conjugate_gradients(apply, rhs, identity, 1e-2, 200)
    rough_calls = len(calls)
    fine = conjugate_gradients(apply, rhs, identity, 1e-10, 200)
    assert rough_calls < len(calls) - rough_calls <= 40
    assert float((matrix @ rough - rhs).norm() / rhs.norm()) < 1e-2
    torch.testing.assert_close(fine, torch.linalg.solve(matrix, rhs), rtol=1e-8, atol=1e-10)
    assert not conjugate_gradients(apply, torch.zeros_like(rhs), identity, 1e-6, 200).any()


@pytest.mark.parametrize("mean", [0.0, 1.5, "field"])
def test_graph_energy_and_its_gradient(mean):
    mean = normal(3, 12, 2) if mean == "field" else mean
    graph, theta = Graph((chain(12, 2.0), chain(12, 0.3)), mean), normal(4, 12, 2)
    cost, gradient = graph.energy(theta)
    matrices = [q.to_dense() for q in graph.precision]

    def energy(t):
        return sum(0.5 * (t - mean)[:, k] @ q @ (t - mean)[:, k] for k, q in enumerate(matrices))

    torch.testing.assert_close(cost.sum(), energy(theta))
    torch.testing.assert_close(gradient, torch.func.grad(energy)(theta))


def graph_problem() -> tuple[Made, torch.Tensor, Graph, torch.Tensor]:
    """Linear problems, their start, the coupling, and the dense answer."""
    a, y, mean = normal(5, 20, 4, 2), normal(6, 20, 4), normal(7, 20, 2)
    graph = Graph((chain(20, 3.0), chain(20, 0.5)), mean, tolerance=1e-11)
    whole = dense_graph(graph, a.transpose(1, 2) @ a)
    pull = torch.stack([q.to_dense() @ mean[:, k] for k, q in enumerate(graph.precision)], dim=1)
    rhs = (a.transpose(1, 2) @ y.unsqueeze(2)).squeeze(2) + pull
    return Made(linear, a=a, y=y), normal(8, 20, 2), graph, torch.linalg.solve(whole, rhs.reshape(-1)).reshape(20, 2)


def test_the_solver_finds_the_minimum_of_data_and_graph():
    problem, start, graph, expected = graph_problem()
    found = LevenbergMarquardt(relative=1e-13).solve(problem, start, graph)
    torch.testing.assert_close(found.theta, expected, rtol=1e-5, atol=1e-6)
    assert found.status.tolist() == [Status.CONVERGED] * 20
    cost = 0.5 * problem.residual(found.theta).square().sum() + graph.energy(found.theta)[0].sum()
    torch.testing.assert_close(found.cost, cost.expand(20))


def test_adam_finds_it_too():
    problem, start, graph, expected = graph_problem()
    torch.testing.assert_close(Adam(600, 0.1).solve(problem, start, graph).theta, expected, rtol=5e-3, atol=5e-3)


def test_adam_s_cost_holds_the_graph_s_energy():
    problem, start, graph, _ = graph_problem()
    found = Adam(600, 0.1).solve(problem, start, graph)
    assert found.status.tolist() == [Status.CONVERGED] * 20


def test_a_broken_voxel_harms_no_other_of_the_graph():
    problem, start, graph, expected = graph_problem()
    problem.tensors["y"][3, 0] = torch.nan
    found = LevenbergMarquardt(relative=1e-13).solve(problem, start, graph)
    assert int(found.status[3]) == Status.NOT_FINITE
    far = torch.arange(10, 20)
    assert found.status[far].tolist() == [Status.CONVERGED] * 10
    torch.testing.assert_close(found.theta[far], expected[far], rtol=0.1, atol=0.1)


def test_covariance_under_a_graph_is_an_upper_bound():
    problem, start, graph, _ = graph_problem()
    problem.names = ("u", "v")
    found = LevenbergMarquardt(relative=1e-13).solve(problem, start, graph)
    a = problem.tensors["a"]
    exact = torch.linalg.inv(dense_graph(graph, a.transpose(1, 2) @ a)).diagonal().reshape(20, 2).sqrt()
    assert (found.std("u") >= exact[:, 0]).all()
