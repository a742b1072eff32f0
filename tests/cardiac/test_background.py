"""A smooth background under the pieces: laid where tissue has one, left away where it has none, and what it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import background, lat, phantom, shapes
from pinn_engine.cardiac.eikonal import EikonalDiffusion
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.fit import equation_of, fit
from pinn_engine.cardiac.mapfit import MapProblem
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.path import UNDER
from pinn_engine.cardiac.protocols import point
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.core.sparse import assemble

MODEL, NOISE, SIZE = AlievPanfilov(), 0.155, 6.0


def square(depth: float, scar: float = 0.2, seed: int = 0, count: int = 250):
    """Times (TU) of a wave through a square with `scar` times the D in its middle and waves of `depth` (of log D); and the true D."""
    fine, grid = shapes.rectangle((SIZE, SIZE), 0.1)

    def truth(points):
        x, y = 2.0 * np.pi * points[:, 0] / SIZE, 2.0 * np.pi * points[:, 1] / SIZE
        inside = np.hypot(points[:, 0] - 3.0, points[:, 1] - 3.5) < 1.0
        return 0.1 * np.exp(depth * np.cos(x + 0.5) * np.cos(y)) * np.where(inside, scar, 1.0)

    run = simulate(fine, truth(fine.points), point(fine, MODEL, 0.1, 0), duration=32.0)
    mesh, _ = shapes.rectangle((SIZE, SIZE), 0.2)
    LAT = run.LAT.reshape(grid.shape)[::2, ::2].reshape(-1)
    return from_mesh(mesh, TimeUnit("tu"), LAT=phantom.observe_LAT(LAT, count, NOISE, seed)), truth(mesh.points)


def healthy_error(found, D: np.ndarray) -> float:
    return float(np.median(np.abs(found.maps["D"].value / D - 1.0)[D > 0.05]))


def test_waves_are_found_better_with_a_background(monkeypatch):
    data, D = square(depth=0.4)
    smooth = fit(data, noise=NOISE)
    monkeypatch.setattr(lat, "modes", lambda *a: None)
    steps = fit(data, noise=NOISE)
    assert smooth.settings["smooth_background"]["taken"]
    assert 0.8 < smooth.settings["smooth_background"]["reach_mm"] < 3.0
    assert not steps.settings["smooth_background"]["taken"]
    assert healthy_error(smooth, D) < 0.8 * healthy_error(steps, D)


def test_pieces_come_out_as_without_one(monkeypatch):
    data, _ = square(depth=0.0, seed=1)
    found = fit(data, noise=NOISE)
    monkeypatch.setattr(lat, "modes", lambda *a: None)
    assert not found.settings["smooth_background"]["taken"]
    np.testing.assert_array_equal(found.maps["D"].value, fit(data, noise=NOISE).maps["D"].value)


def test_that_there_is_none_lets_even_tissue_be_evener(monkeypatch):
    """Sparing steep places is refused by the held-out times alone on this draw, and taken where no waves are found either."""
    data, D = square(depth=0.0, scar=1.0, seed=1)
    found = fit(data, noise=NOISE)
    monkeypatch.setattr(lat, "modes", lambda *a: None)
    without = fit(data, noise=NOISE)
    assert not found.settings["smooth_background"]["taken"]
    assert (found.settings["steep_places_spared"]["taken"], without.settings["steep_places_spared"]["taken"]) == (True, False)
    assert healthy_error(found, D) < healthy_error(without, D)


def test_modes_of_a_rectangle_and_of_a_sphere():
    mesh, _ = shapes.rectangle((6.0, 4.0), 0.1)
    found = background.modes(EikonalDiffusion(elements(mesh)), 0.5, 6)
    assert found is not None
    expected = sorted((np.pi * 0.5) ** 2 * ((i / 6.0) ** 2 + (j / 4.0) ** 2) for i in range(4) for j in range(4))[:6]
    np.testing.assert_allclose(found.rate, expected, rtol=0.01, atol=1e-9)
    np.testing.assert_allclose((found.basis**2).mean(axis=0), 1.0, atol=0.1)
    ball = background.modes(EikonalDiffusion(elements(shapes.sphere(10.0, 3))), 1.0, 5)
    assert ball is not None
    np.testing.assert_allclose(ball.rate, [0.0, 0.02, 0.02, 0.02, 0.06], atol=1e-3)


def test_a_box_has_modes_and_a_small_mesh_has_none():
    box, _ = shapes.rectangle((3.0, 3.0, 3.0), 0.3)
    found = background.modes(EikonalDiffusion(elements(box)), 0.3, 4)
    assert found is not None
    np.testing.assert_allclose(found.rate, [0.0, *[(0.3 * np.pi / 3.0) ** 2] * 3], rtol=0.03, atol=1e-9)
    small, _ = shapes.rectangle((1.0, 1.0), 0.1)
    assert background.modes(EikonalDiffusion(elements(small)), 0.1) is None


def test_covariance_is_that_of_its_reach():
    mesh, _ = shapes.rectangle((4.0, 4.0), 0.1)
    found = background.modes(EikonalDiffusion(elements(mesh)), 0.1, 60)
    assert found is not None
    shape = found.basis * found.sd(0.25, 8.0)
    x, y = mesh.points[:, 0] - 2.0, mesh.points[:, 1] - 2.0
    middle = np.argmin(x**2 + y**2)
    near = np.hypot(x, y) < 1.2
    correlation = (shape @ shape[middle] / (shape[middle] @ shape[middle]))[near]
    np.testing.assert_allclose(correlation, np.exp(-0.5 * (np.hypot(x, y)[near] / 0.8) ** 2), atol=0.05)


def test_rows_over_a_background_are_the_slope_of_their_cost():
    data, _ = square(depth=0.4)
    equation = equation_of(data, None)[0]
    problem = MapProblem(equation, data.samples(NOISE), MODEL, 0.1, UNDER)
    found = background.modes(equation, problem.length)
    assert found is not None
    random = np.random.default_rng(0)
    theta = torch.from_numpy(0.1 * random.standard_normal(2 * problem.nodes + len(found.rate)))
    problem.spare(theta[: 2 * problem.nodes])
    problem.background = found.background()
    terms = {name: rows for name, rows in problem.terms(theta).items() if name in ("edges", "background")}
    way = torch.from_numpy(random.standard_normal(len(theta)))
    sides = [sum(problem.terms(theta + step * way)[name].cost for name in terms) for step in (-1e-6, 1e-6)]
    assert float(assemble(terms, len(theta)).gradient @ way) == pytest.approx((sides[1] - sides[0]) / 2e-6, rel=1e-4)
