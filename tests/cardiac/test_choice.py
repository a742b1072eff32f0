"""Which prior the held-out data choose, what an interval of CV holds, where measured points land on a mesh."""

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.nodes import apparent_speed, unevenness
from pinn_engine.cardiac.path import strongest, strongest_by_chance, weakest
from pinn_engine.files.raster import nearest


@pytest.mark.parametrize(
    ("scores", "slack", "expected"),
    [
        ({1.0: 2.0, 0.1: 1.0, 0.01: 1.5}, 0.0, 0.1),
        ({1.0: 2.0, 0.1: 1.0, 0.01: 1.5}, 0.02, 0.1 * 10**0.02),  # a fiftieth of the way up, over log strength
        ({1.0: 1.01, 0.1: 1.0, 0.01: 1.5}, 0.02, 1.0),
        ({1.0: 1.03, 0.1: 1.01, 0.01: 1.0}, 0.02, 0.1 * 10**0.5),
        ({1.0: 1.0}, 0.02, 1.0),
    ],
)
def test_the_strongest_prior_that_predicts_as_well(scores, slack, expected):
    assert strongest(scores, slack) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("worse", "apart", "expected"),
    [
        (0.005, 0.1, 1.0),  # a hundred observations: a standard error of .01
        (0.015, 0.1, 0.1),
        (0.015, 0.2, 1.0),
        (-0.015, 0.1, 1.0),  # the best itself
        (0.005, 0.0, 0.1),  # the same difference everywhere is no chance
    ],
)
def test_the_strongest_prior_that_chance_makes_no_worse(worse, apart, expected):
    """Losses that vary far more than they differ: what both share says nothing."""
    best = torch.as_tensor(np.random.default_rng(0).uniform(0, 9, 100))
    alternating = apart * torch.tensor([1.0, -1.0]).repeat(50).double()
    losses = {0.1: best, 1.0: best + worse + alternating, 0.01: best + 1.0}
    assert strongest_by_chance(losses) == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({1.0: 2.0, 0.1: 1.0, 0.01: 1.5}, 0.1),
        ({1.0: 1.0, 0.1: 1.01, 0.01: 1.02}, 0.01),
        ({1.0: 1.0, 0.1: 1.03, 0.01: 1.01}, 1.0),  # the one between predicts worse
        ({1.0: 1.01, 0.1: 1.0}, 0.1),
    ],
)
def test_the_weakest_prior_that_predicts_as_well(scores, expected):
    assert weakest(scores, 0.02) == expected


def test_slope_is_uncertain_where_fronts_meet():
    mesh, _ = shapes.rectangle((4.0, 2.0), 0.25)
    element, x = elements(mesh), mesh.points[:, 0]
    flat, roof = torch.from_numpy(2.0 * x), torch.from_numpy(2.0 * np.minimum(x, 3.9 - x))
    assert unevenness(element, flat).max() < 1e-6
    uneven = unevenness(element, roof)
    ridge = (np.abs(x - 2.0) < 0.1) & (np.abs(mesh.points[:, 1] - 1.0) < 0.9)
    np.testing.assert_allclose(uneven[ridge], 0.5 * np.log(2.0 / 1.2))  # half its cells have slope 2, half 1.2
    assert uneven[np.abs(x - 2.0) > 0.6].max() < 1e-6
    np.testing.assert_allclose(apparent_speed(element, flat), 0.5)


def test_points_are_laid_on_the_nearest_triangle():
    ball = shapes.sphere(20.0, 3)
    random = np.random.default_rng(0)
    weight = random.dirichlet(np.ones(3), 50)
    cell = random.integers(0, len(ball.cells), 50)
    on = np.einsum("pc,pci->pi", weight, ball.points[ball.cells[cell]])
    found, share, distance = nearest(ball, 1.1 * on)
    back = np.einsum("pc,pci->pi", share, ball.points[ball.cells[found]])
    assert np.linalg.norm(back - on, axis=1).max() < 0.3  # the sphere is made of flat triangles
    np.testing.assert_allclose(distance, 0.1 * np.linalg.norm(on, axis=1), rtol=0.02)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    exact = nearest(ball, on)
    assert exact[2].max() < 1e-9
