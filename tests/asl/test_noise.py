"""Noise that neighbours share: measured, and not taken for structure."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from pinn_engine import asl
from pinn_engine.asl.curves import curves
from pinn_engine.asl.phantom.brain import GM
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.asl.spatial import fit as spatial_fit
from pinn_engine.asl.spatial.noise import noise_excess


@cache
def phantom(snr: float | None = 200.0) -> Phantom:
    return asl.phantom((28, 36, 23), 5.0, 330, snr=snr, lesions=False, territories=False)


def blurred(smooth) -> Phantom:
    """The phantom with its noise smoothed, its sd kept."""
    p, clean = phantom(), phantom(None)

    def noise(name: str) -> np.ndarray:
        n = getattr(p, name) - getattr(clean, name)
        s = np.stack([smooth(one) for one in np.moveaxis(n, -1, 0)], axis=-1)
        return (getattr(clean, name) + s * (n.std() / s.std())).astype(np.float32)

    return replace(p, control=noise("control"), label=noise("label"))


def test_independent_noise_has_no_excess():
    scan = phantom().scan()
    assert noise_excess(scan, curves(scan)) == pytest.approx(1.0, abs=0.03)


def test_excess_of_a_moving_average_is_what_its_correlations_add_up_to():
    """A mean of two voxels along x: neighbours there correlate by 1/2, so seven voxels with two such pairs have 1 + 2/7."""
    scan = blurred(lambda x: uniform_filter(x, (2, 1, 1), mode="wrap")).scan()
    assert noise_excess(scan, curves(scan)) == pytest.approx(1 + 2 / 7, abs=0.03)
    flat = replace(scan, grid=replace(scan.grid, affine=np.diag([3.0, 3.0, 8.0, 1.0])))  # faces, whatever the voxels' shape
    assert noise_excess(flat, curves(flat)) == pytest.approx(1 + 2 / 7, abs=0.03)


def test_without_repeats_nothing_is_known():
    p = asl.phantom((10, 12, 8), 14.0, 331, repeats=1)
    assert noise_excess(p.scan(), curves(p.scan())) == 1.0


def test_correlated_noise_is_not_taken_for_structure(monkeypatch):
    p = blurred(lambda x: gaussian_filter(x, 0.55))
    where = p.mask & (p.tissue == GM)

    def error(fit):
        return [float(np.sqrt(np.mean(np.square(fit.maps[n].value - t)[where]))) for n, t in (("cbf", p.cbf), ("att", p.att))]

    knows = asl.fit(p.scan(), spatial=True)
    monkeypatch.setattr(spatial_fit, "noise_excess", lambda scan, c: 1.0)
    blind = asl.fit(p.scan(), spatial=True)
    assert all(a < 0.9 * b for a, b in zip(error(knows), error(blind), strict=True))
    assert any("correlated" in note for note in knows.scan.notes)
    assert not any("correlated" in note for note in blind.scan.notes)
    covers = [np.mean((np.abs(f.maps["cbf"].value - p.cbf) < 1.96 * f.maps["cbf"].std)[where]) for f in (knows, blind)]
    assert covers[0] > max(covers[1] - 0.02, 0.8)
