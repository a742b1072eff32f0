"""The kinetic models of arterial spin labelling, each as closed form, as differential equation and as supply per time interval.

S(t) is the signal per 2 alpha M0b: dS/dt = f c(t) - S / T1', S(0) = 0, with 1/T1' = 1/T1t + f0/lambda and delivery c(t) between
arrival ATT and ATT + tau: exp(-ATT/T1b) for p/CASL, exp(-t/T1b) for PASL (Buxton 1998, doi:10.1002/mrm.1910400308). S is linear in the
flow f; everything here is for f = 1. Times in seconds from the start of labelling; all arguments broadcast.

The outflow term of T1' uses one f0 = 0.01 /s for all voxels, as BASIL does, so that the model stays linear in f; the error in CBF is
below 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .acquisition import Labeling

OUTFLOW = 0.01  # f0, mL/g/s
Derivatives = dict[str, Tensor]


def apparent_t1(t1_tissue: float | Tensor, partition: float) -> float | Tensor:
    """T1' in s: relaxation of the label in tissue, outflow included."""
    return 1.0 / (1.0 / t1_tissue + OUTFLOW / partition)


@dataclass(frozen=True)
class Tissue:
    """Delivered label relaxes with T1': dS/dt = c(t) - S/T1'. `t1_apparent` is T1' in s, one number or one a voxel."""

    t1_apparent: float | Tensor

    @property
    def loss_rate(self) -> float | Tensor:
        """1/T1', the factor of -S in the equation."""
        return 1.0 / self.t1_apparent

    def delivery(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        """c(t), the rate at which label arrives."""
        raise NotImplementedError

    def rate(self, t: Tensor, signal: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        """dS/dt: the right-hand side of the differential equation."""
        return self.delivery(t, tau, att, t1b) - signal * self.loss_rate


@dataclass(frozen=True)
class Continuous(Tissue):
    """p/CASL: c = exp(-ATT/T1b) for ATT < t < ATT + tau."""

    def delivery(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        return torch.where((t > att) & (t < att + tau), torch.exp(-att / t1b), 0.0)

    def closed_form(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        """S(t) and its derivatives by `att` and `t1b`, all of the broadcast shape."""
        since = (t - att).clamp_min(0)
        ended = (since - tau).clamp_min(0)
        arrived = torch.exp(-att / t1b)
        rising, falling = torch.exp(-since * self.loss_rate), torch.exp(-ended * self.loss_rate)
        signal = self.t1_apparent * arrived * (falling - rising)
        by_att = arrived * (_positive(ended) * falling - _positive(since) * rising) - signal / t1b
        return signal, {"att": by_att, "t1b": signal * att / t1b**2}

    def supply(self, low: Tensor, high: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        """Label delivered in each interval from `low` to `high`: the integral of c there, and its derivatives."""
        overlap = (torch.minimum(high, att + tau) - torch.maximum(low, att)).clamp_min(0)
        arrived = torch.exp(-att / t1b)
        amount = arrived * overlap
        moves = _inside(att + tau, low, high) - _inside(att, low, high)
        return amount, {"att": arrived * moves - amount / t1b, "t1b": amount * att / t1b**2}


@dataclass(frozen=True)
class Pulsed(Tissue):
    """PASL: c = exp(-t/T1b) for ATT < t < ATT + tau."""

    def delivery(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        return torch.where((t > att) & (t < att + tau), torch.exp(-t / t1b), 0.0)

    def closed_form(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        """Integral of exp(r s) over the delivered part of the bolus, r = 1/T1' - 1/T1b; sinhc keeps it exact where T1' = T1b."""
        r = self.loss_rate - 1.0 / t1b
        bolus = torch.minimum((t - att).clamp_min(0), tau)
        middle, x = att + 0.5 * bolus, 0.5 * r * bolus
        decay = torch.exp(-t * self.loss_rate)
        centre = torch.exp(r * middle)
        signal = decay * bolus * centre * _sinhc(x)
        started, ended = _positive(t - att), _positive(t - att - tau)
        by_att = decay * (ended * torch.exp(r * (att + tau)) - started * torch.exp(r * att))
        by_r = decay * bolus * centre * (middle * _sinhc(x) + 0.5 * bolus * _sinhc_slope(x))
        return signal, {"att": by_att, "t1b": by_r / t1b**2}

    def supply(self, low: Tensor, high: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        start, end = torch.maximum(low, att), torch.minimum(high, att + tau)
        end = torch.maximum(start, end)
        first, last = torch.exp(-start / t1b), torch.exp(-end / t1b)
        amount = t1b * (first - last)
        by_att = _inside(att + tau, low, high) * torch.exp(-(att + tau) / t1b) - _inside(att, low, high) * torch.exp(-att / t1b)
        by_t1b = (first - last) + (first * start - last * end) / t1b
        return amount, {"att": by_att, "t1b": by_t1b}


@dataclass(frozen=True)
class Simplified:
    """The model of SUPINN and the MICCAI 2024 tutorial (Galazis 2025, doi:10.3389/fnetp.2025.1488349): PASL, decay with T1 of blood alone.

    S(t) = clip(t - ATT, 0, tau) exp(-t/T1b). Its published equation has the solution already put in, so that S does not appear on the
    right: dS/dt = exp(-t/T1b) (1[in bolus] - clip(t - ATT, 0, tau)/T1b).
    """

    loss_rate = 0.0

    def delivery(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        bolus = torch.minimum((t - att).clamp_min(0), tau)
        return torch.exp(-t / t1b) * (((t > att) & (t < att + tau)).to(t.dtype) - bolus / t1b)

    def rate(self, t: Tensor, signal: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
        return self.delivery(t, tau, att, t1b)

    def closed_form(self, t: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        since = t - att
        bolus = torch.minimum(since.clamp_min(0), tau)
        decay = torch.exp(-t / t1b)
        signal = bolus * decay
        return signal, {"att": decay * (_positive(since - tau) - _positive(since)), "t1b": signal * t / t1b**2}

    def supply(self, low: Tensor, high: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> tuple[Tensor, Derivatives]:
        """The right-hand side is the derivative of the closed form: its integral over an interval is the closed form's increment."""
        before, slopes_before = self.closed_form(low, tau, att, t1b)
        after, slopes_after = self.closed_form(high, tau, att, t1b)
        return after - before, {name: slopes_after[name] - slopes_before[name] for name in slopes_after}


Kinetics = Continuous | Pulsed | Simplified


def kinetics(labeling: Labeling, model: str, t1_tissue: float | Tensor, partition: float) -> Kinetics:
    """The kinetic model for a way of labelling: `model` is "buxton" (general kinetic model) or "simplified"."""
    if model == "simplified":
        return Simplified()
    t1_apparent = apparent_t1(t1_tissue, partition)
    return Pulsed(t1_apparent) if labeling == "PASL" else Continuous(t1_apparent)


def weak_residual(model: Kinetics, edges: Tensor, signal: Tensor, flow: Tensor, tau: Tensor, att: Tensor, t1b: Tensor) -> Tensor:
    """The equation integrated over each interval, (..., M): S(t_j) - S(t_j-1) + (1/T1') int S - f int c; 0 for the solution.

    `signal` (..., M + 1) are the values at the edges, S linear in between. The integral form needs no smoothing of the jumps in c:
    smoothing biases ATT by about 15 ms and CBF by 5 % at the widths in use, and unresolved jumps pin ATT where it starts.
    """
    storage = 0.5 * (signal[..., 1:] + signal[..., :-1]) * edges.diff()
    return signal.diff(dim=-1) + model.loss_rate * storage - flow * model.supply(edges[..., :-1], edges[..., 1:], tau, att, t1b)[0]


def _positive(x: Tensor) -> Tensor:
    """1 where x > 0, else 0: by sign, for masks and `where` take many times as long on a CPU."""
    return x.clamp_min(0).sign()


def _inside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """1 where low < x <= high."""
    return _positive(x - low) - _positive(x - high)


def _sinhc(x: Tensor) -> Tensor:
    """sinh(x)/x."""
    small = x.abs() < 0.05
    safe = torch.where(small, 1.0, x)
    return torch.where(small, 1 + x * x / 6 * (1 + x * x / 20), torch.sinh(safe) / safe)


def _sinhc_slope(x: Tensor) -> Tensor:
    small = x.abs() < 0.05
    safe = torch.where(small, 1.0, x)
    return torch.where(small, x / 3 * (1 + x * x / 10), (torch.cosh(safe) - torch.sinh(safe) / safe) / safe)
