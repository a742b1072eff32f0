"""Small least-squares problems whose answers are known: what the tests of the solvers solve."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pinn_engine.core import Fixed, Free, Gaussian, LogNormal, Problem, Separable, Unknowns


class Made(Problem):
    """A problem from one rule `terms(theta, **tensors)`; the tensors have B leading."""

    def __init__(self, rule: Callable[..., dict[str, Tensor]], names: tuple[str, ...] = (), weights=None, **tensors: Tensor):
        self.rule, self.names, self.weights, self.tensors = rule, names, weights or {}, tensors

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        return self.rule(theta, **self.tensors)

    def take(self, rows: Tensor) -> Made:
        return Made(self.rule, self.names, self.weights, **{name: tensor[rows] for name, tensor in self.tensors.items()})


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64).to(dtype)


def linear(theta: Tensor, a: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"data": (a @ theta.unsqueeze(2)).squeeze(2) - y}


def rosenbrock(theta: Tensor, steep: Tensor) -> dict[str, Tensor]:
    x, y = theta.T
    return {"valley": (steep * (y - x**2)).unsqueeze(1), "along": (1 - x).unsqueeze(1)}


def beale(theta: Tensor, c: Tensor) -> dict[str, Tensor]:
    x, y = theta[:, :1], theta[:, 1:]
    return {"data": c - x * torch.cat([1 - y, 1 - y**2, 1 - y**3], dim=1)}


def decay(theta: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """y = a exp(-k x), theta = (a, k)."""
    return {"data": theta[:, :1] * torch.exp(-theta[:, 1:2] * x) - y}


def decays(batch: int, seed: int = 0, noise: float = 0.02, dtype=torch.float64) -> tuple[Made, Tensor, Tensor]:
    """Noisy decays, a start, and the truth (B, 2)."""
    x = torch.linspace(0, 3, 12, dtype=torch.float64).expand(batch, -1)
    truth = torch.stack([1 + 2 * torch.rand(batch, generator=rng(seed)), 0.3 + torch.rand(batch, generator=rng(seed + 1))], dim=1).double()
    y = truth[:, :1] * torch.exp(-truth[:, 1:] * x) + noise * normal(seed + 2, batch, 12)
    problem = Made(decay, ("a", "k"), x=x.to(dtype), y=y.to(dtype))
    return problem, torch.ones(batch, 2, dtype=dtype), truth


class Exponentials(Separable):
    """y = sum_l c_l exp(-k_l x), the amplitudes eliminated; `scale` turns rows into units of the noise."""

    def __init__(self, x: Tensor, y: Tensor, unknowns: Unknowns, linear: tuple[str, ...] = ("a",), scale: float = 1.0):
        super().__init__(y / scale, unknowns, linear)
        self.x, self.scale = x, scale

    def basis(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rates = torch.stack([values[f"k{i}"] for i in range(len(self.linear))], dim=1)  # (B, L)
        basis = torch.exp(-self.x.unsqueeze(2) * rates.unsqueeze(1)) / self.scale
        slope = basis.new_zeros(*basis.shape, self.unknowns.size)
        for p, name in enumerate(self.unknowns.names):
            slope[:, :, int(name[1:]), p] = -self.x * basis[:, :, int(name[1:])]
        return basis, slope

    def take(self, rows: Tensor) -> Exponentials:
        return Exponentials(self.x[rows], self.target[rows] * self.scale, self.unknowns.take(rows), self.linear, self.scale)


UNKNOWNS = {  # of Exponentials with one or two amplitudes
    "one": {"k0": Free(0.05, 4.0)},
    "prior": {"k0": Free(0.05, 4.0, Gaussian(0.5, 0.3))},
    "log-normal, from below": {"k0": Free(0.0, None, LogNormal(0.5, 0.4))},
    "two": {"k0": Free(0.05, 0.9), "k1": Free(1.0, 6.0, LogNormal(2.0, 0.5))},
    "two, one known": {"k0": Fixed(0.4), "k1": Free(1.0, 6.0)},
}


def exponentials(kind: str, batch: int = 7, noise: float = 0.05) -> tuple[Exponentials, Tensor]:
    """A separable problem and a point theta to look at it from."""
    unknowns = Unknowns(UNKNOWNS[kind])
    amplitudes = ("a", "b")[: len(UNKNOWNS[kind])]
    x = torch.linspace(0, 4, 15, dtype=torch.float64).expand(batch, -1)
    y = 2 * torch.exp(-0.4 * x) + (3 * torch.exp(-2.5 * x) if len(amplitudes) == 2 else 0) + noise * normal(5, batch, 15)
    return Exponentials(x, y, unknowns, amplitudes), 0.7 * normal(6, batch, unknowns.size)
