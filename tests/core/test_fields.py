"""Networks and feature fields: values written out by hand, derivatives against autograd, hard zeros and interpolation."""

import numpy as np
import pytest
import torch
from made_problems import normal, rng
from torch.func import jacrev, vmap

from pinn_engine.core import MLP, LinearField
from pinn_engine.core.fields import ACTIVATIONS

SHAPES = [(1, 1), (1, 5, 1), (2, 6, 1), (3, 4, 7, 1), (3, 5, 5, 5, 2), (2, 32, 3)]
NETWORKS = [MLP(layers, activation, 0.3, 1.7, 2.5) for layers in SHAPES for activation in ("tanh", "swish")]
BATCH, POINTS = 3, 11


def ident(network: MLP) -> str:
    return "-".join(map(str, network.layers)) + network.activation


def case(network: MLP) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.8 * normal(1, BATCH, network.size), 2 * normal(2, BATCH, POINTS, network.layers[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_know_their_derivatives(name):
    z = torch.linspace(-6, 6, 101, dtype=torch.float64)
    act = ACTIVATIONS[name]
    expected = {"tanh": np.tanh, "swish": lambda t: t / (1 + np.exp(-t))}[name](z.numpy())
    first = vmap(torch.func.grad(act.value))
    np.testing.assert_allclose(act.value(z), expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(act.first(z), first(z), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(act.second(z), vmap(torch.func.grad(torch.func.grad(act.value)))(z), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(act.third(z), vmap(torch.func.grad(act.second))(z), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS, ids=ident)
def test_value_is_the_network_written_out(network):
    weights, x = case(network)
    value = network(weights, x)
    act = {"tanh": np.tanh, "swish": lambda t: t / (1 + np.exp(-t))}[network.activation]
    for b in range(BATCH):
        row, a, start = weights[b].numpy(), (x[b].numpy() - 0.3) / 1.7, 0
        for k, (i, o) in enumerate(zip(network.layers[:-1], network.layers[1:], strict=True)):
            matrix, bias = row[start : start + i * o].reshape(i, o), row[start + i * o : start + (i + 1) * o]
            a, start = a @ matrix + bias, start + (i + 1) * o
            a = act(a) if k < len(network.layers) - 2 else a
        assert start == network.size
        np.testing.assert_allclose(value[b], 2.5 * a, rtol=1e-12)


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.layers[-1] == 1], ids=ident)
def test_jacobian_is_that_of_autograd(network):
    weights, x = case(network)

    def one(w, p):  # a single network at a single point
        return network(w[None], p[None, None])[0, 0, 0]

    over_points = vmap(vmap(jacrev(one, argnums=(0, 1)), in_dims=(None, 0)))
    by_weight, by_input = over_points(weights, x)
    value, weight_rows, input_rows = network.jacobian(weights, x)
    torch.testing.assert_close(value, network(weights, x).squeeze(-1), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(weight_rows, by_weight, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(input_rows, by_input, rtol=1e-9, atol=1e-11)


def test_glorot_start():
    network = MLP((40, 60, 1))
    weights = network.glorot(200, rng(0), dtype=torch.float64)
    (first, bias), (last, _) = network.unpack(weights)
    assert first.var().item() == pytest.approx(2 / 100, rel=0.01)
    assert last.var().item() == pytest.approx(2 / 61, rel=0.05)
    assert not bias.any()
    assert abs(float(first.mean())) < 1e-3
    assert torch.equal(weights, network.glorot(200, rng(0), dtype=torch.float64))
    assert not torch.equal(weights[0], weights[1])
    same = network.glorot(3, rng(0), same=True)
    assert torch.equal(same[0], same[2])
    assert not torch.equal(same, network.glorot(3, rng(1), same=True))


KNOTS = torch.tensor([0.0, 0.2, 0.5, 1.1, 2.0], dtype=torch.float64)


def test_rectified_units_make_every_piecewise_linear_curve_from_zero():
    field = LinearField.rectified(KNOTS)
    nodes = torch.cat([torch.zeros(3, 1), normal(0, 3, 4)], dim=1)  # 3 curves through 0
    slopes = nodes.diff() / KNOTS.diff()
    coefficients = slopes.diff(dim=1, prepend=torch.zeros(3, 1))
    x = torch.linspace(0, 2, 41, dtype=torch.float64)
    expected = np.stack([np.interp(x, KNOTS, row) for row in nodes])
    np.testing.assert_allclose(field(coefficients, x), expected, atol=1e-13)
    assert field.size == len(KNOTS) - 1
    assert torch.equal(field(normal(1, 5, 4), KNOTS[:1]), torch.zeros(5, 1, dtype=torch.float64))  # exactly: the initial condition is hard


def test_nodal_values_are_interpolated_and_constant_beyond_the_ends():
    field, nodes = LinearField.nodal(KNOTS), normal(0, 3, 5)
    x = torch.cat([KNOTS, torch.linspace(-1, 3, 57, dtype=torch.float64)])
    np.testing.assert_allclose(field(nodes, x), np.stack([np.interp(x, KNOTS, row) for row in nodes]), atol=1e-13)
    torch.testing.assert_close(field(nodes, KNOTS), nodes, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(field.features(x).sum(dim=1), torch.ones(len(x), dtype=torch.float64))
