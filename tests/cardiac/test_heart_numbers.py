"""What is said of the numbers D, a, b: errors with what noise does not tell, correlations and verdict as the data alone tell them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import numbers, protocols, shapes
from pinn_engine.cardiac.fit import fitted_numbers
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.numbers import FLOOR, fit_numbers, speed_sd, with_floor
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.units import MS_PER_TU, TimeUnit
from pinn_engine.core.solution import Solution, Status, identifiability

MODEL, NAMES = AlievPanfilov(), ("D", "a", "b")
RIDGE = np.array([[1.0, 0.988, -0.97], [0.988, 1.0, -0.96], [-0.97, -0.96, 1.0]])  # of a plane wave, 5 % of V
OWN = np.array([0.0016, 0.0038, 0.0007])  # sd: D 1.6 %


@pytest.fixture
def solution() -> Solution:
    covariance = torch.as_tensor(RIDGE * np.outer(OWN, OWN))[None]
    values = {"D": torch.tensor([0.1]), "a": torch.tensor([0.01]), "b": torch.tensor([0.15])}
    one = torch.ones(1)
    status = torch.tensor([int(Status.CONVERGED)], dtype=torch.uint8)
    return Solution(NAMES, torch.zeros(1, 3), values, status, one, one, covariance, *identifiability(covariance))


def heart(unit: str = "tu"):
    mesh, _ = shapes.rectangle((4.0, 2.0), 0.5)
    return from_mesh(mesh, TimeUnit(unit), V=np.tile([0.0, 0.5, 1.0], (len(mesh.points), 1)), times=np.arange(3.0))  # type: ignore[arg-type]


def test_the_ridge_is_told_though_the_floors_hide_it(solution):
    parameters, correlation, _ = fitted_numbers(heart(), solution, MODEL, NAMES, np.eye(3))
    assert correlation["D"]["a"] == pytest.approx(0.988)
    assert "D and a trade off" in solution.verdict()
    assert parameters["a"].std == pytest.approx(np.hypot(OWN[1], FLOOR["a"]))
    assert parameters["D"].std == pytest.approx(np.hypot(OWN[0], FLOOR["D"] * 0.1))
    hidden = with_floor(solution.covariance[0].numpy(), NAMES, 0.1)
    assert hidden[0, 1] / np.sqrt(hidden[0, 0] * hidden[1, 1]) < 0.8  # what would have been printed


def test_speed_is_known_better_than_D_along_the_ridge(solution):
    ridge = solution.covariance[0].numpy()
    drawn = np.random.default_rng(0).multivariate_normal([0.1, 0.01, 0.15], ridge, 20000)
    speed = [float(AlievPanfilov(a=float(a)).speed(float(D))) for D, a, _ in drawn[:4000]]
    assert speed_sd(MODEL, 0.1, NAMES, ridge) == pytest.approx(np.std(np.log(speed)), rel=0.05)
    free = np.diag(OWN**2)
    assert speed_sd(MODEL, 0.1, NAMES, ridge) < 0.2 * speed_sd(MODEL, 0.1, NAMES, free)
    _, _, maps = fitted_numbers(heart("ms"), solution, MODEL, NAMES, np.eye(3))
    assert maps["CV"].value[0] == pytest.approx(float(MODEL.speed(0.1)) / MS_PER_TU)
    assert maps["CV"].unit == "m/s"


@pytest.fixture(scope="module")
def strip():
    mesh, _ = shapes.rectangle((2.4, 0.2), 0.2)
    times = np.arange(0.0, 15.0)
    return mesh, times, mesh.points[:, 0] / float(MODEL.speed(0.1)) - 1.0


def fitted(strip, true: AlievPanfilov, start: AlievPanfilov, noise: float = 0.05, D: float = 0.08):
    from scipy.sparse import identity

    mesh, times, T = strip
    begin = simulate(mesh, 0.1, protocols.planar(mesh, true, 0.1), duration=float(times[-1]), frame_step=1.0, model=true)
    V = begin.V + noise * np.random.default_rng(0).standard_normal(begin.V.shape)
    return fit_numbers(mesh, identity(len(T)), None, None, V, times, T, D, start, NAMES)


def test_the_fit_says_how_it_ended_and_its_costs_are_of_one_kind(strip):
    found = fitted(strip, MODEL, AlievPanfilov(a=0.03, b=0.2))
    cost = np.array(found.solution.history["cost"])
    assert Status(int(found.solution.status[0])) == Status.CONVERGED
    assert cost[-1] == cost.min()
    assert cost[-1] == pytest.approx(0.5 * strip[0].points.shape[0] * len(strip[1]), rel=0.02)  # half of chi-squared
    assert float(found.solution.values["b"][0]) == pytest.approx(0.15, abs=0.02)


def test_a_number_on_its_bound_is_told(strip, monkeypatch):
    monkeypatch.setattr(numbers, "A_RANGE", (0.05, 0.4))
    found = fitted(strip, MODEL, replace(MODEL, a=0.05), 0.02, 0.1186)  # at the right speed
    assert found.model.a == 0.05
    assert Status(int(found.solution.status[0])) == Status.AT_BOUND
