"""Basins of T: flooded as by a plain flood, not let in where only the discrete equation asks for them, kept where the times do."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import basins, lat, shapes
from pinn_engine.cardiac.basins import Landscape
from pinn_engine.cardiac.eikonal import EikonalDiffusion
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.lat import MapSolution, fit_lat
from pinn_engine.cardiac.mapfit import MapProblem, Samples, at_nodes
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.nodes import round_hollows, start_region
from pinn_engine.core.sparse import assemble

MODEL = AlievPanfilov()
MESH, _ = shapes.rectangle((4.0, 3.0), 0.2)
X, Y = MESH.points[:, 0], MESH.points[:, 1]
START = X < 0.1


LAND = Landscape.of(elements(MESH))
TIP, BESIDE = (int(np.hypot(X - x, Y - 1.6).argmin()) for x in (3.0, 3.4))


def poured(land: Landscape, T: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The level of a flood from the start, node by node."""
    around: list[list[int]] = [[] for _ in T]
    for one, two in zip(land.one.tolist(), land.two.tolist(), strict=True):
        around[one].append(two)
        around[two].append(one)
    level = np.full(len(T), np.inf)
    queue = [(T[node], node) for node in np.flatnonzero(start)]
    heapq.heapify(queue)
    while queue:
        height, node = heapq.heappop(queue)
        if level[node] < np.inf:
            continue
        level[node] = height
        for other in around[node]:
            heapq.heappush(queue, (max(height, T[other]), other))
    return level


def test_a_flood_along_the_tree_is_that_over_all_nodes():
    T = 2.0 * X + np.random.default_rng(0).normal(0.0, 0.5, len(X))
    level = T[LAND.flooded(T, START)]
    np.testing.assert_array_equal(level, poured(LAND, T, START))
    assert (level > T).any()


def test_a_front_has_no_basin_and_a_hollow_is_one_up_to_its_earliest_neighbour():
    T = 2.0 * X
    assert not len(LAND.basins(T, START).node)
    T[TIP] = 0.5
    found = LAND.basins(T, START)
    assert found.node.tolist() == [TIP]
    assert X[found.saddle[0]] == pytest.approx(X[TIP] - 0.2)


def test_three_times_make_a_start_and_two_do_not():
    """A cone of its own in the middle; in it a pit, which stays a basin beside the cone's start."""
    r = np.hypot(X - 3.0, Y - 1.6)
    T = np.minimum(2.0 * X, 3.0 + 4.0 * r)
    T[BESIDE] = 3.6
    near = np.array([TIP] * 3)
    for count in (0, 2):
        assert not LAND.starts(T, near[:count], T[near[:count]], 0.1, 0.5).any()
    assert not LAND.starts(T, near, np.array([3.0, 5.9, 3.0]), 0.1, 0.5).any()  # one is not before the rim
    found = LAND.starts(T, near, T[near], 0.1, 0.5)
    assert found[TIP]
    assert not found[X < 1.0].any()
    assert not found[BESIDE]
    assert LAND.basins(T, found | START).node.tolist() == [BESIDE]
    assert len(LAND.basins(T, START).node) > 10


def steps(seed: int):
    """A front over 60 x 40 mm in cells of 2 mm (1.3 sqrt(D / k)), drawn in steps: each node has the time of the nearest of 200 points."""
    mesh, _ = shapes.rectangle((60.0, 40.0), 2.0)
    random, x = np.random.default_rng(seed), mesh.points
    true = x[:, 0] / float(MODEL.speed(20.0))
    points = random.choice(len(x), 200, replace=False)
    near = ((x[:, None] - x[points]) ** 2).sum(axis=2).argmin(axis=1)
    times = (true[points] + 0.5 * random.standard_normal(200))[near] + 0.05 * random.standard_normal(len(x))
    return EikonalDiffusion(elements(mesh)), at_nodes(np.arange(len(x)), times, 0.2), true


def free(*_) -> tuple[None, None, float]:
    """In place of `lat._starts`: no rows against basins, a start where T is earliest."""
    return None, None, -np.inf


@pytest.mark.parametrize("seed", [0, 1])
def test_a_map_drawn_in_steps_has_no_hollows(seed, monkeypatch):
    equation, data, true = steps(seed)

    def hollows_and_error() -> tuple[int, float]:
        T = fit_lat(equation, data, MODEL, strength=0.4, draws=2).T
        return round_hollows(equation.element, torch.from_numpy(T), T.min() + 1.0 > T)[0], float(np.abs(T - true).max())

    count, off = hollows_and_error()
    monkeypatch.setattr(lat, "_starts", free)
    before, far = hollows_and_error()
    assert before > 0
    assert count == 0
    assert off < 0.5 * far


@pytest.mark.parametrize("delay", [0.0, 4.0])
def test_a_second_wave_that_several_times_tell_of_stays(delay, monkeypatch):
    """Two discs of 0.5 mm set off at once or 4 TU apart, 120 times. Both are starts, and T is right round both."""
    mesh, _ = shapes.rectangle((8.0, 5.0), 0.2)
    c, random = float(MODEL.speed(0.1)), np.random.default_rng(0)
    first, second = (np.maximum(np.linalg.norm(mesh.points - [x, 2.5, 0.0], axis=1) - 0.5, 0.0) / c for x in (1.0, 7.0))
    true = np.minimum(first, delay + second)
    nodes = random.choice(len(true), 120, replace=False)
    data = at_nodes(nodes, true[nodes] + 0.1 * random.standard_normal(120), 0.1)
    equation, there = EikonalDiffusion(elements(mesh)), np.minimum(first, second) < 2.0

    def found() -> tuple[MapSolution, float]:
        fit = fit_lat(equation, data, MODEL, sd=0.1, strength=0.4, draws=2)
        return fit, float(np.percentile(np.abs(fit.T - true)[there], 90.0))

    both, off = found()
    assert off < 0.5
    assert np.abs(both.T - true).max() < 1.0
    start = start_region(both.problem, torch.from_numpy(both.T))
    assert start[second.argmin()]
    assert start[first.argmin()]
    if delay:
        monkeypatch.setattr(basins, "POINTS", 10_000)  # as if no number of times would do
        assert found()[1] > 1.5 * off


def test_a_line_that_starts_at_once_keeps_its_start(monkeypatch):
    """Even tissue, a front from one side, eight wrong times: total variation of the map falls by half and more."""
    mesh, _ = shapes.rectangle((6.0, 6.0), 0.25)
    random, c, x = np.random.default_rng(0), float(MODEL.speed(0.1)), mesh.points[:, 0]
    nodes = random.choice(len(x), 150, replace=False)
    times = (x / c - 0.1 / c**2 * np.exp((x - 6.0) * c / 0.1))[nodes] + 0.1 * random.standard_normal(150)
    times[::18] += 6.0
    data = at_nodes(nodes, times, 0.1)

    def edges() -> float:
        return fit_lat(EikonalDiffusion(elements(mesh)), data, MODEL, strength=0.4, draws=2).solution.cost["edges"]

    kept = edges()
    monkeypatch.setattr(lat, "_starts", free)
    assert kept < 0.5 * edges()


def test_rows_are_the_slope_of_their_cost():
    T = 2.0 * X + np.random.default_rng(0).normal(0.0, 0.3, len(X))
    data, mask = at_nodes(np.arange(9), T[:9], 0.1), torch.from_numpy(~START)
    problem = MapProblem(EikonalDiffusion(elements(MESH)), data, MODEL, 0.1, 0.4, mask=mask)
    theta = torch.from_numpy(np.concatenate([T, np.full(len(T), np.log(0.1))]))
    assert "sources" not in problem.terms(theta)
    problem.landscape = LAND
    rows = problem.terms(theta)["sources"]
    way = torch.from_numpy(np.random.default_rng(1).standard_normal(len(theta)))
    sides = [problem.terms(theta + step * way)["sources"].cost for step in (-1e-7, 1e-7)]
    assert rows.cost > 1.0
    assert float(assemble({"sources": rows}, len(theta)).gradient @ way) == pytest.approx((sides[1] - sides[0]) / 2e-7, rel=1e-4)


def test_a_point_within_a_cell_stands_for_its_nearest_corner():
    one = torch.ones(1, dtype=torch.float64)
    weight = torch.tensor([0.3, 0.45, 0.25], dtype=torch.float64)
    assert Samples(torch.zeros(3, dtype=torch.long), torch.tensor([4, 7, 2]), weight, one, one).nearest().tolist() == [7]
