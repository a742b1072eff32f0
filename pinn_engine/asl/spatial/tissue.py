"""Soft tissue classes of every voxel: from a T1 map where there is one, else from M0 and the difference signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..curves import Curves

T1 = (1.33, 0.83, 4.3)  # s at 3 T: grey matter, white matter (doi:10.1002/(SICI)1522-2586(199904)9:4<531::AID-JMRI4>3.0.CO;2-L), fluid
LOG_DENSITY = tuple(np.log([0.82, 0.70, 1.0]))  # M0 relative to water
LOG_T1_WIDTH = 0.12
ROUNDS, SAMPLE = 30, 8000  # turns of the mixture, voxels that it is learnt from
LEAST_SHARE = 0.03  # a class smaller than this has not been found
LEAST_CONTRAST = 1.4  # of grey over white signal


@dataclass(frozen=True)
class Tissue:
    """`share` (V, 3) probabilities of GM, WM, CSF; all GM where the data cannot tell. `origin` says from what."""

    share: np.ndarray
    origin: str

    @property
    def known(self) -> bool:
        return self.origin != "one class"

    def t1(self, grey: float, levels: int = 6) -> np.ndarray:
        """(V,) s, the T1 of tissue in few levels from white to grey; fluid has no signal, so its T1 does not matter."""
        share = self.share[:, 0] / np.maximum(self.share[:, 0] + self.share[:, 1], 1e-6)
        share = np.where(self.share[:, 2] > 0.9, 1.0, share)
        return grey * (T1[1] / T1[0] + (1 - T1[1] / T1[0]) * np.round(share * (levels - 1)) / (levels - 1))


def classify(c: Curves, m0: np.ndarray | None, t1: np.ndarray | None, position: np.ndarray) -> Tissue:
    """`m0` (V,), `t1` (V,) s or None; `position` (V, 3) mm."""
    if t1 is not None:
        distance = (np.log(np.maximum(t1, 0.05))[:, None] - np.log(T1)) / LOG_T1_WIDTH
        return Tissue(_normalised(-0.5 * distance**2), "T1 map")
    if m0 is None or np.std(np.log(m0)) < 1e-3:
        return one_class(len(c))
    share = _mixture(np.log(m0.astype(float)), *_signal(c), _cubic(position))
    return one_class(len(c)) if share is None else Tissue(share, "M0 and difference signal")


def from_maps(share: np.ndarray) -> Tissue:
    """Of probability maps (V, 3); where they say nothing, grey matter."""
    silent = share.sum(axis=1, keepdims=True) < 0.5
    return Tissue(np.where(silent, [1.0, 0.0, 0.0], share), "tissue maps")


def one_class(voxels: int) -> Tissue:
    return Tissue(np.tile([1.0, 0.0, 0.0], (voxels, 1)), "one class")


def _signal(c: Curves) -> tuple[np.ndarray, np.ndarray]:
    """(V,) mean difference over delays in units of the typical one, and its variance."""
    weight = c.repeats / c.repeats.sum()
    mean = (c.data * weight).sum(axis=1).astype(float)
    return mean / c.amplitude, (c.noise.astype(float) / c.amplitude) ** 2 / c.repeats.sum()


def _cubic(position: np.ndarray) -> np.ndarray:
    """(V, 20) polynomials of the position up to degree 3: the coil's sensitivity."""
    x = (position - position.mean(axis=0)) / np.maximum(np.ptp(position, axis=0) / 2, 1.0)
    terms = [(i, j, k) for i in range(4) for j in range(4 - i) for k in range(4 - i - j)]
    return np.stack([x[:, 0] ** i * x[:, 1] ** j * x[:, 2] ** k for i, j, k in terms], axis=1)


@dataclass
class _Mixture:
    """Three classes in log M0 less the coil's field, and in the signal; the field is part of the model.

    The signal is per M0 already, so it is free of the coil's field and tells which class is which.
    """

    level: np.ndarray
    spread: np.ndarray
    flow: np.ndarray
    flow_sd: np.ndarray
    prior: np.ndarray
    field: np.ndarray  # coefficients of the coil's field

    def share(self, flat: np.ndarray, signal: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """(V, 3) probabilities; `flat` is log M0 without the coil's field."""
        total = self.flow_sd**2 + variance[:, None]
        log = np.log(self.prior / self.spread) - 0.5 * ((flat[:, None] - self.level) / self.spread) ** 2
        return _normalised(log - 0.5 * np.log(total) - 0.5 * (signal[:, None] - self.flow) ** 2 / total)


def _mixture(log_m0: np.ndarray, signal: np.ndarray, variance: np.ndarray, terms: np.ndarray) -> np.ndarray | None:
    """(V, 3) shares by expectation maximisation on some of the voxels; None where no two tissues come apart."""
    every = slice(None, None, max(len(log_m0) // SAMPLE, 1))
    y, x, v, t = log_m0[every], signal[every], variance[every], terms[every]
    high = np.percentile(x, 75)
    start = np.zeros(terms.shape[1])
    start[0] = np.median(y)
    level = np.array(LOG_DENSITY) - LOG_DENSITY[0]
    m = _Mixture(level, np.full(3, 0.07), np.array([1.0, 0.4, 0.0]) * high, np.array([0.3, 0.15, 0.1]) * abs(high), np.ones(3) / 3, start)
    for turn in range(ROUNDS):
        share = m.share(y - t @ m.field, x, v)
        _improve(m, share, y, x, v, t, levels=turn >= 5, high=high)  # first the field, then the levels
    if not (m.prior[:2].min() > LEAST_SHARE and m.flow[0] > LEAST_CONTRAST * m.flow[1] > 0):
        return None
    return m.share(log_m0 - terms @ m.field, signal, variance)


def _improve(m: _Mixture, share: np.ndarray, y: np.ndarray, x: np.ndarray, v: np.ndarray, t: np.ndarray, levels: bool, high: float) -> None:
    """One maximisation, given each voxel's shares."""
    weight = share / m.spread**2
    target = ((y[:, None] - m.level) * weight).sum(axis=1) / weight.sum(axis=1)
    root = np.sqrt(weight.sum(axis=1))
    m.field = np.linalg.lstsq(t * root[:, None], target * root, rcond=None)[0]
    count, flat = share.sum(axis=0) + 1e-9, y - t @ m.field
    if levels:
        level = (share * flat[:, None]).sum(axis=0) / count
        m.level = level - level[0]
    m.spread = np.clip(np.sqrt((share * (flat[:, None] - m.level) ** 2).sum(axis=0) / count), 0.01, 0.12)
    precise = share / (m.flow_sd**2 + v[:, None])
    m.flow = (precise * x[:, None]).sum(axis=0) / (precise.sum(axis=0) + 1e-12)
    m.flow[2] = np.clip(m.flow[2], -0.1 * abs(high), 0.25 * abs(m.flow[0]))  # fluid has no perfusion
    m.prior = count / count.sum()


def _normalised(log: np.ndarray) -> np.ndarray:
    raised = np.exp(log - log.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
