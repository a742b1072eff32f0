"""Records of several beats with rest between, as of paced tissue: which frames hold one whole beat, and the state that it runs into."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .cycles import cycles
from .model import AlievPanfilov
from .read import HeartData
from .reentry import SHARE, share_firing_again

EXCITED, QUIET = 0.5, 0.02  # V above which a sample counts as excited; share of such samples up to which the tissue rests
STRONG = 0.5  # of the largest such share: what a beat reaches
AFTER = 4.0  # TU of rest that are kept after a beat; none before it, for a run that begins at rest has no wave


@dataclass(frozen=True)
class WholeBeat:
    """First and last frame, and the time (TU) at which half of what it reaches is excited."""

    first: int
    last: int
    time: float


def whole_beats(V: np.ndarray, times: np.ndarray) -> list[WholeBeat]:
    """Each beat between two rests in V (N, F), NaN = not observed, at `times` (F,) TU.

    A record that begins or ends amid a beat does not hold that beat whole; rests shorter than AFTER, and frames without a sample, are none.
    """
    count = np.isfinite(V).sum(axis=0)
    frames = np.flatnonzero(count)
    share, at = (V[:, frames] > EXCITED).sum(axis=0) / count[frames], times[frames]
    runs: list[list[int]] = []
    for frame in np.flatnonzero(share > QUIET).tolist():
        if runs and (frame == runs[-1][1] + 1 or at[frame] - at[runs[-1][1]] < AFTER):
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    found = []
    for (begin, end), after in zip(runs, [*runs, [len(share), 0]][1:], strict=True):
        reached = share[begin : end + 1].max()
        if begin > 0 and end + 1 < len(share) and reached > STRONG * share.max():
            last = min(after[0] - 1, int(np.searchsorted(at, at[end] + AFTER)))
            half = begin + int(np.argmax(share[begin:] > 0.5 * reached))
            found.append(WholeBeat(int(frames[begin]), int(frames[last]), float(at[half])))
    return found


def last_beat(data: HeartData, model: AlievPanfilov) -> tuple[HeartData, AlievPanfilov]:
    """The last whole beat of a record of several, and the model with the W that beats in such steps leave, if none is given; else both
    as they are."""
    if data.V is None or data.times is None:
        return data, model
    found = whole_beats(np.where(data.inside[:, None], data.V, np.nan), data.times)
    if len(found) < 2 or share_firing_again(data) <= SHARE:  # pieces of tissue that fire one after the other are one beat
        return data, model
    before, beat = found[-2:]
    period, frames = beat.time - before.time, slice(beat.first, beat.last + 1)
    slower = model if model.rest else replace(model, rest=float(cycles(model, (period,))[0].at(np.array(-1.0))[1]))
    if not slower.travels:
        return data, model
    unit = data.unit
    begin, end, step = (float(unit.from_tu(t)) for t in (data.times[beat.first], data.times[beat.last], period))
    note = (
        f"the record holds {len(found)} whole beats with rest in between: the last one is fitted ({begin:.4g} to {end:.4g} {unit.time}), "
        f"into tissue that a beat every {step:.4g} {unit.time} leaves at W = {slower.rest:.2g} (its uncertainty is in no "
        "interval; a and b depend on it)"
    )
    cut = replace(data, V=data.V[:, frames], times=data.times[frames], notes=(*data.notes, note))
    return cut, slower
