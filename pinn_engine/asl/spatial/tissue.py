"""Soft tissue classes of every voxel: from a T1 map where there is one, else from M0 and the difference signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import logsumexp

from ..curves import Curves

T1 = (1.33, 0.83, 4.3)  # s at 3 T: grey matter, white matter (doi:10.1002/(SICI)1522-2586(199904)9:4<531::AID-JMRI4>3.0.CO;2-L), fluid
DENSITY = (0.82, 0.70, 1.0)  # M0 relative to water
LOG_T1_WIDTH = 0.12
ROUNDS, PURE_ROUNDS, SAMPLE = 30, 12, 8000  # turns of the mixture, and before them without mixed voxels; voxels that it is learnt from
LEAST_SHARE = 0.03  # a class smaller than this has not been found
LEAST_CONTRAST = 1.4  # of grey over white signal
MIXED, PAIRS = 7, ((0, 1), (0, 2), (1, 2))  # steps of a voxel's share of the first of two tissues, and which two
FAMILIES, DOUBT = 9, 2.2  # see `_kinds`; variance of shares over what the mixture of at most two tissues says
ODD_WIDTH = 1.5  # log M0 of odd voxels is anywhere in a range of this length
DENSITIES = (0.2, 2.0)  # M0 over that of GM: what few voxels cannot tell stays possible
SPREAD, ROOT_2PI = (0.005, 0.12), (2 * np.pi) ** 0.5  # of log M0
CHUNK = 65536  # voxels at once


@dataclass(frozen=True)
class Tissue:
    """`share` (V, 3) of a voxel's M0 that is GM, WM, CSF, and its covariance `doubt` (V, 3, 3); all GM where the data cannot tell.

    `origin` says from what. `t1_of` grey and white matter (s), where no T1 map was given: a voxel's own T1 then is no better known.
    """

    share: np.ndarray
    origin: str
    doubt: np.ndarray | None = None
    t1_of: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        return self.origin != "one class"

    def t1(self, grey: float, levels: int = 6) -> np.ndarray:
        """(V,) s, the T1 of tissue in few levels from white to grey; fluid has no signal, so its T1 does not matter."""
        share = self.share[:, 0] / np.maximum(self.share[:, 0] + self.share[:, 1], 1e-6)
        share = np.where(self.share[:, 2] > 0.9, 1.0, share)
        return grey * (T1[1] / T1[0] + (1 - T1[1] / T1[0]) * np.round(share * (levels - 1)) / (levels - 1))


def classify(c: Curves, m0: np.ndarray | None, t1: np.ndarray | None, position: np.ndarray, repetition: float | None = None) -> Tissue:
    """`m0` (V,), `t1` (V,) s or None; `position` (V, 3) mm; `repetition` time of the M0 image in s, None = relaxed."""
    if t1 is not None:
        distance = (np.log(np.maximum(t1, 0.05))[:, None] - np.log(T1)) / LOG_T1_WIDTH
        return Tissue(_normalised(-0.5 * distance**2), "T1 map")
    if m0 is None or np.std(np.log(m0)) < 1e-3:
        return one_class(len(c))
    voxels = _Voxels(np.log(m0.astype(float)), *mean_signal(c), _cubic(position), _rim(c.voxels))
    found = _mixture(voxels, densities(repetition))
    return one_class(len(c)) if found is None else Tissue(found[0], "M0 and difference signal", found[1])


def densities(repetition: float | None) -> np.ndarray:
    """(3,) M0 of GM, WM, CSF, by the repetition time of the M0 image in s, None = relaxed: at 5 s fluid is as dark as white matter."""
    relaxed = 1.0 if repetition is None else 1 - np.exp(-repetition / np.array(T1))
    return np.array(DENSITY) * relaxed


def from_maps(share: np.ndarray, repetition: float | None = None) -> Tissue:
    """Of probability maps (V, 3); where they say nothing, grey matter. `repetition` as for `classify`."""
    silent = share.sum(axis=1, keepdims=True) < 0.5
    return Tissue(by_density(np.where(silent, [1.0, 0.0, 0.0], share), densities(repetition)), "tissue maps")


def by_density(volume: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Shares of M0 (N, 3) from shares of volume: flow is measured per M0, so a tissue counts by its protons."""
    weighed = volume * density
    return weighed / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-6)


def one_class(voxels: int) -> Tissue:
    return Tissue(np.tile([1.0, 0.0, 0.0], (voxels, 1)), "one class")


def mean_signal(c: Curves) -> tuple[np.ndarray, np.ndarray]:
    """(V,) mean difference over delays in units of the typical one, and its variance."""
    weight = c.repeats / c.repeats.sum()
    mean = (c.data * weight).sum(axis=1).astype(float)
    return mean / c.amplitude, (c.noise.astype(float) / c.amplitude) ** 2 / c.repeats.sum()


def _rim(voxels: tuple[np.ndarray, ...]) -> np.ndarray:
    """(V,) 1 where a face of the voxel touches the outside of the mask; beyond the first and the last slice nothing is outside."""
    index = tuple(v - v.min() + 1 for v in voxels)
    used = np.zeros([int(i.max()) + 2 for i in index], bool)
    used[index] = True
    for axis in range(3):
        ends = used.swapaxes(0, axis)
        ends[0], ends[-1] = True, True
    return (~ndimage.binary_erosion(used, border_value=1))[index].astype(int)


def _cubic(position: np.ndarray) -> np.ndarray:
    """(V, 20) polynomials of the position up to degree 3: the coil's sensitivity."""
    x = (position - position.mean(axis=0)) / np.maximum(np.ptp(position, axis=0) / 2, 1.0)
    terms = [(i, j, k) for i in range(4) for j in range(4 - i) for k in range(4 - i - j)]
    return np.stack([x[:, 0] ** i * x[:, 1] ** j * x[:, 2] ** k for i, j, k in terms], axis=1)


def _kinds() -> tuple[np.ndarray, np.ndarray]:
    """Shares (K, 3) of GM, WM, CSF that a voxel may have, and the family (K,) of each: 3 pure tissues, 3 mixtures of two, 3 of ODD M0."""
    pure, part = np.eye(3), np.arange(1, MIXED + 1) / (MIXED + 1)
    pairs = [np.outer(part, pure[i]) + np.outer(1 - part, pure[j]) for i, j in PAIRS]
    family = (np.arange(3), np.repeat(np.arange(3, 6), MIXED), np.arange(6, FAMILIES))
    return np.concatenate([pure, *pairs, pure]), np.concatenate(family)


@dataclass(frozen=True)
class _Voxels:
    """What the classes are found by, of V voxels."""

    log_m0: np.ndarray  # (V,)
    signal: np.ndarray  # (V,) mean difference per M0, in units of the typical one
    variance: np.ndarray  # (V,) of the signal
    terms: np.ndarray  # (V, T) of the coil's field
    rim: np.ndarray  # (V,) 1 where a face touches the outside of the mask, else 0

    def take(self, rows: slice) -> _Voxels:
        return _Voxels(self.log_m0[rows], self.signal[rows], self.variance[rows], self.terms[rows], self.rim[rows])


@dataclass
class _Mixture:
    """Shares of three tissues from log M0 less the coil's field, and from the signal; the field is part of the model.

    A voxel is of one tissue or of two in any proportion (Laidlaw, Fleischer & Barr 1998, doi:10.1109/42.668696): M0 and signal are then the
    shares' mean. Or it is odd: where part of it lies outside the head, M0 says nothing. A few of these among the rest made mixed voxels
    look pure, so they have families of their own, and all families one frequency at the rim of the mask and another inside. The signal is
    per M0 already, so it is free of the coil's field and tells which tissue is which.

    Voxels of all three tissues are taken as mixtures of two: a family of their own made the doubt true, but the shares worse (on two brains
    GM CBF of the joint fit erred by 4.8 and 4.2, without it by 3.2). So the doubt is raised to what the errors were on three such brains.
    """

    density: np.ndarray  # (3,) M0 of each tissue over that of GM
    spread: float  # of log M0
    flow: np.ndarray  # (3,) signal of each tissue
    flow_sd: np.ndarray  # (3,)
    prior: np.ndarray  # (2, FAMILIES) of the families, inside and at the rim
    field: np.ndarray  # coefficients of the coil's field

    @property
    def kinds(self) -> np.ndarray:
        """(K, 3) KINDS as shares of M0."""
        return by_density(KINDS, self.density)

    def log_joint(self, v: _Voxels) -> np.ndarray:
        """(V, K) of kind and data."""
        off = ((v.log_m0 - v.terms @ self.field)[:, None] - np.log(KINDS @ self.density)) / self.spread
        log = np.log(self.prior / np.bincount(FAMILY))[v.rim][:, FAMILY]
        log += np.where(ODD, -np.log(ODD_WIDTH), -0.5 * off**2 - np.log(ROOT_2PI * self.spread))
        total = (self.kinds @ self.flow_sd) ** 2 + v.variance[:, None]
        return log - 0.5 * np.log(total) - 0.5 * (v.signal[:, None] - self.kinds @ self.flow) ** 2 / total

    def belongs(self, v: _Voxels) -> np.ndarray:
        """(V, K) probabilities of KINDS."""
        return _normalised(self.log_joint(v))

    def shares(self, v: _Voxels) -> tuple[np.ndarray, np.ndarray]:
        """Expected shares (V, 3) and their covariance (V, 3, 3)."""
        mean, square, kinds = [], [], self.kinds
        for begin in range(0, len(v.signal), CHUNK):
            belongs = self.belongs(v.take(slice(begin, begin + CHUNK)))
            mean.append(belongs @ kinds)
            square.append((belongs @ np.einsum("ki,kj->kij", kinds, kinds).reshape(-1, 9)).astype(np.float32))
        share = np.concatenate(mean)
        return share, DOUBT * (np.concatenate(square).reshape(-1, 3, 3) - np.einsum("vi,vj->vij", share, share).astype(np.float32))


def _mixture(voxels: _Voxels, density: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Shares (V, 3) and covariance (V, 3, 3) by expectation maximisation on some voxels, from M0 of the tissues as `density` (3,).

    The likeliest of three starts counts: fluid may be as dark as white matter (by a short repetition time, by T1 weighting), and a mixture
    may stand in for white matter, which then goes astray, unless at first no voxel is mixed. None where no two tissues come apart.
    """
    v = voxels.take(slice(None, None, max(len(voxels.signal) // SAMPLE, 1)))
    bright, dark = density / density[0], density[[0, 1, 1]] / density[0]
    found = [_converged(v, start, rounds) for start, rounds in ((bright, 0), (bright, PURE_ROUNDS), (dark, PURE_ROUNDS))]
    for m in sorted(found, key=lambda m: -logsumexp(m.log_joint(v), axis=1).mean()):
        share, doubt = m.shares(voxels)
        if share[:, :2].mean(axis=0).min() > LEAST_SHARE and m.flow[0] > LEAST_CONTRAST * m.flow[1] > 0:
            return share, doubt
    return None


def _converged(v: _Voxels, density: np.ndarray, pure_rounds: int) -> _Mixture:
    """From one start; no voxel is mixed in the first rounds."""
    high = np.percentile(v.signal, 75)
    field = np.zeros(v.terms.shape[1])
    field[0] = np.median(v.log_m0)
    flow_sd = np.array([0.3, 0.15, 0.1]) * abs(high)
    m = _Mixture(density, 0.07, np.array([1.0, 0.4, 0.0]) * high, flow_sd, np.full((2, FAMILIES), 1 / FAMILIES), field)
    for turn in range(pure_rounds + ROUNDS):
        _improve(m, m.belongs(v), v, densities=turn >= 5, high=high)  # first the field, then the densities
        if turn < pure_rounds:
            m.prior[:, 3:6] = 1e-6
        elif turn == pure_rounds > 0:
            m.prior[:] = 1 / FAMILIES
    return m


def _improve(m: _Mixture, belongs: np.ndarray, v: _Voxels, densities: bool, high: float) -> None:
    """One maximisation, given the probabilities (V, K) of each voxel's kinds."""
    regular = belongs * ~ODD
    sure = regular.sum(axis=1)
    target = v.log_m0 - regular @ np.log(KINDS @ m.density) / np.maximum(sure, 1e-9)
    root = np.sqrt(sure)
    m.field = np.linalg.lstsq(v.terms * root[:, None], target * root, rcond=None)[0]
    flat = v.log_m0 - v.terms @ m.field
    if densities:
        m.density = _least_squares(KINDS, regular, np.exp(flat))
        m.density = np.clip(m.density / m.density[0], *DENSITIES)
    off = np.square(flat[:, None] - np.log(KINDS @ m.density))
    m.spread = float(np.clip(np.sqrt((regular * off).sum() / max(sure.sum(), 1e-9)), *SPREAD))
    m.flow = _least_squares(m.kinds, belongs / ((m.kinds @ m.flow_sd) ** 2 + v.variance[:, None]), v.signal)
    m.flow[2] = np.clip(m.flow[2], -0.05 * abs(high), 0.05 * abs(high))  # fluid has no perfusion
    count = np.stack([np.bincount(FAMILY, belongs[v.rim == side].sum(axis=0)) for side in (0, 1)]) + 1e-6
    m.prior = count / count.sum(axis=1, keepdims=True)


def _least_squares(kinds: np.ndarray, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(3,) of each tissue, from values (V,) of voxels that are of kind k (K, 3) with `weight` (V, K)."""
    return np.linalg.solve((kinds.T * weight.sum(axis=0)) @ kinds + 1e-12 * np.eye(3), kinds.T @ (weight.T @ values))


def _normalised(log: np.ndarray) -> np.ndarray:
    raised = np.exp(log - log.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


KINDS, FAMILY = _kinds()
ODD = FAMILY >= FAMILIES - 3
