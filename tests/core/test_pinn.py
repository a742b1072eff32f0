"""Jets with operators, and a PINN from its parts: derivatives and Jacobians against autograd, and what is refused."""

import pytest
import torch
from made_problems import normal, rng

from pinn_engine.core import (
    LBFGS,
    MLP,
    Free,
    Gaussian,
    Jet,
    LevenbergMarquardt,
    Pinn,
    Shared,
    SkipMLP,
    Term,
    Unknowns,
    coordinates,
    harmonics,
    linearise_reference,
    normalised,
    random_fourier,
    spread,
)

POINTS = 0.2 + torch.rand(6, 3, generator=rng(0), dtype=torch.float64)  # t, x, y
FUNCTIONS = {
    "sum": lambda t, x, y: 2 - t + x - 0.5 * y,
    "product": lambda t, x, y: t * (1 - x**2) * y**3 + x * y,
    "quotient": lambda t, x, y: (1 + t) / (x + y) + x / (2 + t) + y / 3,
    "powers": lambda t, x, y: (x * y) ** 2.5 + t**4 + (x + y) ** -1.0,
    "functions": lambda t, x, y: torch.sin(t * x) + torch.cos(y) * torch.exp(-t) + torch.tanh(x * y) + torch.sigmoid(3 * x),
    "tensors that are numbers": lambda t, x, y: torch.tensor(2.0) * x - torch.tensor(1.0) / (y + 1) + torch.tensor(3.0) - t,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jets_are_what_autograd_finds(name):
    f = FUNCTIONS[name]
    found = f(*coordinates(POINTS))
    for n, point in enumerate(POINTS):
        slope = torch.func.grad(lambda p: f(*p.unbind()))(point)
        bend = torch.func.hessian(lambda p: f(*p.unbind()))(point)
        expected = torch.stack([f(*point.unbind()).double(), *slope, bend[1, 1] + bend[2, 2]])
        torch.testing.assert_close(found.channels[:, n].double(), expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(found.at_rest().channels[[0, 2, 3, 4]], found.channels[[0, 2, 3, 4]])
    assert not found.at_rest().t.any()


def test_what_has_no_derivative_is_refused():
    x = coordinates(POINTS)[1]
    with pytest.raises(TypeError, match="no derivatives"):
        x * POINTS[:, 0]
    with pytest.raises(TypeError, match=r"torch\.sin"):
        torch.abs(x)
    with pytest.raises(ValueError, match="use grad and lap"):
        _ = x.xx


UNKNOWNS = Unknowns({"D": Free(0.0, 1.0, Gaussian(0.3, 0.1)), "shift": Free()})
LOW, HIGH = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 2.0])


def two_fields(uw, p, t, x, y):
    u, w = uw
    return u.t - p["D"] * u.lap + w.value, w.t - u.value * w.value + (u.grad**2).sum(dim=0)


def made(network, inputs=None) -> Pinn:
    def ansatz(uw, p, t, x, y):
        return p["shift"] * torch.sin(x) + t * uw[0], uw[1]

    at = spread(LOW, HIGH, 9)
    terms = {
        "equations": Term(at, two_fields, weight=torch.linspace(0.1, 2, 9, dtype=torch.float64)),
        "data": Term(at[:4], lambda uw, p, t, x, y: uw[0].value, normal(1, 4), sd=0.3),
    }
    return Pinn(network, terms, LOW, HIGH, UNKNOWNS, inputs=inputs, ansatz=ansatz, weights={"equations": 3.0})


CASES = {
    "tanh": (MLP((3, 5, 4, 2)), None),
    "swish": (MLP((3, 5, 2), "swish"), None),
    "skips": (SkipMLP((3, 5, 5, 5, 2)), None),
    "adaptive skips": (SkipMLP((3, 5, 5, 5, 2), adaptive=True, activation="swish"), None),
    "harmonics": (MLP((7, 5, 2)), harmonics(2, LOW, HIGH, axis=1)),
    "random features": (MLP((8, 5, 2)), random_fourier(4, (1.0, 2.0, 0.5), LOW, HIGH, seed=3)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_jacobian_is_that_of_autograd(name):
    """Also by unknowns in the equation and in the ansatz, with weights, priors and two problems."""
    problem = made(*CASES[name])
    theta = problem.start(batch=2, D=0.2, shift=0.7)
    theta = theta + 0.2 * normal(2, *theta.shape)
    residual, jacobian = problem.linearise(theta)
    plain, slopes = linearise_reference(problem, theta)
    assert residual.shape == (2, 2 * 9 + 4 + 1)
    torch.testing.assert_close(residual, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(jacobian, slopes, rtol=1e-8, atol=1e-10)
    x = theta.clone().requires_grad_(True)  # what Adam and L-BFGS see
    (0.5 * problem.residual(x) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, (jacobian * residual.unsqueeze(2)).sum(dim=1), rtol=1e-8, atol=1e-10)
    row = torch.tensor([1])
    torch.testing.assert_close(problem.take(row).residual(theta[row]), residual[row])


def test_inputs_are_scaled_and_counted():
    jets = normalised(LOW, HIGH)(*coordinates(torch.stack([LOW, HIGH])))
    for jet in jets:
        assert jet.value.tolist() == [-1.0, 1.0]
    with pytest.raises(ValueError, match="takes 4 inputs, there are 3"):
        made(MLP((4, 5, 2)))
    with pytest.raises(ValueError, match="two or more hidden layers"):
        SkipMLP((2, 5, 1))


def test_the_field_is_where_the_ansatz_puts_it():
    problem = made(MLP((3, 5, 2)))
    theta = problem.start(shift=0.7)
    start = spread(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 2.0]), 5)
    u, w = problem.field(theta, start)
    assert isinstance(w, Jet)
    torch.testing.assert_close(u.value, 0.7 * torch.sin(start[:, 1]))


def test_a_window_of_a_field_continues_the_last_one():
    """u_t = D u_xx over two windows: the second starts exactly in the first one's last state."""
    D, half = 0.1, 1.0

    def window(low: float, before):
        box = torch.tensor([low, 0.0]), torch.tensor([low + half, 1.0])
        term = Term(spread(*box, 200), lambda u, p, t, x: u.t - D * u.xx)
        return Pinn(MLP((2, 8, 8, 1)), {"equation": term}, *box, ansatz=lambda u, p, t, x: before(x) + (t - low) * x * (1 - x) * u)

    def solved(problem):
        return LevenbergMarquardt(steps=25).solve(problem, problem.start()).theta

    first = window(0.0, lambda x: torch.sin(torch.pi * x))
    theta = solved(first)

    def end(x: Jet) -> Jet:
        return first.field(theta, torch.stack([torch.full_like(x.value, half), x.value], dim=1)).at_rest()

    second = window(half, end)
    last = solved(second)
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    seam = torch.stack([torch.full_like(x, half), x], dim=1)
    torch.testing.assert_close(second.field(last, seam).value, first.field(theta, seam).value)
    late = torch.stack([torch.full_like(x, 2 * half), x], dim=1)
    truth = torch.exp(torch.tensor(-D * torch.pi**2 * 2 * half)) * torch.sin(torch.pi * x)
    assert float((second.field(last, late).value - truth).abs().max()) < 5e-3


def test_lbfgs_refuses_coupled_problems():
    problem = made(MLP((3, 5, 2)))
    with pytest.raises(ValueError, match="coupled"):
        LBFGS(2).solve(problem, problem.start(), Shared((0,), torch.zeros(1, dtype=torch.long)))
