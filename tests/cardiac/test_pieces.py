"""Maps of pieces: total variation takes height off a scar, a second fit that spares its border gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.background import modes
from pinn_engine.cardiac.fit import equation_of
from pinn_engine.cardiac.lat import fit_lat
from pinn_engine.cardiac.mapfit import STEEP, MapProblem
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.path import WARM, choose, shown
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.core.sparse import SparseGaussNewton, assemble
from pinn_engine.core.sparse_linear import SparseSolver

MODEL, NOISE = AlievPanfilov(), 0.155
SLOW = (3.2, 4.8)


def band(seed: int = 0, count: int = 60, height: float = 1.6):
    """A strip whose middle has a fifth of the D of the rest, `count` activation times of a front along it."""
    mesh, _ = shapes.rectangle((8.0, height), 0.2)
    x, random = mesh.points[:, 0], np.random.default_rng(seed)
    quick, slow = (1.0 / float(MODEL.speed(D)) for D in (0.1, 0.02))
    LAT = quick * x + (slow - quick) * np.clip(x - SLOW[0], 0.0, SLOW[1] - SLOW[0])
    seen = np.full(len(x), np.nan)
    nodes = random.choice(len(x), count, replace=False)
    seen[nodes] = LAT[nodes] + NOISE * random.standard_normal(count)
    return from_mesh(mesh, TimeUnit("tu"), LAT=seen)


def inside(data) -> np.ndarray:
    x = data.mesh.points[:, 0]
    return (x > SLOW[0] + 0.3) & (x < SLOW[1] - 0.3)


def spared(data):
    """Mean D of the slow band before and after sparing, the problem and its theta."""
    equation = equation_of(data, None)[0]
    found = fit_lat(equation, data.samples(NOISE), MODEL, sd=NOISE, strength=1.1, draws=2)
    problem, scar = found.problem, inside(data)
    problem.spare(found.solution.theta)
    again = SparseGaussNewton(steps=12, relative=1e-3, damping=WARM).solve(problem, found.solution.theta)
    return *(np.exp(u[scar]).mean() for u in (found.u, problem.split(again.theta)[1].numpy())), problem, again.theta


def test_a_second_fit_gives_a_scar_its_contrast_back():
    """True is .02; draw 1, for one, .026 before and .023 after."""
    before, after = np.array([spared(band(seed))[:2] for seed in range(4)]).T
    assert (after < before).all()
    assert after.mean() - 0.02 < 0.6 * (before.mean() - 0.02)


def test_spared_rows_are_the_slope_of_their_cost():
    data = band(1)
    _, _, problem, theta = spared(data)
    rows = problem.terms(theta)["edges"]
    slope = assemble({"edges": rows}, len(theta)).gradient
    way = torch.from_numpy(np.random.default_rng(0).standard_normal(len(theta)))
    sides = [problem.terms(theta + step * way)["edges"].cost for step in (-1e-6, 1e-6)]
    assert float(slope @ way) == pytest.approx((sides[1] - sides[0]) / 2e-6, rel=1e-4)
    flat = torch.zeros_like(theta)
    problem.spare(flat)
    assert problem.share is not None
    assert (problem.share == 2.0).all()
    steep = torch.zeros_like(theta)
    steep[problem.nodes :] = torch.from_numpy(data.mesh.points[:, 0]) * STEEP / problem.length
    problem.spare(steep)
    np.testing.assert_allclose(problem.share.numpy(), 1.0)


@pytest.mark.parametrize(("pieces", "slack", "spares"), [(np.inf, 9.0, False), (0.0, 9.0, True), (0.0, -0.9, False)])
def test_it_is_taken_where_the_prior_is_strong_and_the_data_allow_it(pieces, slack, spares):
    data = band(0)
    equation, samples = equation_of(data, None)[0], data.samples(NOISE)
    start = fit_lat(equation, samples, MODEL, sd=NOISE, strength=1.1, draws=2).solution.theta
    found = choose(lambda s, k: MapProblem(equation, s, MODEL, 0.1, k), samples, start, SparseSolver(), pieces=pieces, slack=slack)
    assert found.spares == spares
    assert (found.spared is None) == (pieces > 1e3)


@pytest.mark.parametrize(("pieces", "sure", "spares"), [(0.0, 2.0, True), (np.inf, 2.0, False), (0.0, -1e9, False)])
def test_it_is_taken_in_even_tissue_unless_it_is_shown_to_predict_worse(pieces, sure, spares, monkeypatch):
    """This draw's held-out times are predicted 7 % worse, where 0 are allowed, and no smooth background is found."""
    data = band(1, height=3.2)
    equation, samples = equation_of(data, None)[0], data.samples(NOISE)
    start = fit_lat(equation, samples, MODEL, sd=NOISE, strength=1.1, draws=2).solution.theta
    monkeypatch.setattr("pinn_engine.cardiac.path.SURE", sure)
    waves = modes(equation, (0.1 / MODEL.k) ** 0.5)

    def build(kept, strength):
        return MapProblem(equation, kept, MODEL, 0.1, strength)

    found = choose(build, samples, start, SparseSolver(), pieces=pieces, slack=0.0, modes=waves)
    assert found.background is None
    assert found.spares == spares
    assert not choose(build, samples, start, SparseSolver(), pieces=pieces, slack=0.0).spares


def test_losses_that_differ_by_chance_show_nothing():
    random = torch.from_numpy(np.random.default_rng(0).standard_normal(100))
    assert not shown(random - random.mean() + 0.1, 2.0)  # a standard error
    assert shown(random - random.mean() + 0.3, 2.0)
    assert not shown(random - random.mean() - 0.3, 2.0)
