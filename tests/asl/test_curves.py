"""From volumes to curves: repeats averaged by (label duration, delay), units of flow, and the noise as it is."""

from dataclasses import replace

import numpy as np
import pytest
from small_scans import phantom, scan

from pinn_engine.asl.curves import FLOW, NOISE_FLOOR, curves, shrink, with_residual_noise


def shuffled(s, order):
    a = s.acquisition
    moved = replace(a, pld=a.pld[order], label_duration=a.label_duration[order])
    return replace(s, difference=s.difference[..., order], acquisition=moved)


def test_repeats_are_grouped_by_delay_and_label_duration():
    """Delay 1.0 stands there with two label durations: never the same data point."""
    pld, duration = [1.0, 1.0, 1.0, 1.5, 1.0, 1.5], [1.8, 1.4, 1.8, 1.8, 1.8, 1.8]
    values = np.array([[2.0, 30, 4, 5, 9, 8]], np.float32).reshape(1, 1, 1, 6)
    c = curves(scan(values, pld, duration))
    found = {(p, d): (v, n) for p, d, v, n in zip(c.pld, c.label_duration, c.data[0] * 2 * 0.85, c.repeats, strict=True)}
    assert set(found) == {(1.0, 1.8), (1.0, 1.4), (1.5, 1.8)}
    assert found[1.0, 1.8] == (pytest.approx(5.0), 3)
    assert found[1.0, 1.4] == (pytest.approx(30.0), 1)
    assert found[1.5, 1.8] == (pytest.approx(6.5), 2)
    np.testing.assert_allclose(c.times, c.pld + c.label_duration)
    assert c.degrees == 3


def test_the_order_of_volumes_does_not_matter():
    s = phantom(seed=11).scan()
    a, b = curves(s), curves(shuffled(s, np.random.default_rng(0).permutation(s.difference.shape[3])))
    for name in ("pld", "label_duration", "repeats", "times"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_allclose(a.data, b.data, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(a.noise, b.noise, rtol=1e-5)


def test_units_of_flow():
    """y = 6000 dM / (2 alpha M0b); without M0 dM / (2 alpha)."""
    values = np.full((1, 1, 1, 2), 5.0)
    np.testing.assert_allclose(curves(scan(values, [1.0, 1.0], m0=1000.0)).data, FLOW * 5 / (2 * 0.85 * 1000), rtol=1e-6)
    np.testing.assert_allclose(curves(scan(values, [1.0, 1.0])).data, 5 / (2 * 0.85), rtol=1e-6)


def test_pasl_times_are_inversion_times():
    c = curves(scan(np.ones((1, 1, 1, 2)), [0.9, 1.7], 0.8, "PASL"))
    np.testing.assert_array_equal(c.times, [0.9, 1.7])


def test_slices_are_read_one_after_another():
    c = curves(scan(np.ones((2, 1, 3, 2)), [1.0, 1.0], slice_delay=[0.0, 0.08, 0.04]))
    np.testing.assert_array_equal(c.delays[c.delay], [0.0, 0.08, 0.04] * 2)


def test_what_cannot_be_used_is_left_out():
    values = np.ones((4, 1, 1, 2))
    values[1, 0, 0, 1] = np.nan
    m0 = np.array([1.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1)
    c = curves(scan(values, [1.0, 1.5], m0=m0))
    assert c.voxels[0].tolist() == [0, 3]
    assert len(c) == 2


@pytest.mark.parametrize("repeats", [2, 4, 12])
def test_the_noise_is_recovered(repeats):
    p = phantom(seed=12, repeats=repeats)
    c = curves(p.scan())
    ratio = c.noise / (np.sqrt(2) * p.noise_sd * c.scale)
    assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=0.03)
    assert ratio.std() < min(0.12, 0.85 / np.sqrt(2 * c.degrees))  # the scatter of few degrees of freedom is gone
    assert c.degrees == 6 * (repeats - 1)


@pytest.mark.parametrize("degrees", [2, 6, 30])
def test_shrinking_removes_sampling_scatter(degrees):
    rng = np.random.default_rng(0)
    measured = 4.0 * rng.chisquare(degrees, 20000) / degrees
    drawn = shrink(measured, degrees)
    assert drawn.mean() == pytest.approx(4.0, rel=0.03)
    assert drawn.std() < 0.1 * measured.std()


@pytest.mark.parametrize("degrees", [3, 10])
def test_shrinking_keeps_what_really_differs(degrees):
    """True variances over two decades: the estimates come closer to them, and their spread stays."""
    rng = np.random.default_rng(1)
    true = np.exp(rng.normal(0, 1.2, 20000))
    measured = true * rng.chisquare(degrees, 20000) / degrees
    drawn = shrink(measured, degrees)
    error = [np.mean((np.log(x) - np.log(true)) ** 2) for x in (drawn, measured)]
    assert error[0] < 0.95 * error[1]
    assert np.polyfit(np.log(true), np.log(drawn), 1)[0] > 0.55
    two = np.where(rng.random(20000) < 0.5, 1.0, 100.0)  # two kinds of voxel
    drawn = shrink(two * rng.chisquare(10, 20000) / 10, 10)
    assert np.median(drawn[two == 100]) / np.median(drawn[two == 1]) > 60


def test_shrinking_with_nothing_to_learn_from():
    for variance, degrees in (([1.0, 2.0, 3.0], 0), ([1.0, 2.0], 5), ([0.0, 0.0, 0.0], 5)):
        np.testing.assert_array_equal(shrink(np.array(variance), degrees), variance)
    assert np.isfinite(shrink(np.array([0.0, 1.0, 2.0, 1.5]), 4)).all()


def test_noise_from_residuals_where_nothing_is_repeated():
    p = phantom(seed=13, repeats=1)
    c = curves(p.scan())
    assert c.degrees == 0
    truth = np.sqrt(2) * p.noise_sd * c.scale
    chi2 = truth**2 * np.random.default_rng(0).chisquare(4, len(c))  # 6 delays, 2 parameters
    np.testing.assert_allclose(np.median(with_residual_noise(c, chi2, 2).noise / truth), 1, atol=0.05)
    few = replace(c, times=c.times[:2])
    np.testing.assert_allclose(with_residual_noise(few, chi2, 2).noise, 0.1 * c.amplitude, rtol=1e-6)


def test_noise_free_data_have_a_floor():
    c = curves(phantom(snr=None).scan())
    assert c.noise.min() >= np.float32(NOISE_FLOOR * c.amplitude)
    assert c.noise.max() < 1e-3 * c.amplitude
    silent = curves(scan(np.zeros((1, 1, 1, 4)), [1.0, 1.0, 1.5, 1.5]))
    assert silent.noise.min() > 0
