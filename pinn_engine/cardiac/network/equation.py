"""The Aliev-Panfilov equations for V = 1 / (1 + exp(-z)) and W = exp(u) - eps / mu1, with their slopes written out.

A front V = 1/(1 + exp((x - c t)/s)) is a straight line in z, so that a small smooth network of z carries a sharp front of V, and V stays
within 0..1, where W/(V + mu2) has no pole. With Q = 1 - V the first equation is V Q times
    z_t = D (L z + (1 - 2 V) |grad z|^2) + k (V - a) - W / Q.
Its row is taken times Q (V + rest Q) instead of V Q: the same where V counts, and with a little weight `rest` where V is almost 0, so that
a network that errs there feels it. W grows by a constant factor a time behind each front, from almost nothing: W = 0 almost solves its own
equation, so that a network of W itself finds that. In u the rate of growth is what is fitted, at every size of W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.jets import SECOND, SPACE, TIME, VALUE
from ..model import AlievPanfilov

REST = 0.02
LOWEST, HIGHEST = -8.0, 3.0  # u is held within: W up to 20, eight times its peak


@dataclass(frozen=True)
class Residuals:
    """Rows (N,) of one equation, 1/TU; `seeds`: d row / d output jets (C, N, 2); `D`, `a`, `b`: slopes by the numbers (N,)."""

    row: Tensor
    seeds: Tensor
    D: Tensor
    a: Tensor
    b: Tensor


def recovery(u: Tensor, model: AlievPanfilov) -> tuple[Tensor, Tensor]:
    """W and dW/du."""
    grown = torch.exp(u.clamp(LOWEST, HIGHEST))
    return grown - model.eps / model.mu1, grown


def voltage_rows(out: Tensor, D: Tensor | float, model: AlievPanfilov, rest: float = REST) -> Residuals:
    """The equation of V from the jets (C, N, 2) of (z, u)."""
    z = out[..., 0]
    W, W_u = recovery(out[VALUE, :, 1], model)
    V, Q = torch.sigmoid(z[VALUE]), torch.sigmoid(-z[VALUE])
    VQ, S = V * Q, V + rest * Q
    omega = Q * S
    steep = (z[SPACE] ** 2).sum(dim=0)
    spread = z[SECOND] + (1.0 - 2.0 * V) * steep
    balance = z[TIME] - D * spread - model.k * (V - model.a)
    seeds = torch.zeros_like(out)
    seeds[VALUE, :, 0] = VQ * ((Q * (1.0 - rest) - S) * balance + omega * (2.0 * D * steep - model.k) + W * (1.0 - rest))
    seeds[TIME, :, 0] = omega
    seeds[SPACE, :, 0] = -2.0 * omega * D * (1.0 - 2.0 * V) * z[SPACE]
    seeds[SECOND, :, 0] = -omega * D
    seeds[VALUE, :, 1] = S * W_u
    return Residuals(omega * balance + W * S, seeds, -omega * spread, omega * model.k, torch.zeros_like(W))


def recovery_rows(out: Tensor, model: AlievPanfilov) -> Residuals:
    """The equation of W divided by W + eps / mu1, from the same jets: u_t - (eps + mu1 W / (V + mu2)) pull / (W + eps / mu1)."""
    V, Q = torch.sigmoid(out[VALUE, :, 0]), torch.sigmoid(-out[VALUE, :, 0])
    u = out[VALUE, :, 1]
    W, grown = recovery(u, model)
    pull = -W - model.k * V * (V - model.b - 1.0)
    rest = V + model.mu2
    rate = (model.eps + model.mu1 * W / rest) / grown
    seeds = torch.zeros_like(out)
    seeds[VALUE, :, 0] = V * Q * (model.mu1 * W / (rest**2 * grown) * pull + rate * model.k * (2.0 * V - model.b - 1.0))
    seeds[VALUE, :, 1] = -(model.mu1 / rest - rate) * pull + rate * grown
    seeds[TIME, :, 1] = 1.0
    nothing = torch.zeros_like(W)
    return Residuals(out[TIME, :, 1] - rate * pull, seeds, nothing, nothing, -rate * model.k * V)
