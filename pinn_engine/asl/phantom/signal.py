"""An independent simulator: the arterial input convolved numerically with the tissue's residue, on a fine time grid.

Nothing here uses the closed form that the fit uses (`asl/kinetics.py`), so that a phantom can prove it right or wrong, and so that
inputs without a closed form (a dispersed bolus) can be made. The model (Buxton 1998, doi:10.1002/mrm.1910400308):

    dM(t) = 2 alpha M0b f  integral_0^t  c(s) exp(-(t - s) / T1') ds,     1/T1' = 1/T1t + f/lambda

c(s) is the label delivered per unit flow. Blood labelled at time l travels ATT + d, where d is drawn from the dispersion kernel, and
decays with T1b while it travels (p/CASL) or since the one labelling pulse at time 0 (PASL). Seen from the arrival, u = t - ATT, the
curve has the same shape in every voxel, exp(-ATT/T1b) h(u; T1'), so one table over (T1', u) serves a whole brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.signal import lfilter
from scipy.special import gammainc, ndtr

STEP = 1e-3  # s, of the time grid; the midpoint rule's error is ~STEP^2 / 24
RATE_STEP = 2e-3  # 1/s, between tabulated 1/T1'; the interpolation error is below (RATE_STEP u)^2 / 8: 6e-6 at u = 3.5 s
GAMMA_SHAPE = 1.74  # 1 + s p at the prior means of BASIL's gamma dispersion (Chappell 2013, doi:10.1002/mrm.24260)


@dataclass(frozen=True)
class Bolus:
    """The labelled blood: duration (s; PASL: TI1), labelling efficiency, T1b (s), and the sd (s) and kind of its dispersion."""

    duration: float
    labeling: str = "PCASL"
    alpha: float = 0.85
    t1_blood: float = 1.65
    dispersion: float = 0.0
    kernel: str = "gamma"  # or "gaussian"


def dispersion_kernel(dispersion: float, kernel: str, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Extra travel times d (D,) s and the share of blood that takes each (D,), summing to 1; `dispersion` is the kernel's sd in s.

    "gamma": none of the blood is early, its mean delay is 1.32 sd. "gaussian": symmetric about 0, cut at 5 sd.
    """
    if dispersion == 0:
        return np.zeros(1), np.ones(1)
    reach = int(np.ceil((12 if kernel == "gamma" else 5) * dispersion / step))
    if kernel == "gamma":
        index = np.arange(reach + 1)
        cumulative = gammainc(GAMMA_SHAPE, np.maximum(np.append(index - 0.5, reach + 0.5), 0) * step * np.sqrt(GAMMA_SHAPE) / dispersion)
    elif kernel == "gaussian":
        index = np.arange(-reach, reach + 1)
        cumulative = ndtr(np.append(index - 0.5, reach + 0.5) * step / dispersion)
    else:
        raise ValueError(f"kernel must be 'gamma' or 'gaussian', not {kernel!r}")
    share = np.diff(cumulative)
    return index * step, share / share.sum()


def arterial_input(bolus: Bolus, span: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Delivered label c exp(ATT/T1b) at the midpoints u (T,) of time steps, u = time since the arrival: (u, step, c (T,)).

    The step divides the label duration, so that the bolus ends on a grid line and a midpoint never meets a jump.
    """
    step = bolus.duration / np.ceil(bolus.duration / STEP)
    extra, share = dispersion_kernel(bolus.dispersion, bolus.kernel, step)
    if bolus.labeling != "PASL":
        share = share * np.exp(-extra / bolus.t1_blood)
    u = extra[0] + (np.arange(int(np.ceil((span - extra[0]) / step)) + 1) + 0.5) * step
    c = np.convolve(share, np.ones(round(bolus.duration / step)))
    c = np.pad(c, (0, max(0, len(u) - len(c))))[: len(u)]
    if bolus.labeling == "PASL":
        c = c * np.exp(-u / bolus.t1_blood)
    return u, step, c


def response(c: np.ndarray, step: float, rates: np.ndarray) -> np.ndarray:
    """h (R, T + 1): integral of c(s) exp(-rate (u - s)) up to each grid line, by the midpoint rule; rates = 1/T1' (R,) 1/s."""
    table = np.zeros((len(rates), len(c) + 1))
    for row, rate in zip(table, rates, strict=True):
        row[1:] = lfilter([step * np.exp(-rate * step / 2)], [1.0, -np.exp(-rate * step)], c)
    return table


def difference(
    bolus: Bolus, cbf: np.ndarray, att: np.ndarray, t1_tissue: np.ndarray, time: np.ndarray, partition: float = 0.9
) -> np.ndarray:
    """Control - label of the tissue for M0b = 1, (V, K).

    `time` (V, K) is in s since labelling began; `cbf` (V,) mL/100 g/min; `att`, `t1_tissue` (V,) s; `partition` is lambda, mL/g.
    """
    f = np.asarray(cbf, float) / 6000
    att = np.asarray(att, float)
    rate = 1 / np.asarray(t1_tissue, float) + f / partition
    u = np.asarray(time, float) - att[:, None]
    grid, step, c = arterial_input(bolus, max(u.max(), 0.0) + STEP)
    rates = np.linspace(rate.min(), rate.max(), 2 + int(np.ptp(rate) / RATE_STEP))
    table = response(c, step, rates)
    row = (rate - rates[0]) / max(rates[1] - rates[0], 1e-12)
    scale = 2 * bolus.alpha * f * np.exp(-att / bolus.t1_blood)
    out = np.empty_like(u)
    for k in range(u.shape[1]):
        column = (u[:, k] - (grid[0] - step / 2)) / step
        out[:, k] = scale * map_coordinates(table, (row, column), order=1, mode="nearest")
    return out


def arterial(bolus: Bolus, abv: np.ndarray, abat: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Label still in arteries for M0b = 1 at `time` (V, K) s; abv (V,) fraction, abat (V,) s (Chappell 2010, doi:10.1002/mrm.22320)."""
    abat = np.asarray(abat, float)
    u = np.asarray(time, float) - abat[:, None]
    grid, _, c = arterial_input(bolus, max(u.max(), 0.0) + STEP)
    scale = 2 * bolus.alpha * np.asarray(abv, float) * np.exp(-abat / bolus.t1_blood)
    return scale[:, None] * np.interp(u, grid, c, left=0.0, right=0.0)
