"""Tangent and adjoint against difference quotients and each other; the grid's correction against the closed form of the speed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import protocols, shapes
from pinn_engine.cardiac.fem import Diffusion, elements, stiffness, tensors
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.propagate import Frames, Propagator, grid_error, grid_slowing, rate_slopes
from pinn_engine.cardiac.simulate import Start, simulate
from pinn_engine.errors import InputError

MODEL = AlievPanfilov(a=0.03)


@pytest.fixture(scope="module")
def case():
    mesh, _ = shapes.rectangle((2.0, 1.0), 0.2)
    element = elements(mesh)
    operator = stiffness(element, tensors(element, Diffusion(1.0)))
    V = torch.as_tensor(protocols.planar(mesh, MODEL, 0.1).V)
    return mesh, Propagator(operator, Frames.over(np.arange(0.0, 3.1, 0.5), 0.1), 0.2), torch.stack([V, 0.5 * V.flip(0)])


def test_it_is_the_simulator(case):
    mesh, propagator, state = case
    run = propagator.run(state, 0.1, MODEL)
    sim = simulate(mesh, 0.1, Start(*state.numpy()), duration=3.0, frame_step=0.5, model=MODEL, max_step=0.02, keep_W=True)
    np.testing.assert_allclose(run.V.T, sim.V, atol=1e-2)  # steps of 0.1 TU against 0.02
    np.testing.assert_allclose(run.W.T, sim.W, atol=1e-2)


def test_slopes_of_the_rates():
    V, W = torch.tensor([-0.2, -0.1, 0.3, 0.9]).double(), torch.tensor([0.1, 0.4, 1.0, 2.0]).double()
    J, by = rate_slopes(V, W, MODEL)
    e = 1e-6
    for k, (dV, dW) in enumerate(((e, 0.0), (0.0, e))):
        up, low = MODEL.rates(V + dV, W + dW), MODEL.rates(V - dV, W - dW)
        for row in range(2):
            np.testing.assert_allclose(J[2 * k + row], (up[row] - low[row]) / (2 * e), rtol=1e-6, atol=1e-8)
    for name in "ab":
        up, low = (replace(MODEL, **{name: getattr(MODEL, name) + d}).rates(V, W) for d in (e, -e))
        np.testing.assert_allclose(by[name], torch.stack([(u - d) / (2 * e) for u, d in zip(up, low, strict=True)]), rtol=1e-6, atol=1e-8)


def test_tangent_and_adjoint(case):
    _, propagator, state = case
    run = propagator.run(state, 0.1, MODEL, ("D", "a", "b"))
    random = torch.Generator().manual_seed(0)
    move = torch.randn(*state.shape, 2, dtype=torch.float64, generator=random)
    e = 1e-5
    quotient = (propagator.run(state + e * move[..., 1], 0.1, MODEL).V - propagator.run(state - e * move[..., 1], 0.1, MODEL).V) / (2 * e)
    tangent = run.tangent(move)
    np.testing.assert_allclose(tangent[..., 1], quotient, atol=1e-5)
    frames = torch.randn(*tangent.shape[:2], 2, dtype=torch.float64, generator=random)
    back = run.adjoint(frames)
    np.testing.assert_allclose((tangent * frames).sum((0, 1)), (move * back).sum((0, 1)), rtol=1e-9)


def test_slopes_by_the_numbers(case):
    _, propagator, state = case
    J = propagator.run(state, 0.1, MODEL, ("D", "a", "b")).by_numbers()
    e = 1e-5
    sides = [
        [(0.1 * np.exp(s * e), MODEL) for s in (1, -1)],
        *([(0.1, replace(MODEL, **{name: getattr(MODEL, name) + s * e})) for s in (1, -1)] for name in "ab"),
    ]
    for k, (up, low) in enumerate(sides):
        quotient = (propagator.run(state, *up).V - propagator.run(state, *low).V) / (2 * e)
        assert float((J[..., k] - quotient).abs().max()) < (0.02 if k == 0 else 1e-5) * float(quotient.abs().max())


@pytest.mark.parametrize("h", [0.1, 0.2])
def test_grid_error_of_squares_and_triangles(h):
    square, _ = shapes.rectangle((2.0, 2.0), h)
    inner = np.all((square.points[:, :2] > h) & (square.points[:, :2] < 2.0 - h), axis=1)
    np.testing.assert_allclose(grid_error(elements(square), square)[inner], h * h / 16.0, rtol=1e-9)
    ball = shapes.sphere(10.0, 4)
    edge = np.linalg.norm(ball.points[ball.cells[:, 0]] - ball.points[ball.cells[:, 1]], axis=1).mean()
    assert float(grid_error(elements(ball), ball).median()) == pytest.approx(edge**2 / 16.0, rel=0.06)


def test_slowing_is_what_a_plane_wave_loses():
    """D found from the speed of a front on a coarse sphere-like grid, times the correction, is D."""
    mesh, _ = shapes.rectangle((10.0, 0.6), 0.2)
    sim = simulate(mesh, 0.1, protocols.planar(mesh, MODEL, 0.1), duration=14.0, model=MODEL)
    x = mesh.points[:, 0]
    seen = (x > 3.0) & (x < 7.0)
    found = float(MODEL.diffusivity(1.0 / np.polyfit(x[seen], sim.LAT[seen], 1)[0])) / 0.1
    slowing = grid_slowing(elements(mesh), mesh, 0.1, MODEL, 0.05)
    assert found < 0.975
    assert slowing == pytest.approx(found, abs=0.012)  # along the axes a grid loses h^2/12, in the mean over directions h^2/16


def test_frames_must_be_even():
    with pytest.raises(InputError, match="not evenly spaced"):
        Frames.over(np.array([0.0, 1.0, 2.5]), 0.1)
