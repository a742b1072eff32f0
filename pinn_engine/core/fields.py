"""Fields: what a network or a grid makes of an input, with its derivatives going forward in the same pass.

`MLP` holds B networks of the same shape as one stack of weights (B, W); `LinearField` is fixed features with a linear output layer, which
the solver can eliminate: shared features of a PINN, or nodal values on a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """A function with its first three derivatives as functions of the input."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    third: Callable[[Tensor], Tensor]


def _swish_first(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def _swish_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def _swish_third(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    p = s * (1 - s)
    return p * (1 - 2 * s) * (2 + z * (1 - 2 * s)) + p * (1 - 2 * s - 2 * z * p)


def _tanh_first(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z) ** 2


def _tanh_second(z: Tensor) -> Tensor:
    y = torch.tanh(z)
    return -2 * y * (1 - y**2)


def _tanh_third(z: Tensor) -> Tensor:
    y2 = torch.tanh(z) ** 2
    return (1 - y2) * (6 * y2 - 2)


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, _tanh_first, _tanh_second, _tanh_third),
    "swish": Activation(lambda z: z * torch.sigmoid(z), _swish_first, _swish_second, _swish_third),
}


@dataclass(frozen=True)
class MLP:
    """B stacked multilayer perceptrons `layers` = (inputs, hidden, ..., outputs); all weights of one network are a row of (B, W).

    Inputs are normalised to (x - centre) / scale, outputs multiplied by `output_scale`, so that weights are of order one.
    """

    layers: tuple[int, ...]
    activation: str = "tanh"
    centre: float = 0.0
    scale: float = 1.0
    output_scale: float = 1.0

    @property
    def size(self) -> int:
        """W: number of weights of one network."""
        return sum((a + 1) * b for a, b in pairwise(self.layers))

    def glorot(
        self, batch: int, generator: torch.Generator, *, same: bool = False, uniform: bool = False, dtype=torch.float32, device="cpu"
    ) -> Tensor:
        """(B, W) Glorot weights, normal or `uniform`, zero biases (Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html).

        Their variance is 2 / (inputs + outputs) of the layer. `same`: every problem starts from the same network.
        """
        blocks = []
        rows = 1 if same else batch
        for a, b in pairwise(self.layers):
            if uniform:
                weight = (2 * torch.rand(rows, a * b, generator=generator, dtype=torch.float64) - 1) * (6 / (a + b)) ** 0.5
            else:
                weight = torch.randn(rows, a * b, generator=generator, dtype=torch.float64) * (2 / (a + b)) ** 0.5
            blocks += [weight, torch.zeros(rows, b, dtype=torch.float64)]
        return torch.cat(blocks, dim=1).expand(batch, -1).to(device=device, dtype=dtype).contiguous()

    def unpack(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per layer the matrices (B, in, out) and biases (B, 1, out)."""
        parts, start = [], 0
        for a, b in pairwise(self.layers):
            matrix = weights[:, start : start + a * b].reshape(-1, a, b)
            parts.append((matrix, weights[:, start + a * b : start + (a + 1) * b].unsqueeze(1)))
            start += (a + 1) * b
        return parts

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """(B, N, outputs) for weights (B, W) and x (B, N, inputs)."""
        act = ACTIVATIONS[self.activation].value
        a = (x - self.centre) / self.scale
        *hidden, last = self.unpack(weights)
        for matrix, bias in hidden:
            a = act(torch.baddbmm(bias, a, matrix))
        return torch.baddbmm(last[1], a, last[0]) * self.output_scale

    def jacobian(self, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value (B, N), its derivative by the weights (B, N, W) and by the inputs (B, N, inputs), for a network with one output."""
        act = ACTIVATIONS[self.activation]
        layers = self.unpack(weights)
        inputs, slopes = [(x - self.centre) / self.scale], []
        for matrix, bias in layers[:-1]:
            z = torch.baddbmm(bias, inputs[-1], matrix)
            a = act.value(z)
            slopes.append(1 - a * a if self.activation == "tanh" else act.first(z))
            inputs.append(a)
        value = torch.baddbmm(layers[-1][1], inputs[-1], layers[-1][0]).squeeze(-1) * self.output_scale
        back = torch.full_like(value, self.output_scale).unsqueeze(-1)  # d value / d z of the current layer, (B, N, out)
        blocks: list[Tensor] = []
        for k in reversed(range(len(layers))):
            outer = inputs[k].unsqueeze(-1) * back.unsqueeze(-2)
            blocks = [outer.flatten(2), back, *blocks]
            back = back @ layers[k][0].transpose(1, 2)
            if k:
                back = back * slopes[k - 1]
        return value, torch.cat(blocks, dim=-1), back / self.scale


@dataclass(frozen=True)
class LinearField:
    """u(x) = sum_k c_k phi_k(x): features shared by all problems, coefficients c (B, K) linear and so open to elimination.

    `features(x)` maps (N,) to (N, K).
    """

    features: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, coefficients: Tensor, x: Tensor) -> Tensor:
        """(B, N)"""
        return coefficients @ self.features(x).T

    @classmethod
    def rectified(cls, knots: Tensor) -> LinearField:
        """One hidden layer of ReLU units, at the K + 1 `knots` but the last: the piecewise linear functions with u(knots[0]) = 0.

        The hard initial condition is exact: every feature vanishes at the first knot. Coefficients are changes of slope.
        """
        return cls(lambda x: torch.relu(x.unsqueeze(-1) - knots[:-1]), len(knots) - 1)

    @classmethod
    def nodal(cls, knots: Tensor) -> LinearField:
        """Hat functions on a grid of K `knots`: coefficients are the values at the nodes; constant beyond the ends."""

        def features(x: Tensor) -> Tensor:
            inside = x.clamp(float(knots[0]), float(knots[-1]))
            right = torch.searchsorted(knots, inside.contiguous()).clamp(1, len(knots) - 1)
            share = (inside - knots[right - 1]) / (knots[right] - knots[right - 1])
            hats = x.new_zeros(len(x), len(knots))
            hats.scatter_(1, (right - 1).unsqueeze(1), (1 - share).unsqueeze(1))
            return hats.scatter_add_(1, right.unsqueeze(1), share.unsqueeze(1))

        return cls(features, len(knots))
