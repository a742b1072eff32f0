"""Quantities that carry their derivatives, so that equations and ansatz functions are written as on paper.

A `Jet` is a quantity at N points with channels value, d/dt, d/dx_1 .. d/dx_d and the Laplacian, as in `core.jets`. Sums, products and
functions of jets are jets, by the product and the chain rule; nothing is differentiated numerically, and nothing by autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Jet:
    """`channels` (C, N), C = 3 + d for d dimensions of space (0: an ordinary differential equation).

    >>> t, x = coordinates(torch.tensor([[0.0, 0.5]]))
    >>> (t + x**2).xx
    tensor([2.])
    """

    channels: Tensor

    @property
    def value(self) -> Tensor:
        return self.channels[0]

    @property
    def t(self) -> Tensor:
        """Derivative by time."""
        return self.channels[1]

    @property
    def grad(self) -> Tensor:
        """(d, N) derivatives by place."""
        return self.channels[2:-1]

    @property
    def lap(self) -> Tensor:
        """Laplacian over the dimensions of space."""
        return self.channels[-1]

    @property
    def x(self) -> Tensor:
        """First derivative in one dimension of space."""
        return self._line()[2]

    @property
    def xx(self) -> Tensor:
        """Second derivative in one dimension of space."""
        return self._line()[-1]

    def _line(self) -> Tensor:
        if len(self.channels) != 4:
            raise ValueError(f"x and xx are for one dimension of space, here are {len(self.channels) - 3}; use grad and lap")
        return self.channels

    def at_rest(self) -> Jet:
        """The same with its derivative by time taken away: a state of one moment, held."""
        channels = self.channels.clone()
        channels[1] = 0.0
        return Jet(channels)

    def apply(self, f: Tensor, first: Tensor, second: Tensor) -> Jet:
        """A function of this jet, given what the function and its two derivatives are at its value, each (N,)."""
        rest = first * self.channels[1:]
        bend = second * (self.grad**2).sum(dim=0)
        return Jet(torch.cat([f[None], rest[:-1], (rest[-1] + bend)[None]]))

    def __add__(self, other: Jet | float | Tensor) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.channels + other.channels)
        return Jet(torch.cat([self.channels[:1] + _number(other), self.channels[1:]]))

    def __mul__(self, other: Jet | float | Tensor) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.channels * _number(other))
        a, b = self.channels, other.channels
        rest = a[:1] * b[1:] + b[:1] * a[1:]
        cross = 2.0 * (self.grad * other.grad).sum(dim=0)
        return Jet(torch.cat([a[:1] * b[:1], rest[:-1], (rest[-1] + cross)[None]]))

    def __truediv__(self, other: Jet | float | Tensor) -> Jet:
        return self * (other**-1.0 if isinstance(other, Jet) else 1.0 / other)

    def __rtruediv__(self, other: float | Tensor) -> Jet:
        return self**-1.0 * other

    def __pow__(self, power: float) -> Jet:
        if isinstance(power, int) and 1 <= power <= 4:  # by products: the general rule has 0 * x**-1 in it
            out = self
            for _ in range(power - 1):
                out = out * self
            return out
        v = self.value
        return self.apply(v**power, power * v ** (power - 1), power * (power - 1) * v ** (power - 2))

    def __neg__(self) -> Jet:
        return Jet(-self.channels)

    def __sub__(self, other: Jet | float | Tensor) -> Jet:
        return self + (-other)

    def __rsub__(self, other: float | Tensor) -> Jet:
        return (-self) + other

    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: Sequence = (), kwargs: Any = None) -> Jet:
        """torch.sin(jet) and the like, and tensor * jet."""
        if function in FUNCTIONS:
            value = args[0].value
            return args[0].apply(*FUNCTIONS[function](value))
        swapped = SWAPPED.get(getattr(function, "__name__", ""))
        if swapped is None or not isinstance(args[1], Jet):
            raise TypeError(f"{getattr(function, '__name__', function)} of a jet is not known; write it with + - * / ** and {_known()}")
        return swapped(args[1], args[0])


def _sin(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.sin(v)
    return s, torch.cos(v), -s


def _cos(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c = torch.cos(v)
    return c, -torch.sin(v), -c


def _exp(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    e = torch.exp(v)
    return e, e, e


def _tanh(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.tanh(v)
    return y, 1 - y**2, -2 * y * (1 - y**2)


def _sigmoid(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.sigmoid(v)
    return s, s * (1 - s), s * (1 - s) * (1 - 2 * s)


FUNCTIONS: dict[Any, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    torch.sin: _sin,
    torch.cos: _cos,
    torch.exp: _exp,
    torch.tanh: _tanh,
    torch.sigmoid: _sigmoid,
}
SWAPPED: dict[str, Callable[[Jet, Any], Jet]] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), Jet.__add__),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), Jet.__mul__),
    **dict.fromkeys(("sub", "__sub__", "rsub"), Jet.__rsub__),
    **dict.fromkeys(("div", "true_divide", "__truediv__", "__rtruediv__"), Jet.__rtruediv__),
}


def _known() -> str:
    return ", ".join(f"torch.{function.__name__}" for function in FUNCTIONS)


def _number(value: float | Tensor) -> float | Tensor:
    if isinstance(value, Tensor) and value.ndim:
        raise TypeError(f"a tensor of shape {tuple(value.shape)} has no derivatives: make it a function of the coordinates, or a number")
    return value


def coordinates(points: Tensor) -> tuple[Jet, ...]:
    """The columns of points (N, 1 + d), time first, as jets: each has slope 1 along itself."""
    n, columns = points.shape
    made = []
    for k in range(columns):
        channels = points.new_zeros(2 + columns, n)
        channels[0], channels[1 + k] = points[:, k], 1.0
        made.append(Jet(channels))
    return tuple(made)
