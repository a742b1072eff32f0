"""Arterial blood: its curve, how it is integrated out, and what it does to CBF where it is there and where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scans import GM, phantom

from pinn_engine import asl
from pinn_engine.asl.arterial import Marginal, arterial_curve
from pinn_engine.asl.phantom.signal import Bolus, arterial
from pinn_engine.errors import InputError

SHAPE, SNR = (24, 28, 20), 400.0
WITH = ("cbf", "att", "abv")


@pytest.mark.parametrize("labeling", ["PCASL", "PASL"])
def test_the_curve_is_the_simulators(labeling):
    """Away from the edges of the box, where the simulator interpolates."""
    bolus = Bolus(1.0, labeling, alpha=0.9)
    t = np.array([[0.3, 0.9, 1.5, 1.65, 2.4]])
    expected = arterial(bolus, np.array([0.02]), np.array([0.7]), t)[0]
    found = 2 * 0.9 * 0.02 * arterial_curve(labeling, torch.as_tensor(t[0]), torch.tensor(1.0), torch.tensor(0.7), 1.65)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_integrating_out_is_the_inverse_root_of_the_covariance():
    """|T r|^2 = r' (I + sd^2 a a')^-1 r, and the estimate is the Gaussian posterior's, tissue's uncertainty included."""
    g = torch.Generator().manual_seed(0)
    a, r = torch.randn(5, 6, generator=g).double(), torch.randn(5, 6, generator=g).double()
    sd, mean = torch.rand(5, generator=g).double() * 2, torch.randn(5, generator=g).double()
    m = Marginal(a, mean, sd)
    cov = torch.eye(6).double() + (sd**2)[:, None, None] * a[:, :, None] * a[:, None]
    np.testing.assert_allclose(m.rows(r).square().sum(1), (r[:, None] @ torch.linalg.inv(cov) @ r[:, :, None]).flatten())
    np.testing.assert_allclose(m.data(r), m.rows(r - mean[:, None] * a))
    jacobian, tissue = torch.randn(5, 6, 2, generator=g).double(), torch.eye(2).double().expand(5, 2, 2) * 0.3
    value, spread = m.estimate(r, jacobian, tissue)
    precision = 1 / sd**2 + (a**2).sum(1)
    np.testing.assert_allclose(value, (mean / sd**2 + (a * r).sum(1)) / precision)
    slope = (a[:, :, None] * jacobian).sum(1) / precision[:, None]
    np.testing.assert_allclose(spread**2, 1 / precision + 0.3 * (slope**2).sum(1))


@pytest.fixture(scope="module")
def arteries():
    return phantom(shape=SHAPE, repeats=4, seed=51, snr=SNR, arterial=0.02)


def error(p, fit, where):
    return (fit.maps["cbf"].value - p.cbf)[where]


@pytest.mark.parametrize("spatial", [False, True])
def test_bias_in_arteries_is_at_most_a_third(arteries, spatial):
    p = arteries
    inside = (p.abv > 0.003) & (p.tissue == GM)
    plain, with_abv = (asl.fit(p.scan(), unknown=u, spatial=spatial) for u in (WITH[:2], WITH))
    bias = float(error(p, plain, inside).mean())
    assert bias > 10
    assert abs(error(p, with_abv, inside).mean()) < bias / 3
    assert set(with_abv.maps) == {"cbf", "att", "abv", "abat"}
    found = with_abv.maps["abv"]
    assert found.value.min() >= 0
    assert np.corrcoef(found.value[inside], p.abv[inside])[0, 1] > 0.5
    assert abs(found.value[inside].sum() / p.abv[inside].sum() - 1) < 0.4


def test_without_arteries_it_shrinks_to_zero_and_costs_nothing():
    p = phantom(shape=SHAPE, repeats=4, seed=52, snr=SNR)
    grey = p.tissue == GM
    plain, with_abv = (asl.fit(p.scan(), unknown=u) for u in (WITH[:2], WITH))
    assert np.sqrt(np.mean(error(p, with_abv, grey) ** 2)) <= 1.02 * np.sqrt(np.mean(error(p, plain, grey) ** 2))
    assert np.percentile(with_abv.maps["abv"].value[p.mask], 99) < 0.001


@pytest.mark.parametrize(
    ("made", "options", "reason"),
    [
        ({"plds": (1.0, 2.0)}, {}, "2 distinct delays"),
        ({}, {"network": "mlp"}, "--network mlp"),
        ({}, {"unknown": ("cbf", "att", "t1b", "abv")}, "t1b is asked"),
        ({}, {"unknown": ("cbf", "abv")}, "add att: --unknown cbf,att,abv"),
    ],
)
def test_where_it_cannot_be_fitted_one_line_says_why(made, options, reason):
    with pytest.raises(InputError, match=reason):
        asl.fit(phantom(seed=53, **made).scan(), **{"unknown": WITH, **options})


def test_without_m0_a_volume_has_no_unit():
    with pytest.raises(InputError, match="no usable M0"):
        asl.fit(replace(phantom(seed=53).scan(), m0=None), unknown=WITH)
