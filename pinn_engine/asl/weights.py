"""How far each volume lies from the rest: motion and artefacts in single pairs get a small weight, clean scans keep 1 throughout.

A pair is compared with the other repeats of its delay, voxel by voxel and again after a blur, for an artefact is coherent in space and
noise is not. Its excess over the typical pair is measured in units of the scatter of such excesses, so that breathing and pulsation, which
all pairs share, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from .result import PerfusionFit
from .scan import Scan

BLUR = 8.0  # mm FWHM: the second scale
LEAST_SCATTER = 0.05  # of log mean square distance: what clean pairs of few independent voxels differ by anyway
HARMLESS = 4.0  # scatters up to which a pair is like the rest
CLIP = 100.0  # typical squares: one spike must not condemn a volume
ROUNDS = 6
DOUBTED = 0.5  # a weight below this is named in the notes


@dataclass(frozen=True)
class VolumeWeights:
    """`weight` (N,) of each difference, 1 = like the rest; `distance` (N,) its mean square distance from the others of its delay per the
    typical pair's, NaN where nothing was compared; `reason`: why all weights are 1 without a look, else empty."""

    weight: np.ndarray
    distance: np.ndarray
    reason: str = ""

    @property
    def doubted(self) -> np.ndarray:
        """Indices of the differences with a small weight."""
        return np.flatnonzero(self.weight < DOUBTED)


def equal_weights(count: int, reason: str) -> VolumeWeights:
    return VolumeWeights(np.ones(count), np.full(count, np.nan), reason)


def volume_weights(scan: Scan) -> VolumeWeights:
    """Weights of the N differences of a scan, from voxels of the mask that are finite throughout.

    Of two repeats that disagree nobody can tell which is wrong: both get the smaller weight. A delay measured once keeps weight 1.
    """
    member = same_delay(scan)
    repeats = np.bincount(member)
    if len(member) < 4 or repeats.max() < 2:
        return equal_weights(len(member), "no delay has repeats to compare")
    usable = scan.mask & np.isfinite(scan.difference).all(axis=3)
    if not usable.any():
        return equal_weights(len(member), "no voxel is finite in all volumes")
    alone = repeats[member] < 2
    found = [_compare(images, member, alone) for images in (scan.difference[usable], _blurred(scan, usable))]
    return VolumeWeights(np.min([w for w, _ in found], axis=0), np.max([d for _, d in found], axis=0))


def same_delay(scan: Scan) -> np.ndarray:
    """(N,) number of the (delay, label duration) pair that each difference belongs to."""
    a = scan.acquisition
    _, member = np.unique(np.stack([a.pld, a.label_duration], axis=1).round(6), axis=0, return_inverse=True)
    return member.reshape(-1)


def _blurred(scan: Scan, usable: np.ndarray) -> np.ndarray:
    """(V, N) differences smoothed within the mask."""
    sigma = BLUR / np.sqrt(8 * np.log(2)) / scan.grid.spacing
    total = np.maximum(gaussian_filter(usable.astype(np.float32), sigma), 1e-3)
    images = (gaussian_filter(np.where(usable, scan.difference[..., n], 0), sigma) / total for n in range(scan.difference.shape[3]))
    return np.stack([image[usable] for image in images], axis=1)


def _compare(images: np.ndarray, member: np.ndarray, alone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and relative distances (N,) of `images` (V, N), by rounds of weighted means that leave out the pair in question."""
    weight = np.ones(len(member))
    distance = np.full(len(member), np.nan)
    for turn in range(ROUNDS):
        square, share = np.empty(images.shape, np.float32), np.empty(len(member))
        for n in np.flatnonzero(~alone):
            others = np.flatnonzero((member == member[n]) & (np.arange(len(member)) != n))
            if turn == 0:
                rest = np.median(images[:, others], axis=1)
                share[n] = (np.pi / 2 if len(others) > 2 else 1.0) / len(others)  # of a median's variance
            else:
                rest = images[:, others] @ (weight[others] / weight[others].sum())
                share[n] = min(1 / weight[others].sum(), 1.0)  # doubted companions are no reason to trust this one
            square[:, n] = (images[:, n] - rest) ** 2
        known = square[:, ~alone]
        mean = np.minimum(known, CLIP * np.median(known)).mean(axis=0, dtype=float) / (1 + share[~alone])
        log = np.log(np.maximum(mean, 1e-30))
        away = log - _typical(log, member[~alone])
        scatter = max(1.4826 * float(np.median(np.abs(away))), LEAST_SCATTER)
        distance[~alone] = np.exp(away)
        excess = np.maximum(away / scatter, 0)
        weight[~alone] = np.where(excess <= HARMLESS, 1.0, np.exp(-(excess - HARMLESS)))
        weight = np.maximum(weight, 1e-3)
    return weight, distance


def _typical(log: np.ndarray, member: np.ndarray) -> np.ndarray:
    """What a like pair of the same delay has: vessels make early delays restless. The lower of two middle values, for half of a delay's
    pairs may be spoilt; of two repeats, whose distances are equal, what all delays have."""
    low = {k: np.sort(log[member == k])[(np.sum(member == k) - 1) // 2] for k in np.unique(member)}
    every = float(np.median(list(low.values())))
    return np.array([low[k] if np.sum(member == k) > 2 else every for k in member])


COLUMNS = ("pair", "delay_s", "label_duration_s", "distance", "weight")


def report_weights(fit: PerfusionFit, w: VolumeWeights) -> PerfusionFit:
    """`fit` with the weights in its settings, in a table, and in a sentence where a pair was doubted."""
    a = fit.scan.acquisition
    settings = fit.settings | {"volume_weights": [round(float(x), 3) for x in w.weight] if not w.reason else f"all 1: {w.reason}"}
    settings["pairs_doubted"] = len(w.doubted)
    rows: list[dict[str, object]] = [
        dict(zip(COLUMNS, (n + 1, float(a.pld[n]), float(a.label_duration[n]), round(float(d), 3), round(float(x), 3)), strict=True))
        for n, (x, d) in enumerate(zip(w.weight, w.distance, strict=True))
    ]
    notes = list(fit.scan.notes)
    if w.doubted.size:
        named = ", ".join(f"{n + 1} (delay {a.pld[n]:g} s, weight {w.weight[n]:.2f})" for n in w.doubted[:12])
        more = f" and {w.doubted.size - 12} more" if w.doubted.size > 12 else ""
        notes.append(
            f"{w.doubted.size} of {len(w.weight)} pairs lie far from the other repeats of their delay (motion or artefact?) and count "
            f"less: pair {named}{more}."
        )
    elif w.reason and w.reason != "switched off":
        notes.append(f"Single volumes could not be checked for motion and artefacts: {w.reason}.")
    tables = fit.tables | {"desc-weights_asl": (COLUMNS, rows)}
    return replace(fit, settings=settings, tables=tables, scan=replace(fit.scan, notes=tuple(notes)))
