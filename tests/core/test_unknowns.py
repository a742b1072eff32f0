"""Unknowns in their two worlds: physical within bounds, free for the solver; priors by hand."""

import math

import pytest
import torch
from made_problems import normal

from pinn_engine.core import Fixed, Free, Gaussian, Independent, LogNormal, Shared, Unknowns

FREE = {  # unknown, physical values well inside
    "unbounded": (Free(), torch.linspace(-40, 40, 17)),
    "from below": (Free(0.5), torch.tensor([0.5001, 0.6, 1.0, 3.0, 50.0, 800.0])),
    "both": (Free(0.2, 4.0), 0.2 + 3.8 * torch.linspace(0.001, 0.999, 31)),
    "negative": (Free(-3.0, -1.0), torch.linspace(-2.99, -1.01, 7)),
    "own bounds": (Free(torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 9.0, 5.5])), torch.tensor([0.5, 1.1, 5.4])),
}


@pytest.mark.parametrize("name", FREE)
def test_round_trip(name):
    free, values = FREE[name]
    torch.testing.assert_close(free.physical(free.internal(values.double())), values.double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FREE)
def test_slope_is_the_derivative(name):
    free, values = FREE[name]
    theta = free.internal(values.double())
    theta = torch.cat([theta, normal(0, *theta.shape)]) if name != "own bounds" else theta
    expected = torch.func.jvp(free.physical, (theta,), (torch.ones_like(theta),))[1]
    torch.testing.assert_close(free.slope(theta), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["from below", "both", "negative", "own bounds"])
def test_no_step_leaves_the_bounds(name, dtype):
    free, _ = FREE[name]
    for theta in (-1e30, -1e3, -30.0, 0.0, 30.0, 1e3, 1e30):
        value = free.physical(torch.full((3,), theta, dtype=dtype))
        assert bool((value >= free.lower).all())
        assert free.upper is None or bool((value <= free.upper).all())
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("name", ["from below", "both", "negative"])
def test_the_gradient_never_dies_where_answers_lie(name):
    """A clipped ReLU has gradient 0 beyond its bounds and a search that steps there never comes back."""
    free, values = FREE[name]
    theta = free.internal(values)  # float32, from 0.1 % off a bound
    assert float(free.slope(theta).min()) > 1e-5
    beyond = free.internal(torch.tensor([-100.0, free.lower - 0.1, free.lower, *([] if free.upper is None else [free.upper, 100.0])]))
    assert bool(beyond.isfinite().all())  # a start outside is drawn inside, where it can move
    assert float(free.slope(beyond).min()) > 1e-7
    clipped = torch.tensor([-100.0, 100.0], requires_grad=True)
    clipped.clamp(0, 1).sum().backward()
    assert not clipped.grad.any()


def test_at_bound():
    table = Unknowns({"a": Free(0.0, 2.0), "b": Free(1.0), "c": Free()})
    values = {"a": [1.0, 0.001, 1.999, 1.0, 1.9], "b": [3.0, 3.0, 3.0, 1.00005, 1.1], "c": [0.0, 1e6, -1e6, 0.0, 0.0]}
    theta = table.internal({name: torch.tensor(v) for name, v in values.items()})
    assert table.at_bound(theta).tolist() == [False, True, True, True, False]
    assert Unknowns({"a": Fixed(1.0)}).at_bound(torch.zeros(3, 0)).tolist() == [False] * 3


PRIORS = [  # prior, value, residual by hand
    (Gaussian(1.0, 0.5), 2.0, 2.0),
    (Gaussian(-1.0, 4.0), -3.0, -0.5),
    (LogNormal(2.0, 0.5), 2.0, 0.0),
    (LogNormal(2.0, 0.5), 4.0, 2 * math.log(2)),
    (LogNormal(1.0, 2.0), math.exp(-3), -1.5),
]


@pytest.mark.parametrize(("prior", "value", "expected"), PRIORS)
def test_priors_by_hand(prior, value, expected):
    x = torch.tensor([value], dtype=torch.float64)
    assert prior.residual(x).item() == pytest.approx(expected, abs=1e-12)
    slope = torch.func.jvp(prior.residual, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(prior.slope(x), slope, rtol=1e-12, atol=1e-12)


def table(batch: int = 4) -> Unknowns:
    return Unknowns(
        {
            "a": Free(0.0, 4.0, Gaussian(torch.linspace(0.5, 2, batch).double(), 0.3)),
            "known": Fixed(torch.arange(batch).double()),
            "b": Free(0.1, None, LogNormal(1.0, 0.7)),
            "c": Free(-1.0, 1.0),
            "constant": Fixed(7.0),
        }
    )


def test_unknowns_in_order_with_fixed_ones_between():
    unknowns, theta = table(), normal(0, 4, 3)
    assert (unknowns.names, unknowns.size) == (("a", "b", "c"), 3)
    values = unknowns.values(theta)
    torch.testing.assert_close(unknowns.internal(values), theta)
    assert values["known"].tolist() == [0, 1, 2, 3]
    assert values["constant"].tolist() == [7.0] * 4

    def free(t):
        return torch.stack([unknowns.values(t)[name] for name in unknowns.names], dim=1)

    torch.testing.assert_close(unknowns.slopes(theta), torch.func.jvp(free, (theta,), (torch.ones_like(theta),))[1])


def test_prior_rows_and_their_jacobian():
    unknowns, theta = table(), normal(0, 4, 3)
    rows, jacobian = unknowns.prior(theta)
    values = unknowns.values(theta)
    expected = torch.stack([(values["a"] - torch.linspace(0.5, 2, 4)) / 0.3, values["b"].log() / 0.7], dim=1)
    torch.testing.assert_close(rows, expected)
    columns = [torch.func.jvp(lambda t: unknowns.prior(t)[0], (theta,), (torch.eye(3).double()[k].expand(4, 3),))[1] for k in range(3)]
    torch.testing.assert_close(jacobian, torch.stack(columns, dim=2))
    none, slopes = Unknowns({"a": Free()}).prior(normal(0, 4, 1))
    assert (none.shape, slopes.shape) == ((4, 0), (4, 0, 1))


def test_take_picks_what_is_one_a_problem():
    unknowns, theta, rows = table(), normal(0, 4, 3), torch.tensor([3, 1])
    part = unknowns.take(rows)
    for name, value in part.values(theta[rows]).items():
        assert torch.equal(value, unknowns.values(theta)[name][rows])
    for k in (0, 1):
        assert torch.equal(part.prior(theta[rows])[k], unknowns.prior(theta)[k][rows])
    own = Unknowns({"x": FREE["own bounds"][0]})
    t = normal(1, 3, 1)
    assert torch.equal(own.take(rows[1:]).values(t[rows[1:]])["x"], own.values(t)["x"][rows[1:]])


def test_coupling_of_shared_unknowns():
    group = torch.tensor([0, 0, 1, 1])
    assert isinstance(table().coupling(), Independent)
    coupling = Unknowns({"a": Free(), "b": Free(0.0, 1.0, group=group), "c": Free(group=group)}).coupling()
    assert isinstance(coupling, Shared)
    assert coupling.columns == (1, 2)
    assert torch.equal(coupling.group, group)
