"""Noise is not fitted as a heart without a word; true waves, noisy as they are measured, are not doubted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.beat import beats
from pinn_engine.cardiac.doubts import alike, placed
from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.phantom import observe_V
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.units import MS_PER_TU, TimeUnit
from pinn_engine.errors import InputError

MODEL, TU, MS = AlievPanfilov(), TimeUnit("tu"), TimeUnit("ms")
SHEET, _ = shapes.rectangle((60.0, 40.0), 4.0)
ARRIVAL = np.linalg.norm(SHEET.points, axis=1) / float(MODEL.speed(15.6))  # TU
SQUARE, _ = shapes.rectangle((5.0, 4.0), 0.25)
TIMES = np.arange(0.0, 40.0)


def record(noise: float, seed: int, flat: bool = False):
    """5 % of V of a wave from a corner, or of none."""
    T = np.linalg.norm(SQUARE.points, axis=1) / float(MODEL.speed(0.1)) + 2.0
    V = beats([MODEL])[0].V_and_slope(torch.from_numpy(TIMES[None] - T[:, None]))[0].numpy()
    return from_mesh(SQUARE, TU, V=observe_V(0.0 * V if flat else V, 0.05, noise, seed), times=TIMES)


def times(noise: float, seed: int, flat: bool = False):
    """Activation times (ms) at 60 nodes of a wave from a corner that takes 120 ms, or at random."""
    random = np.random.default_rng(seed)
    LAT = MS_PER_TU * ARRIVAL + noise * random.standard_normal(len(ARRIVAL))
    LAT = random.uniform(0.0, 60.0, len(LAT)) if flat else LAT
    seen = np.isin(np.arange(len(LAT)), random.choice(len(LAT), 60, replace=False))
    return from_mesh(SHEET, MS, LAT=np.where(seen, LAT, np.nan) / MS_PER_TU)


@pytest.mark.parametrize("seed", range(8))
def test_waves_are_alike_and_noise_is_not(seed):
    """Noise of a sixth of all the times, and of a third of V's rise, hides no wave."""
    assert alike(*placed(times(20.0, seed)))
    assert alike(*placed(record(0.3, seed)))
    assert not alike(*placed(times(0.0, seed, flat=True)))
    assert not alike(*placed(record(0.1, seed, flat=True)))


@pytest.mark.parametrize("made", [times, record])
def test_noise_alone_is_told_first(made):
    """It had come out as converged, status 1, with an interval for D and no note."""
    options = {"map": ("D",), "strength": 0.4}
    noise = fit(made(0.1, 0, flat=True), **options)
    assert "look like noise" in noise.notes[0]
    wave = fit(made(5.0 if made is times else 0.3, 0), **options)
    assert not any("look like noise" in note or "hardly more" in note for note in wave.notes)


def test_noise_of_no_speed_is_not_taken_for_a_mistaken_unit(monkeypatch):
    monkeypatch.setattr("pinn_engine.cardiac.fit.SPEEDS", (50.0, 60.0))
    for flat, words in ((True, "the data look like noise"), (False, "is not a heart's")):
        with pytest.raises(InputError, match=words):
            fit(times(2.0, 0, flat=flat), strength=0.4)


def test_what_did_not_settle_and_what_is_assumed_is_told(monkeypatch):
    from pinn_engine.cardiac import lat
    from pinn_engine.core import sparse

    class Short(sparse.SparseGaussNewton):
        def __init__(self, steps, *more, **options):
            super().__init__(1, *more, **options)

    monkeypatch.setattr(lat, "SparseGaussNewton", Short)
    assert any("stopped at its step limit" in note for note in fit(times(5.0, 0), strength=0.4).notes)


def test_wrong_times_of_one_value_are_named():
    """Too near the others to be refused as a mark."""
    data = times(2.0, 1)
    wrong = np.flatnonzero(np.isfinite(data.LAT))[::7]
    data.LAT[wrong] = 230.0 / MS_PER_TU
    found = fit(data, strength=0.4)
    assert "of them are 230: if that marks what was not measured, give NaN there" in " ".join(found.notes)
    assert any("% of the activation times were set aside" in doubt for doubt in found.doubts)
    assert not fit(times(2.0, 1), strength=0.4).doubts
