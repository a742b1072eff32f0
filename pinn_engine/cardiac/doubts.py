"""Sentences that stand before all others on a heart's fit: the data hold no wave that it could find, or it did not settle.

Noise fitted as a heart looks like one: no figure of the fit tells. So the data themselves are asked, without a model: does a sample
resemble those next to it more than it would were they dealt out anew?
"""

from __future__ import annotations

import numpy as np
import torch

from ..core.solution import Status
from .read import HeartData
from .result import HeartFit

NEAR = 8  # samples next to one
DEALS = 199  # times they are dealt out anew; a real wave is beyond all but one in a hundred
MOST = 20_000  # samples that are asked
MANY = 0.1  # share of the activation times set aside beyond which they are no stray errors
EXPLAINED = 0.1  # share of the variance of V that a fit must explain


def doubts(fit: HeartFit) -> tuple[str, ...]:
    """What a person should read before anything else; nothing where all is well."""
    return (*no_wave(fit), *many_set_aside(fit), *unsettled(fit))


def no_wave(fit: HeartFit) -> tuple[str, ...]:
    """No sample resembles its neighbours, or the fit explains hardly more of V than one number does."""
    words = "do not trust D, CV or activation times"
    if not alike(*placed(fit.data)):
        what = "activation times" if fit.data.LAT is not None else "samples of V"
        return (f"the {what} look like noise: each resembles those next to it no more than any others; {words}",)
    if fit.V is not None and (share := explained(fit)) < EXPLAINED:
        return (f"the fitted wave explains {max(100 * share, 0):.0f} % of the variance of V, hardly more than a constant does; {words}",)
    return ()


def many_set_aside(fit: HeartFit) -> tuple[str, ...]:
    """A few wrong times are usual; of many one should know why."""
    share = fit.settings.get("outliers", 0) / max(fit.settings.get("observations", 0), 1)
    if share <= MANY:
        return ()
    why = "look whether they are of another beat, or mark what was not measured"
    return (f"{100 * share:.0f} % of the activation times were set aside: {why}",)


def placed(data: HeartData, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(R, 3 or 4) where the samples stand, for V with the time, record and tissue scaled to the same length; (R,) their values."""
    samples = data.samples(1.0)
    place = np.stack([samples.at(column).numpy() for column in torch.from_numpy(data.mesh.points).T], axis=1)
    if samples.time is not None:
        extent = float(np.ptp(place, axis=0).max()) / max(float(np.ptp(samples.time.numpy())), 1e-9)
        place = np.column_stack([place, extent * samples.time.numpy()])
    value = samples.value.numpy()
    if len(value) > MOST:
        some = np.random.default_rng(seed).choice(len(value), MOST, replace=False)
        place, value = place[some], value[some]
    return place, value


def alike(place: np.ndarray, value: np.ndarray, seed: int = 0) -> bool:
    """Whether the ranks of values (R,) go with the mean rank of the NEAR next to them (R, 3 or 4), as dealt-out values rarely would."""
    from scipy.spatial import cKDTree
    from scipy.stats import rankdata

    near = max(2, min(NEAR, len(value) // 6))
    beside = cKDTree(place).query(place, near + 1)[1][:, 1:]
    rank = rankdata(value) - 0.5 * (len(value) + 1)
    random = np.random.default_rng(seed)

    def together(rank: np.ndarray) -> float:
        return float(rank @ rank[beside].mean(axis=1))

    own = together(rank)
    by_chance = np.array([together(random.permutation(rank)) for _ in range(DEALS)])
    return int((by_chance >= own).sum()) <= DEALS // 100


def explained(fit: HeartFit) -> float:
    """Share of the variance of the observed V that is in the fitted V; below 0 where a constant fits better."""
    assert fit.V is not None
    assert fit.data.V is not None
    seen = np.isfinite(fit.data.V) & fit.data.inside[:, None]
    observed = fit.data.V[seen]
    return 1.0 - float(np.mean((observed - fit.V[seen]) ** 2)) / max(float(np.var(observed)), 1e-12)


def unsettled(fit: HeartFit) -> tuple[str, ...]:
    ended = str(fit.settings.get("solver", {}).get("status", ""))
    if ended == Status.STEP_LIMIT.sentence:
        return ("the fit stopped at its step limit before it converged: its maps may have moved on a little",)
    return ()
