"""Jets carried forward by hand against autograd through coordinates, and their Jacobian by the weights."""

import pytest
import torch
from made_problems import normal

from pinn_engine.core import MLP, jets

NETWORKS = [MLP((3, 6, 2)), MLP((5, 7, 6, 5, 2)), MLP((5, 6, 4, 1), "swish")]


def features(x: torch.Tensor, size: int) -> torch.Tensor:
    """(size,) smooth functions of x = (t, x_1, x_2)."""
    rate = torch.linspace(0.4, 1.9, 3 * size, dtype=torch.float64).reshape(size, 3)
    return torch.sin(rate @ x + torch.arange(size))


def operator(f, x: torch.Tensor) -> torch.Tensor:
    """The jet (5, K) of f at x by autograd."""
    slope, bend = torch.func.jacrev(f)(x), torch.func.hessian(f)(x)
    return torch.stack([f(x), slope[:, 0], slope[:, 1], slope[:, 2], bend[:, 1, 1] + bend[:, 2, 2]])


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_jets_and_their_jacobian_are_what_autograd_finds(network):
    points, weights = normal(1, 7, 3), 0.7 * normal(2, network.size)
    count = network.layers[0]
    inputs = torch.stack([operator(lambda x: features(x, count), p) for p in points], dim=1)

    def out(w: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return operator(lambda x: network(w[None], features(x, count)[None, None])[0, 0], p)

    done = jets.forward(network, weights, inputs)
    torch.testing.assert_close(done.output, torch.stack([out(weights, p) for p in points], dim=1), rtol=1e-9, atol=1e-11)
    seeds = normal(3, *done.output.shape)
    expected = torch.stack(
        [torch.func.grad(lambda w, p=p, s=s: (s * out(w, p)).sum())(weights) for p, s in zip(points, seeds.unbind(1), strict=True)]
    )
    torch.testing.assert_close(jets.pull_back(network, done, seeds), expected, rtol=1e-8, atol=1e-10)
