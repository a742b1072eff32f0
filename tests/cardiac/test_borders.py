"""Borders of scars as lines: found in a map, moved to where the times put them, taken only where held-out times allow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import path, phantom, shapes
from pinn_engine.cardiac.background import Background
from pinn_engine.cardiac.borders import BorderProblem, drawn, find
from pinn_engine.cardiac.fit import equation_of, fit
from pinn_engine.cardiac.mapfit import MapProblem, at_nodes
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.path import UNDER, Choice, prediction_error
from pinn_engine.cardiac.protocols import point
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.core.sparse import assemble, total
from pinn_engine.core.sparse_linear import SparseSolver

MODEL, NOISE = AlievPanfilov(), 0.155
SLOW = (3.2, 4.8)


def strip(shift: float, deep: float = 0.02):
    """150 exact times of a front along a strip with a slow band; a problem over a flat background; theta, the band `shift` mm off."""
    mesh, _ = shapes.rectangle((8.0, 1.6), 0.2)
    x = mesh.points[:, 0]
    quick, slow = (1.0 / float(MODEL.speed(D)) for D in (0.1, 0.02))
    T = quick * x + (slow - quick) * np.clip(x - SLOW[0], 0.0, SLOW[1] - SLOW[0])
    nodes = np.random.default_rng(0).choice(len(x), 150, replace=False)
    equation = equation_of(from_mesh(mesh, TimeUnit("tu"), LAT=T), None)[0]
    problem = MapProblem(equation, at_nodes(nodes, T[nodes], NOISE), MODEL, 0.1, UNDER)
    problem.background = Background(torch.ones(len(x), 1, dtype=torch.float64), torch.tensor([1e-3], dtype=torch.float64), 10.0)
    u = np.log(np.where((x > SLOW[0] + shift) & (x < SLOW[1] + shift), deep, 0.1))
    theta = torch.from_numpy(np.concatenate([T, u, [0.0]]))
    problem.advance(theta)
    return x, problem, theta


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_borders_move_to_where_the_times_put_them(shift):
    x, problem, theta = strip(shift, deep=0.03)
    found = drawn(problem, theta, SparseSolver())
    assert found is not None
    u = problem.split(found.theta)[1].numpy()
    line = np.array([u[np.abs(x - at) < 1e-6].mean() for at in np.unique(x.round(6))])
    places, half = np.unique(x.round(6)), 0.5 * (line.max() + line.min())
    crossed = np.flatnonzero((line[:-1] > half) != (line[1:] > half))
    borders = [np.interp(half, sorted(line[i : i + 2]), places[i : i + 2][np.argsort(line[i : i + 2])]) for i in crossed]
    np.testing.assert_allclose(borders, SLOW, atol=0.12)
    assert np.exp(line.min()) == pytest.approx(0.02, rel=0.15)


def test_rows_are_the_slopes_of_their_costs():
    _, problem, theta = strip(0.3)
    scars = find(problem, theta)
    assert scars is not None
    lines = BorderProblem(problem, scars)
    random, n = np.random.default_rng(1), problem.nodes
    state = torch.cat([theta[:n], scars.phi, theta.new_tensor([0.0, scars.level]), scars.depth, theta.new_zeros(1)])
    state = state + 0.05 * torch.from_numpy(random.standard_normal(len(state)))
    way = torch.from_numpy(random.standard_normal(len(state)))
    slope = float(assemble(lines.terms(state), len(state)).gradient @ way)
    sides = [total(lines.terms(state + step * way)) for step in (-1e-6, 1e-6)]
    assert slope == pytest.approx((sides[1] - sides[0]) / 2e-6, rel=1e-4)


def test_scars_of_a_map_are_found_with_their_depths_and_distances():
    mesh, _ = shapes.rectangle((8.0, 6.0), 0.1)
    x, y = mesh.points[:, 0], mesh.points[:, 1]
    equation = equation_of(from_mesh(mesh, TimeUnit("tu"), LAT=x), None)[0]
    problem = MapProblem(equation, at_nodes(np.array([0]), np.array([0.0]), NOISE), MODEL, 0.1, UNDER)
    u, radius = np.full(len(x), np.log(0.1)), np.minimum(np.hypot(x - 2.0, y - 3.0), np.hypot(x - 5.5, y - 3.0))
    u[(radius < 1.0) & (x < 4.0)] -= 2.0
    u[(radius < 1.0) & (x > 4.0)] -= 1.0
    u[np.hypot(x - 7.5, y - 0.5) < 0.15] -= 2.0  # too small
    found = find(problem, torch.from_numpy(np.concatenate([x, u])))
    assert found is not None
    np.testing.assert_allclose(sorted(found.depth.tolist()), [-2.0, -1.0])
    np.testing.assert_allclose(found.phi.numpy() * problem.length, 1.0 - radius, atol=0.1)
    sure = np.abs(x - 3.75) > 0.3  # half way between the two
    np.testing.assert_allclose(found.depth[found.owner].numpy()[sure], np.where(x < 3.75, -2.0, -1.0)[sure])
    assert find(problem, torch.from_numpy(np.concatenate([x, np.full(len(x), -2.0)]))) is None


def test_they_are_taken_only_where_held_out_times_allow_it():
    _, problem, theta = strip(0.0)
    lines = drawn(problem, theta, SparseSolver())
    score = prediction_error(problem, problem.data, lines.theta)
    free = Choice(UNDER, background=problem.background)
    assert path._with_lines(free, problem, problem.data, lines, score + 1.0).lines
    refused = path._with_lines(free, problem, problem.data, lines, score - 1e-9)
    assert not refused.lines
    assert refused.lined == score
    assert path._with_lines(free, problem, problem.data, None, np.inf) == free


def kidney(seed: int, scar: float = 0.15):
    """250 times (TU) of a wave through a square of 6 mm with waves of D and a bean-shaped scar in it; true D at the nodes."""
    fine, grid = shapes.rectangle((6.0, 6.0), 0.1)

    def truth(points):
        x, y = points[:, 0], points[:, 1]
        wave = 0.35 * np.cos(2.0 * np.pi * x / 6.0 + 1.0) * np.cos(2.0 * np.pi * y / 6.0)
        bean = (((x - 3.2) / 1.7) ** 2 + ((y - 3.4) / 1.1) ** 2 < 1.0) & (np.hypot(x - 3.2, y - 2.2) > 0.7)
        return 0.1 * np.exp(wave) * np.where(bean, scar, 1.0)

    run = simulate(fine, truth(fine.points), point(fine, MODEL, 0.1, 0), duration=40.0)
    mesh, _ = shapes.rectangle((6.0, 6.0), 0.2)
    LAT = run.LAT.reshape(grid.shape)[::2, ::2].reshape(-1)
    return from_mesh(mesh, TimeUnit("tu"), LAT=phantom.observe_LAT(LAT, 250, NOISE, seed)), truth(mesh.points)


def dice(found, D: np.ndarray) -> float:
    one, two = found.maps["D"].value < 0.05, D < 0.05
    return 2.0 * float((one & two).sum()) / float(one.sum() + two.sum())


def test_a_scar_over_waves_is_outlined_better_by_lines(monkeypatch):
    cases = [kidney(seed) for seed in range(3)]
    lines = [fit(data, noise=NOISE) for data, _ in cases]
    monkeypatch.setattr(path, "drawn", lambda *a, **k: None)
    pieces = [fit(data, noise=NOISE) for data, _ in cases]
    taken = [one.settings["scar_borders_as_lines"]["taken"] for one in lines]
    assert all(taken)
    gain = [dice(a, D) - dice(b, D) for a, b, (_, D) in zip(lines, pieces, cases, strict=True)]
    assert np.mean(gain) > 0.005
    assert not any(one.settings["scar_borders_as_lines"]["taken"] for one in pieces)
