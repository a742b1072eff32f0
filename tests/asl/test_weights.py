"""Weights of volumes: 1 on clean scans, small on spoilt pairs, and what they do to the maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_scans import GM, phantom, scan

from pinn_engine import asl
from pinn_engine.asl.curves import curves
from pinn_engine.asl.weights import volume_weights


def spoilt(p, which: list[int], strength: float = 3.0):
    """The scan with more noise in some pairs."""
    s = p.scan()
    bad = s.difference.copy()
    rng = np.random.default_rng(5)
    bad[..., which] += strength * np.sqrt(2) * p.noise_sd * rng.standard_normal(bad[..., which].shape)
    return replace(s, difference=bad)


@pytest.mark.parametrize("made", [{"seed": 41, "repeats": 4}, {"seed": 42, "repeats": 2}, {"seed": 43, "repeats": 3, "labeling": "PASL"}])
def test_clean_scans_keep_weight_one(made):
    np.testing.assert_array_equal(volume_weights(phantom(**made).scan()).weight, 1)


@pytest.mark.parametrize("which", [[2], [0, 9, 13, 22], [4, 5, 12, 13]])
def test_spoilt_pairs_are_found_and_no_other(which):
    """Also two of one delay's four."""
    w = volume_weights(spoilt(phantom(seed=41, repeats=4), which))
    assert w.doubted.tolist() == which
    np.testing.assert_array_equal(np.delete(w.weight, which), 1)


def test_of_two_repeats_both_are_doubted():
    w = volume_weights(spoilt(phantom(seed=42, repeats=2), [4]))
    assert w.doubted.tolist() == [4, 5]
    assert w.weight[4] == w.weight[5]


def test_one_repeat_cannot_be_compared():
    w = volume_weights(phantom(seed=41, repeats=1).scan())
    assert "no delay has repeats" in w.reason
    fit = asl.fit(phantom(seed=41, repeats=1).scan(), method="nlls")
    assert any("could not be checked for motion" in note for note in fit.scan.notes)


def test_the_weighted_mean_and_its_weight():
    """Two repeats of weights 1 and 1/3: mean (3 a + b) / 4, and a data point worth 4/3 pairs."""
    s = scan(np.array([[[[4.0, 8.0, 5.0, 5.0]]]]), [1.0, 1.0, 2.0, 2.0])
    c = curves(s, np.array([1, 1 / 3, 1, 1]))
    np.testing.assert_allclose(c.data[0] * 2 * 0.85, [5.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(c.repeats, [4 / 3, 2])


def test_what_four_spoilt_pairs_of_24_cost():
    """RMSE at most 1.3 times the clean scan's with weights; more than that without. Said in note, settings, table and quality row."""
    p = phantom(seed=41, repeats=4, snr=500.0)
    grey = p.tissue == GM
    bad = spoilt(p, [0, 5, 13, 22], 6.0)

    def rmse(s, **options):
        fit = asl.fit(s, **options)
        return float(np.sqrt(np.mean((fit.maps["cbf"].value - p.cbf)[grey] ** 2))), fit

    clean, _ = rmse(p.scan())
    weighed, fit = rmse(bad)
    plain, without = rmse(bad, weigh_volumes=False)
    assert weighed < 1.3 * clean < plain
    assert any("4 of 24 pairs" in note and "pair 1 (delay 0.25 s" in note for note in fit.scan.notes)
    assert fit.settings["pairs_doubted"] == 4
    _, rows = fit.tables["desc-weights_asl"]
    assert [row["pair"] for row in rows if row["weight"] < 0.5] == [1, 6, 14, 23]
    assert without.settings["volume_weights"] == "all 1: switched off"
    assert all(np.isnan(row["distance"]) and row["weight"] == 1 for row in without.tables["desc-weights_asl"][1])  # nothing was compared
