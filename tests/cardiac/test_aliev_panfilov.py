"""The equations and the units."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch

from pinn_engine.cardiac.model import AlievPanfilov, parse_parameters
from pinn_engine.cardiac.units import (
    TimeUnit,
    conductivity_from_diffusivity,
    diffusivity_from_conductivity,
    from_millivolts,
    millivolts,
    monodomain_conductivity,
)
from pinn_engine.errors import InputError


def test_exact_front_solves_the_equation():
    """V = 1/(1 + exp((x - c t)/s)) with W = 0, eps = mu1 = 0: the residual is 0 symbolically, so the speed and width are right."""
    x, t, k, a, D = sympy.symbols("x t k a D", positive=True)
    V = 1 / (1 + sympy.exp((x - sympy.sqrt(k * D / 2) * (1 - 2 * a) * t) / sympy.sqrt(2 * D / k)))
    reaction = -k * V * (V - a) * (V - 1)
    assert sympy.simplify(V.diff(t) - D * V.diff(x, 2) - reaction) == 0
    assert AlievPanfilov().front_scale(0.1) == pytest.approx((0.2 / 8.0) ** 0.5)
    assert AlievPanfilov().speed(0.1) == pytest.approx(0.4**0.5 * 0.98)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_residual_against_the_printed_equation(kind):
    V, W = (kind(np.array(x)) for x in ([0.2, 0.9, -0.05], [0.1, 2.0, 0.0]))
    d = {"V": V, "W": W, "V_t": V * 0.3, "W_t": W * 0.1 + 1.0, "div_D_grad_V": V * 0.7}
    residual = AlievPanfilov().residual(d)
    v, w = np.asarray(V), np.asarray(W)
    np.testing.assert_allclose(residual["V"], 0.3 * v - 0.7 * v + 8 * v * (v - 0.01) * (v - 1) + v * w)
    np.testing.assert_allclose(residual["W"], 0.1 * w + 1 - (0.002 + 0.2 * w / (v + 0.3)) * (-w - 8 * v * (v - 1.15)))


def test_recovery_has_no_pole():
    assert np.isfinite(AlievPanfilov().rates(np.array([-0.3, -5.0]), np.array([1.0, 1.0]))[1]).all()


@pytest.mark.parametrize(("speed_m_s", "D"), [(0.6, 15.6), (0.048, 0.1)])
def test_speed_and_diffusivity(speed_m_s, D):
    model, unit = AlievPanfilov(), TimeUnit("ms")
    assert unit.rate_from_tu(model.speed(D)) == pytest.approx(speed_m_s, rel=5e-3)
    assert model.diffusivity(model.speed(D)) == pytest.approx(D)


@pytest.mark.parametrize("name", ["ms", "tu"])
def test_units_round_trip(name):
    unit = TimeUnit(name)
    values = np.array([0.1, 15.6])
    np.testing.assert_allclose(unit.to_tu(unit.from_tu(values)), values)
    np.testing.assert_allclose(unit.rate_to_tu(unit.rate_from_tu(values)), values)
    np.testing.assert_allclose(from_millivolts(millivolts(values)), values)
    np.testing.assert_allclose(diffusivity_from_conductivity(conductivity_from_diffusivity(values)), values)


def test_known_conversions():
    assert TimeUnit("ms").from_tu(1.0) == 12.9
    assert TimeUnit("ms").rate_from_tu(15.6) == pytest.approx(1.209, abs=1e-3)  # mm^2/ms
    assert conductivity_from_diffusivity(15.6) == pytest.approx(1.69, abs=0.01)  # S/m
    assert millivolts(0.0) == -80.0
    assert monodomain_conductivity(0.17, 0.62) == pytest.approx(0.1334, abs=1e-4)  # Niederer 2011, along fibres
    assert (TimeUnit("ms").speed, TimeUnit("tu").diffusivity) == ("m/s", "mm^2/TU")


def test_opencarp_and_torchcor_names():
    """openCARP's b is our threshold a; its rates, written as in its .model file, are ours."""
    ours = AlievPanfilov.from_opencarp(a=0.12, b=0.07)
    U, V = np.array([0.3, 0.8]), np.array([0.2, 1.5])
    theirs = -8 * U * (U - 0.07) * (U - 1) - U * V, (0.002 + 0.2 * V / (0.3 + U)) * (-V - 8 * U * (U - 0.12 - 1))
    np.testing.assert_allclose(ours.rates(U, V), theirs)
    assert AlievPanfilov.from_opencarp(**{n: ours.to_opencarp()[n] for n in ("a", "b", "K", "mu1", "mu2")}) == ours
    default = AlievPanfilov.from_torchcor()
    assert default.speed(0.1) / AlievPanfilov().speed(0.1) == pytest.approx(0.71, abs=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q=1", "no such parameter, found q"),
        ("a=x", "a is not a number"),
        ("a", "a is not a number"),
        ("a=.7", "between 0 and 0.5"),
        ("k=-1", "k must be"),
    ],
)
def test_bad_parameters(text, words):
    with pytest.raises(InputError, match=words):
        parse_parameters([text])


def test_parameters():
    assert parse_parameters(["a=.02,b=0.1", "k=7"]) == AlievPanfilov(a=0.02, b=0.1, k=7.0)
