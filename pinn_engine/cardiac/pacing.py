"""Records of several beats with rest between, as of paced tissue: which frames hold one whole beat, and the state that it runs into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .cycles import cycles
from .model import AlievPanfilov
from .read import HeartData

QUIET = 0.06  # share of the largest mean V below which the tissue rests
STRONG = 0.5  # share of it that a beat reaches
AFTER = 4.0  # TU of rest that are kept after a beat; none before it, for a run that begins at rest has no wave


def whole_beats(V: np.ndarray, times: np.ndarray) -> list[tuple[int, int]]:
    """Of V (N, F), NaN = not observed, at `times` (F,) TU: first and last frame of each beat between two rests.

    The tissue rests where the mean V over all of it does. A record that begins or ends amid a beat does not hold that beat whole.
    """
    seen = np.isfinite(V)
    mean = np.where(seen, V, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    active = mean > QUIET * mean.max()
    edge = np.diff(active.astype(int))
    begins, ends = np.flatnonzero(edge == 1) + 1, np.flatnonzero(edge == -1)
    found = []
    for k, begin in enumerate(begins):
        later = ends[ends >= begin]
        if len(later) and mean[begin : later[0] + 1].max() > STRONG * mean.max():
            to_rest = int(begins[k + 1]) - 1 if k + 1 < len(begins) else len(times) - 1
            found.append((int(begin), min(to_rest, int(np.searchsorted(times, times[later[0]] + AFTER)))))
    return found


def last_beat(data: HeartData, model: AlievPanfilov) -> tuple[HeartData, AlievPanfilov]:
    """The last whole beat of a record of several, and the model with the W that beats in such steps leave; else both as they are."""
    if data.V is None or data.times is None or model.rest:
        return data, model
    found = whole_beats(np.where(data.inside[:, None], data.V, np.nan), data.times)
    if len(found) < 2:
        return data, model
    (before, _), (first, last) = found[-2:]
    period, frames = float(data.times[first] - data.times[before]), slice(first, last + 1)
    rest = float(cycles(model, (period,))[0].at(np.array(-1.0))[1])
    unit = data.unit
    begin, end, step = (float(unit.from_tu(t)) for t in (data.times[first], data.times[last], period))
    note = (
        f"the record holds {len(found)} whole beats with rest between: the last one is fitted ({begin:.4g} to {end:.4g} {unit.time}), into "
        f"tissue that a beat every {step:.4g} {unit.time} leaves at W = {rest:.2g} (its doubt is in no interval; a and b lean on it)"
    )
    cut = replace(data, V=data.V[:, frames], times=data.times[frames], notes=(*data.notes, note))
    return cut, replace(model, rest=rest)
