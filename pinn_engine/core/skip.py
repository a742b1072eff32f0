"""Skip connections: a hidden layer adds to what went in instead of replacing it, so that depth costs no gradient.

Plain: a + act(z) (He et al. 2016, doi:10.1109/CVPR.2016.90). Adaptive: (1 - s) a + s act(z) with a trainable share s that starts at 0, so
that a network of any depth starts as one of a single hidden layer and grows as the data ask (PirateNets, Wang et al. 2024,
arXiv:2402.00326).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import jets
from .fields import ACTIVATIONS, MLP
from .jets import SECOND, SPACE, VALUE


@dataclass(frozen=True)
class SkipMLP:
    """`layers` (inputs, width, .., width, outputs); theta (W,) = the weights of the MLP, then one share a skip where `adaptive`."""

    layers: tuple[int, ...]
    adaptive: bool = False
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if len(self.layers) < 4 or len(set(self.layers[1:-1])) != 1:
            raise ValueError(f"skips need two or more hidden layers of one width, got {self.layers}")

    @property
    def plain(self) -> MLP:
        return MLP(self.layers, self.activation)

    @property
    def skips(self) -> int:
        return len(self.layers) - 3

    @property
    def size(self) -> int:
        return self.plain.size + self.adaptive * self.skips

    def glorot(self, batch: int, generator: torch.Generator, *, uniform: bool = False, dtype=torch.float32, device="cpu") -> Tensor:
        """(B, W) as `MLP.glorot`; shares 0."""
        weights = self.plain.glorot(batch, generator, uniform=uniform, dtype=dtype, device=device)
        return torch.cat([weights, weights.new_zeros(batch, self.adaptive * self.skips)], dim=1)

    def forward(self, weights: Tensor, inputs: Tensor) -> jets.Pass:
        """As `jets.forward`."""
        act = ACTIVATIONS[self.activation]
        layers = tuple((matrix[0], bias[0, 0]) for matrix, bias in self.plain.unpack(weights[None]))
        a, seen, before = inputs, [], []
        for k, (matrix, bias) in enumerate(layers[:-1]):
            seen.append(a)
            z = a @ matrix
            z = torch.cat([z[:1] + bias, z[1:]])
            before.append(z)
            new = _activated(act, z)
            a = new if k == 0 else self._mixed(weights, k, a, new)
        seen.append(a)
        out = a @ layers[-1][0]
        return jets.Pass(torch.cat([out[:1] + layers[-1][1], out[1:]]), tuple(seen), tuple(before), layers, weights)

    def pull_back(self, done: jets.Pass, seeds: Tensor) -> Tensor:
        """(N, W) as `jets.pull_back`."""
        act = ACTIVATIONS[self.activation]
        layers, weights = done.layers, done.weights
        assert weights is not None
        blocks: list[Tensor] = []
        shares: list[Tensor] = []
        for k in reversed(range(len(layers))):
            straight: Tensor | float = 0.0
            if k < len(done.before):
                if k:
                    share = self._share(weights, k)
                    if self.adaptive:
                        shares.insert(0, (seeds * (_activated(act, done.before[k]) - done.inputs[k])).sum(dim=(0, 2)))
                    straight = (1.0 - share) * seeds if self.adaptive else seeds
                    seeds = share * seeds
                seeds = jets.through(act, done.before[k], seeds)
            blocks = [jets.outer(done.inputs[k], seeds), seeds[VALUE], *blocks]
            seeds = seeds @ layers[k][0].T + straight if k else seeds
        return torch.cat([*blocks, *(s[:, None] for s in shares)], dim=1)

    def _share(self, weights: Tensor, k: int) -> Tensor:
        return weights[self.plain.size + k - 1] if self.adaptive else weights.new_ones(())

    def _mixed(self, weights: Tensor, k: int, a: Tensor, new: Tensor) -> Tensor:
        return a + self._share(weights, k) * (new - a) if self.adaptive else a + new


def _activated(act, z: Tensor) -> Tensor:
    rest = act.first(z[VALUE]) * z[1:]
    bend = act.second(z[VALUE]) * (z[SPACE] ** 2).sum(dim=0)
    return torch.cat([act.value(z[VALUE])[None], rest[:-1], (rest[SECOND] + bend)[None]])
