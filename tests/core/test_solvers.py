"""Solvers: one table of problems and known minima; a batch is its problems one by one; a broken problem harms no other."""

import numpy as np
import pytest
import torch
from made_problems import Exponentials, Made, beale, decay, decays, linear, normal, rosenbrock
from scipy.optimize import least_squares

from pinn_engine.core import Adam, Fixed, Free, LevenbergMarquardt, Status, Unknowns, solve_in_chunks

LM = LevenbergMarquardt()
A, Y = normal(0, 6, 9, 3), normal(1, 6, 9)


def column(*values: float, batch: int = 6) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).expand(batch, -1)


def known(name: str) -> tuple[Made, torch.Tensor, torch.Tensor]:
    """Problem, start, minimum: six problems each."""
    if name == "linear":
        return Made(linear, a=A, y=Y), normal(2, 6, 3), torch.linalg.lstsq(A, Y.unsqueeze(2)).solution.squeeze(2)
    if name == "rosenbrock":
        start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, -2.0], [-2.0, 3.0], [0.5, 2.0], [1.0, 1.0]], dtype=torch.float64)
        return Made(rosenbrock, steep=column(10.0, batch=6)[:, 0]), start, column(1.0, 1.0)
    if name == "beale":
        return Made(beale, c=column(1.5, 2.25, 2.625)), column(2.0, 0.0) + 0.3 * normal(4, 6, 2), column(3.0, 0.5)
    problem, start, _ = decays(6)
    best = [
        least_squares(lambda p, x=x, y=y: p[0] * np.exp(-p[1] * x) - y, [1, 1], xtol=1e-14, ftol=1e-14, gtol=1e-14).x
        for x, y in zip(problem.tensors["x"].numpy(), problem.tensors["y"].numpy(), strict=True)
    ]
    return problem, start, torch.tensor(np.array(best))


KNOWN = ["linear", "rosenbrock", "beale", "decay"]


@pytest.mark.parametrize("name", KNOWN)
def test_levenberg_marquardt_finds_the_minimum(name):
    problem, start, minimum = known(name)
    found = LevenbergMarquardt(steps=150, relative=1e-13).solve(problem, start)
    torch.testing.assert_close(found.theta, minimum, rtol=2e-5, atol=2e-6)
    assert found.status.tolist() == [Status.CONVERGED] * 6
    torch.testing.assert_close(found.cost, 0.5 * problem.residual(found.theta).square().sum(1))
    assert int(found.steps.max()) <= 150


@pytest.mark.parametrize(("name", "steps", "rate"), [("linear", 1000, 0.1), ("decay", 1200, 0.05)])
def test_adam_reaches_the_same_minimum(name, steps, rate):
    problem, start, minimum = known(name)
    rows = torch.arange(2)
    found = Adam(steps, rate).solve(problem.take(rows), start[rows])
    torch.testing.assert_close(found.theta, minimum[rows], rtol=2e-3, atol=2e-3)
    assert set(found.status.tolist()) <= {Status.CONVERGED, Status.STEP_LIMIT}


def test_adam_says_when_it_was_stopped_early():
    problem, start, minimum = known("linear")
    stopped = Adam(200, 1e-3).solve(problem, start)
    assert float((stopped.theta - minimum).abs().max()) > 0.5
    assert stopped.status.tolist() == [Status.STEP_LIMIT] * 6


def test_it_takes_tens_of_steps_where_adam_takes_thousands():
    problem, start, minimum = known("rosenbrock")
    found = LevenbergMarquardt(steps=100).solve(problem, start)
    assert int(found.steps.max()) <= 90
    assert float((Adam(200, 0.05).solve(problem, start).theta - minimum).abs().max()) > 0.1


@pytest.mark.parametrize("name", KNOWN)
def test_a_batch_is_its_problems_one_by_one(name):
    problem, start, _ = known(name)
    together = LM.solve(problem, start)
    for b in range(6):
        row = torch.tensor([b])
        alone = LM.solve(problem.take(row), start[row])
        torch.testing.assert_close(alone.theta, together.theta[row], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(alone.covariance, together.covariance[row], rtol=1e-7, atol=1e-12)
        assert (int(alone.status), int(alone.steps)) == (int(together.status[b]), int(together.steps[b]))


def test_the_order_of_problems_does_not_matter():
    problem, start, _ = decays(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LM.solve(problem.take(order), start[order]).theta, LM.solve(problem, start).theta[order], rtol=1e-10, atol=0)


def test_hard_and_easy_problems_share_a_batch():
    """Easy problems end early and are set aside; what is left is still theirs."""
    x = torch.linspace(0, 3, 12, dtype=torch.float64).expand(40, -1)
    truth = torch.stack([torch.linspace(0.5, 20, 40).double(), torch.linspace(0.1, 4, 40).double()], dim=1)
    problem = Made(decay, ("a", "k"), x=x, y=truth[:, :1] * torch.exp(-truth[:, 1:] * x))
    found = LevenbergMarquardt(steps=100, relative=1e-12, absolute=1e-20).solve(problem, torch.ones(40, 2, dtype=torch.float64))
    torch.testing.assert_close(found.theta, truth, rtol=1e-5, atol=0)
    assert int(found.steps.max()) > int(found.steps.min()) + 4
    assert found.history["active"][0] == 1
    assert found.history["active"][-1] == 0
    assert found.history["cost"] == sorted(found.history["cost"], reverse=True)


def test_float32_agrees_with_float64():
    problem, start, _ = decays(200)
    single = Made(decay, ("a", "k"), **{k: v.float() for k, v in problem.tensors.items()})
    double = LM.solve(problem, start)
    found = LM.solve(single, start.float())
    assert found.theta.dtype == torch.float32
    away = (found.theta.double() - double.theta).abs() / (0.02 * double.covariance.diagonal(dim1=1, dim2=2).sqrt())  # in sd: noise is 0.02
    assert float(away.max()) < 0.01
    assert bool((found.status == Status.CONVERGED).all())


@pytest.mark.parametrize("solver", [LM, Adam(60, 0.02)], ids=["lm", "adam"])
@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_one_broken_problem_harms_no_other(solver, spoil):
    problem, start, _ = decays(9)
    clean = solver.solve(problem, start)
    problem.tensors["y"] = problem.tensors["y"].clone()
    problem.tensors["y"][4, 3] = spoil
    found, others = solver.solve(problem, start), torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    assert int(found.status[4]) == Status.NOT_FINITE
    for name in ("theta", "status", "cost", "steps", "covariance", "condition"):
        assert torch.equal(getattr(found, name)[others], getattr(clean, name)[others]), name
    if spoil != spoil:
        assert all(np.isfinite(found.history["cost"]))


@pytest.mark.parametrize("solver", [LM, Adam(60, 0.02)], ids=["lm", "adam"])
def test_history_is_finite_whatever_a_problem_is(solver):
    problem, start, _ = decays(3)
    problem.tensors["y"] = torch.where(torch.arange(3).unsqueeze(1) == 1, torch.inf, problem.tensors["y"])
    assert all(np.isfinite(solver.solve(problem, start).history["cost"]))


def test_a_problem_that_is_not_finite_from_some_point_on_is_not_entered():
    """log of a negative number: the step is refused, the damping grows, the minimum at x = 0.2 is found."""
    problem = Made(lambda t, y: {"data": torch.log(t) - y}, ("x",), y=torch.full((3, 1), np.log(0.2)))
    found = LM.solve(problem, torch.tensor([[5.0], [0.3], [50.0]], dtype=torch.float64))
    torch.testing.assert_close(found.theta, torch.full((3, 1), 0.2, dtype=torch.float64), rtol=1e-5, atol=0)


class Hole(Made):
    """Its derivative is not finite in a place where its value is."""

    def linearise(self, theta):
        residual, jacobian = super().linearise(theta)
        hole = ((theta > 2.3) & (theta < 2.385)).unsqueeze(1)
        return residual, torch.where(hole, torch.nan, jacobian)


def test_a_point_without_derivative_is_not_entered():
    """The first step leads to 2.376: closer to the minimum at 2.4, but there is no way on from there."""
    problem = Hole(lambda t, y: {"data": t - y}, ("x",), y=torch.full((2, 1), 2.4, dtype=torch.float64))
    found = LM.solve(problem, torch.zeros(2, 1, dtype=torch.float64))
    torch.testing.assert_close(found.theta, problem.tensors["y"], rtol=1e-5, atol=0)
    assert found.status.tolist() == [Status.CONVERGED] * 2


# --- statuses --------------------------------------------------------------------------------------------------------


class Wrong(Made):
    """Its Jacobian points uphill."""

    def linearise(self, theta):
        residual, jacobian = super().linearise(theta)
        return residual, -jacobian


def bounded(value: float) -> tuple[Exponentials, torch.Tensor]:
    x = torch.linspace(0, 4, 15, dtype=torch.float64).expand(1, -1)
    problem = Exponentials(x, torch.exp(-value * x), Unknowns({"k0": Free(0.1, 2.0)}), scale=0.01)
    return problem, torch.zeros(1, 1, dtype=torch.float64)


def one(rule, *names: str, start: float = 1.0):
    return Made(rule, names, y=torch.tensor([[2.0, 2.0, 2.0]], dtype=torch.float64)), torch.full((1, len(names)), start).double()


STATUSES = {
    "converged": (LM, lambda: bounded(1.0), Status.CONVERGED),
    "started at the minimum": (LM, lambda: one(lambda t, y: {"data": t - y}, "a", start=2.0), Status.CONVERGED),
    "a kink": (LM, lambda: one(lambda t, y: {"data": (t - 1).abs() + y}, "a", start=3.0), Status.CONVERGED),
    "step limit": (LevenbergMarquardt(steps=4), lambda: known("rosenbrock")[:2], Status.STEP_LIMIT),
    "not finite": (LM, lambda: one(lambda t, y: {"data": t * torch.nan + y}, "a"), Status.NOT_FINITE),
    "jacobian not finite": (LM, lambda: one(lambda t, y: {"data": (t - 1).abs().sqrt() + 0 * y}, "a"), Status.NOT_FINITE),
    "at the upper bound": (LM, lambda: bounded(5.0), Status.AT_BOUND),
    "at the lower bound": (LM, lambda: bounded(-1.0), Status.AT_BOUND),
    "only a product": (LM, lambda: one(lambda t, y: {"data": t[:, :1] * t[:, 1:] - y}, "a", "b"), Status.UNDETERMINED),
    "one that nothing depends on": (LM, lambda: one(lambda t, y: {"data": t[:, :1] + 0 * t[:, 1:] - y}, "a", "b"), Status.UNDETERMINED),
    "stalled": (
        LevenbergMarquardt(steps=80, smallest_step=0.0),
        lambda: (Wrong(decay, ("a", "k"), **decays(1)[0].tensors), torch.ones(1, 2).double()),
        Status.STALLED,
    ),
}


@pytest.mark.parametrize(("solver", "make", "expected"), STATUSES.values(), ids=STATUSES.keys())
def test_status_of_each_problem(solver, make, expected):
    found = solver.solve(*make())
    assert int(found.status[0]) == expected
    assert Status(int(found.status[0])).sentence.endswith(".")


def test_data_that_say_nothing_leave_everything_undetermined():
    found = LM.solve(*one(lambda t, y: {"data": 0 * t + y}, "a"))
    assert int(found.status[0]) == Status.UNDETERMINED
    assert "do not determine a" in found.verdict()


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_no_more_steps_than_asked_for(steps):
    problem, start, _ = known("rosenbrock")
    assert int(LevenbergMarquardt(steps=steps, relative=0, smallest_step=0).solve(problem, start).steps.max()) <= steps


def test_statuses_stand_side_by_side_in_a_batch():
    problem, start, _ = decays(4)
    problem.tensors["y"][1] = torch.nan
    problem.tensors["x"] = torch.where(torch.arange(4).unsqueeze(1) == 2, 0.0, problem.tensors["x"])  # all at x = 0: no word on the rate
    found = LevenbergMarquardt(absolute=1e-12).solve(problem, start)
    assert found.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.UNDETERMINED, Status.CONVERGED]


# --- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 39, 40])
def test_chunks_are_the_whole(size):
    problem, start, _ = decays(40)
    whole, told = LM.solve(problem, start), []
    pieces = torch.arange(40).split(size)
    found = solve_in_chunks(LM, lambda rows: (problem.take(rows), start[rows]), iter(pieces), told.append)
    for name in ("theta", "cost", "covariance"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-8, atol=1e-10)
    assert torch.equal(found.status, whole.status)
    assert torch.equal(found.steps, whole.steps)
    assert found.names == whole.names
    assert told == pytest.approx([(k + 1) / len(pieces) for k in range(len(pieces))])
    assert found.history["cost"][0] == pytest.approx(whole.history["cost"][0])
    assert found.history["cost"][-1] == pytest.approx(whole.history["cost"][-1])


def test_chunks_bound_the_memory():
    """No problem larger than a chunk is ever built."""
    seen = []

    def build(rows):
        seen.append(len(rows))
        problem, start, _ = decays(len(rows), seed=int(rows[0]))
        return problem, start

    found = solve_in_chunks(LM, build, torch.arange(1000).split(128))
    assert max(seen) == 128
    assert len(found.theta) == sum(seen) == 1000


def test_the_caller_s_start_is_not_changed():
    problem, start, _ = decays(30)
    before = start.clone()
    LevenbergMarquardt(steps=8).solve(problem, start)
    Adam(5).solve(problem, start)
    assert torch.equal(start, before)


def test_fixed_unknowns_are_left_alone():
    x = torch.linspace(0, 4, 15, dtype=torch.float64).expand(2, -1)
    unknowns = Unknowns({"k0": Fixed(torch.tensor([0.5, 1.5])), "k1": Free(2.0, 6.0)})
    y = torch.exp(-torch.tensor([[0.5], [1.5]]) * x) + 2 * torch.exp(-3 * x)
    found = LevenbergMarquardt(relative=1e-14).solve(Exponentials(x, y, unknowns, ("a", "b")), torch.zeros(2, 1).double())
    assert "k0" not in found.values
    torch.testing.assert_close(found.values["k1"], torch.full((2,), 3.0).double(), rtol=1e-4, atol=0)
