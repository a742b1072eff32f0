"""Networks with their derivatives carried forward by hand: a value, its time derivative, its gradient and one second-order operator.

A jet is a tensor (C, N, K): at N points K numbers with channels value, d/dt, d/dx_1 .. d/dx_d and L = div(G grad .), where G is the unit
matrix or any symmetric tensor whose root is built into the gradient. Composition with a function f needs nothing else, since
(f(u))_t = f' u_t and L f(u) = f' L u + f'' |grad u|^2: so the inputs of a network may be anything whose jets are known (cosines on a box,
modes of a mesh with derivatives by finite elements), and nothing is ever differentiated by the points' coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import ACTIVATIONS, MLP

VALUE, TIME, SPACE, SECOND = 0, 1, slice(2, -1), -1  # channels of a jet


@dataclass(frozen=True)
class Pass:
    """What one forward pass leaves: the output jets (C, N, O) and, per layer, what the way back needs."""

    output: Tensor
    inputs: tuple[Tensor, ...]  # (C, N, in) of each layer
    before: tuple[Tensor, ...]  # (C, N, out) of each hidden layer before its activation
    layers: tuple[tuple[Tensor, Tensor], ...]
    weights: Tensor | None = None  # (W,) where a network has more than its layers


def forward(network: MLP, weights: Tensor, inputs: Tensor) -> Pass:
    """One network's `weights` (W,) applied to the jets `inputs` (C, N, layers[0]); `centre`, `scale` and `output_scale` are not used."""
    act = ACTIVATIONS[network.activation]
    layers = tuple((matrix[0], bias[0, 0]) for matrix, bias in network.unpack(weights[None]))
    a, seen, before = inputs, [], []
    for matrix, bias in layers[:-1]:
        seen.append(a)
        z = a @ matrix
        z[VALUE] += bias
        before.append(z)
        first, second = act.first(z[VALUE]), act.second(z[VALUE])
        a = first * z
        a[VALUE] = act.value(z[VALUE])
        a[SECOND] += second * (z[SPACE] ** 2).sum(dim=0)
    seen.append(a)
    out = a @ layers[-1][0]
    out[VALUE] += layers[-1][1]
    return Pass(out, tuple(seen), tuple(before), layers)


def pull_back(network: MLP, done: Pass, seeds: Tensor) -> Tensor:
    """(N, W) d/d weights of sum_{c, o} seeds[c, n, o] * output[c, n, o], a row a point; `seeds` (C, N, O) is d residual / d output."""
    return torch.cat([block for a, s in _backward(network, done, seeds) for block in (outer(a, s), s[VALUE])], dim=1)


def _backward(network: MLP, done: Pass, seeds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per layer, the first one first: the jets that went in (C, N, in), and the seeds (C, N, out) at its linear part."""
    act = ACTIVATIONS[network.activation]
    layers: list[tuple[Tensor, Tensor]] = []
    for k in reversed(range(len(done.layers))):
        if k < len(done.before):
            seeds = through(act, done.before[k], seeds)
        layers.append((done.inputs[k], seeds))
        if k:
            seeds = seeds @ done.layers[k][0].T
    return layers[::-1]


def through(act, z: Tensor, seeds: Tensor) -> Tensor:
    """Adjoint of one activation: seeds of what comes out -> seeds of what goes in."""
    first, second, third = act.first(z[VALUE]), act.second(z[VALUE]), act.third(z[VALUE])
    slope = z[SPACE]
    back = first * seeds
    back[SPACE] += 2.0 * second * slope * seeds[SECOND]
    back[VALUE] += second * (z[1:] * seeds[1:]).sum(dim=0) + third * (slope**2).sum(dim=0) * seeds[SECOND]
    return back


def outer(a: Tensor, seeds: Tensor) -> Tensor:
    """sum_c a[c, n, i] seeds[c, n, o] -> (N, I * O)."""
    return torch.bmm(a.permute(1, 2, 0), seeds.permute(1, 0, 2)).flatten(1)
