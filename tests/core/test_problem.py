"""The residual vector: terms side by side, weighted by name, and its Jacobian in forward mode."""

import pytest
import torch
from made_problems import UNKNOWNS, Made, decay, decays, exponentials, linear, normal, rosenbrock

from pinn_engine.core import LevenbergMarquardt, Problem, linearise_reference, stack


def two_terms(theta, a, y):
    return {"data": (a @ theta.unsqueeze(2)).squeeze(2) - y, "prior": 3 * theta}


def made(weights=None, batch=5) -> tuple[Made, torch.Tensor]:
    return Made(two_terms, ("u", "v"), weights, a=normal(0, batch, 6, 2), y=normal(1, batch, 6)), normal(2, batch, 2)


@pytest.mark.parametrize(
    "case",
    {
        "linear": lambda: (Made(linear, a=normal(0, 4, 6, 3), y=normal(1, 4, 6)), normal(2, 4, 3)),
        "rosenbrock": lambda: (Made(rosenbrock, steep=torch.full((4,), 10.0).double()), normal(2, 4, 2)),
        "decay": lambda: decays(4)[:2],
    }.items(),
    ids=lambda case: case[0],
)
def test_the_plain_jacobian_against_finite_differences(case):
    problem, theta = case[1]()
    residual, jacobian = linearise_reference(problem, theta)
    assert torch.equal(residual, problem.residual(theta))
    for k in range(theta.shape[1]):
        h = torch.zeros_like(theta)
        h[:, k] = 1e-6
        torch.testing.assert_close(
            jacobian[:, :, k], (problem.residual(theta + h) - problem.residual(theta - h)) / 2e-6, rtol=1e-6, atol=1e-7
        )


def test_nothing_unknown_has_an_empty_jacobian():
    problem = Made(lambda theta, y: {"data": y}, y=normal(0, 3, 4))
    residual, jacobian = linearise_reference(problem, torch.zeros(3, 0, dtype=torch.float64))
    assert (residual.shape, jacobian.shape) == ((3, 4), (3, 4, 0))


def test_weight_zero_takes_a_term_away():
    problem, theta = made({"prior": 0.0})
    residual, jacobian = problem.linearise(theta)
    assert not residual[:, 6:].any()
    assert not jacobian[:, 6:].any()
    alone = Made(linear, ("u", "v"), a=problem.tensors["a"], y=problem.tensors["y"])
    solver = LevenbergMarquardt()
    torch.testing.assert_close(solver.solve(problem, theta).theta, solver.solve(alone, theta).theta)


def test_weight_four_is_every_row_four_times():
    """A row that stands there four times counts as one twice as large, also in the covariance."""
    problem, theta = made({"data": 4.0})
    plain, _ = made()
    torch.testing.assert_close(problem.residual(theta)[:, :6], 2 * plain.residual(theta)[:, :6])
    repeated = Made(two_terms, ("u", "v"), a=plain.tensors["a"].repeat(1, 4, 1), y=plain.tensors["y"].repeat(1, 4))
    weighted, fourfold = (LevenbergMarquardt().solve(p, theta) for p in (problem, repeated))
    torch.testing.assert_close(weighted.theta, fourfold.theta)
    torch.testing.assert_close(weighted.covariance, fourfold.covariance)
    torch.testing.assert_close(weighted.cost, fourfold.cost)


def test_a_weight_may_differ_between_problems():
    weight = torch.tensor([0.0, 1.0, 4.0, 0.25, 9.0]).double()
    problem, theta = made({"prior": weight})
    plain, _ = made()
    torch.testing.assert_close(problem.residual(theta)[:, 6:], plain.residual(theta)[:, 6:] * weight.sqrt().unsqueeze(1))


@pytest.mark.parametrize("call", [lambda p, t: p.residual(t), lambda p, t: p.linearise(t), lambda p, t: LevenbergMarquardt().solve(p, t)])
def test_a_weight_for_no_term_is_an_error(call):
    problem, theta = made({"physics": 1.0})
    with pytest.raises(KeyError, match="physics"):
        call(problem, theta)


def test_stack_names_what_it_has():
    with pytest.raises(KeyError, match=r"\['c'\].*\['a', 'b'\]"):
        stack({"a": torch.zeros(1, 2), "b": torch.zeros(1, 1)}, {"c": 2.0})


# Separable problems: Kaufman's Jacobian leaves out a part that lies in the span of the basis and is of the size of the residual.


@pytest.mark.parametrize("kind", UNKNOWNS)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_separable_jacobian_against_the_plain_one(kind, noise):
    problem, theta = exponentials(kind, noise=noise)
    residual, jacobian = problem.linearise(theta)
    plain_residual, full = linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual, rtol=1e-10, atol=1e-12)
    # 1. the gradient is exact
    gradient, plain = ((j * residual.unsqueeze(2)).sum(dim=1) for j in (jacobian, full))
    torch.testing.assert_close(gradient, plain, rtol=1e-8, atol=1e-10)
    # 2. the difference lies in the span of the basis: no other column is wrong, and that part of ours is zero
    basis = problem.basis(problem.unknowns.values(theta))[0]
    q = torch.linalg.qr(basis)[0]
    data = slice(0, basis.shape[1])
    apart = full[:, data] - jacobian[:, data]
    torch.testing.assert_close(q @ (q.transpose(1, 2) @ apart), apart, rtol=1e-8, atol=1e-10)
    assert float((q.transpose(1, 2) @ jacobian[:, data]).abs().max()) < 1e-9
    torch.testing.assert_close(jacobian[:, data.stop :], full[:, data.stop :], rtol=1e-10, atol=1e-12)


def test_separable_jacobian_is_the_plain_one_where_the_model_fits():
    problem, _ = exponentials("two", noise=0.0)
    theta = problem.unknowns.internal({"k0": torch.full((7,), 0.4).double(), "k1": torch.full((7,), 2.5).double()})
    torch.testing.assert_close(problem.linearise(theta)[1], linearise_reference(problem, theta)[1], rtol=1e-7, atol=1e-9)


def test_separable_sensitivities_are_those_of_the_joint_problem():
    problem, theta = exponentials("prior")
    values = problem.values(theta)
    joint = torch.stack([values["a"], values["k0"]], dim=1)

    def residual(p):
        data = problem.target - p[:, :1] * torch.exp(-p[:, 1:] * problem.x)
        return torch.cat([data, (p[:, 1:] - 0.5) / 0.3], dim=1)

    columns = [torch.func.jvp(residual, (joint,), (torch.eye(2).double()[k].expand_as(joint),))[1] for k in (0, 1)]
    torch.testing.assert_close(problem.sensitivities(theta), torch.stack(columns, dim=2))


def test_sensitivities_are_in_physical_units():
    class Halved(Made):
        def values(self, theta):
            return {"a": 0.5 * theta[:, 0], "k": theta[:, 1]}

        def slopes(self, theta):
            return torch.tensor([0.5, 1.0]).double().expand_as(theta)

    _, start, _ = decays(3)
    tensors = decays(3)[0].tensors
    plain, halved = (LevenbergMarquardt().solve(kind(decay, ("a", "k"), **tensors), start) for kind in (Made, Halved))
    torch.testing.assert_close(halved.values["a"], 0.5 * plain.values["a"])
    torch.testing.assert_close(halved.std("a"), 0.5 * plain.std("a"))
    torch.testing.assert_close(halved.std("k"), plain.std("k"))


@pytest.mark.parametrize("weights", [{"prior": 0.0}, {"data": 4.0}])
def test_separable_weights_reach_the_solver(weights):
    problem, theta = exponentials("prior")
    problem.weights = weights
    residual, jacobian = problem.linearise(theta)
    plain_residual, full = linearise_reference(problem, theta)
    torch.testing.assert_close(residual, plain_residual)
    torch.testing.assert_close((jacobian * residual.unsqueeze(2)).sum(dim=1), (full * residual.unsqueeze(2)).sum(dim=1))


def test_the_base_class_says_what_is_missing():
    theta = torch.zeros(2, 1)
    for call in (lambda p: p.terms(theta), lambda p: p.take(theta)):
        with pytest.raises(NotImplementedError):
            call(Problem())
