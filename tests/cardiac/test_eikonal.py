"""The travelling beat and its equation: exact solutions, derivatives against differences, fibres."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.beat import beats
from pinn_engine.cardiac.eikonal import EikonalDiffusion, front_constant, tissue_shape
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.core.sparse import Gaussian

MODEL = AlievPanfilov()
C0 = front_constant(MODEL)


def inner(mesh):
    p = mesh.points
    low, high = p.min(axis=0), p.max(axis=0)
    axes = [k for k in range(3) if high[k] > low[k]]
    return ((p[:, axes] > low[axes] + 1e-6) & (p[:, axes] < high[axes] - 1e-6)).all(axis=1)


@pytest.mark.parametrize("size", [(4.0, 3.0), (2.0, 2.0, 2.0)])
def test_a_planar_front_solves_it(size):
    mesh, _ = shapes.rectangle(size, 0.25)
    D = 0.1
    T = torch.from_numpy(mesh.points[:, 0] / (C0 * D**0.5))
    equation = EikonalDiffusion(elements(mesh))
    r = equation.residual(T, torch.full_like(T, np.log(D)), C0).numpy()
    assert np.abs(r[inner(mesh)]).max() < 1e-5


def test_a_circular_front_solves_it_to_second_order():
    """T(r) with c0 sqrt(D) T' - D (T'' + T'/r) = 1: integrated as an ordinary equation, put on two grids."""
    from scipy.integrate import solve_ivp

    D = 0.1
    c = C0 * D**0.5
    track = solve_ivp(
        lambda r, y: [y[1], (c * y[1] - 1.0) / D - y[1] / r],
        (9.0, 1.0),
        [9.0 / c, 1.0 / (c - D / 9.0)],
        rtol=1e-10,
        atol=1e-12,
        dense_output=True,
    )
    errors = []
    for h in (0.2, 0.1):
        mesh, _ = shapes.rectangle((3.0, 3.0), h)
        mesh = replace(mesh, points=mesh.points + np.array([2.0, 2.0, 0.0]))
        T = torch.from_numpy(track.sol(np.linalg.norm(mesh.points, axis=1))[0])
        r = EikonalDiffusion(elements(mesh)).residual(T, torch.full_like(T, np.log(D)), C0).numpy()
        errors.append(np.sqrt(np.mean(r[inner(mesh)] ** 2)))
    assert errors[0] < 0.02
    assert errors[1] < 0.6 * errors[0]


def test_fibres_slow_the_wave_across_them():
    mesh, _ = shapes.rectangle((3.0, 3.0), 0.25)
    mesh = replace(mesh, fibres=np.tile([1.0, 0.0, 0.0], (len(mesh.cells), 1)))
    element = elements(mesh)
    equation = EikonalDiffusion(element, tissue_shape(mesh.fibres, element, 0.25))
    u = torch.full((len(mesh.points),), float(np.log(0.1)), dtype=torch.float64)
    for axis, factor in ((0, 1.0), (1, 0.5)):  # CV goes with the root of D
        T = torch.from_numpy(mesh.points[:, axis] / (factor * C0 * 0.1**0.5))
        assert np.abs(equation.residual(T, u, C0).numpy()[inner(mesh)]).max() < 1e-5


def test_rows_are_the_derivative_of_the_residual():
    mesh = shapes.sphere(3.0, 1)
    element = elements(mesh)
    n = element.nodes
    random = np.random.default_rng(0)
    T, u = torch.from_numpy(mesh.points[:, 2] * 1.5 + random.normal(0, 0.1, n)), torch.from_numpy(random.normal(-2, 0.2, n))
    fibres = np.cross(mesh.points[mesh.cells].mean(axis=1), [0, 0, 1.0])
    equation = EikonalDiffusion(element, tissue_shape(fibres, element, 0.3))
    c0 = torch.tensor(C0, dtype=torch.float64)
    rows = equation.rows(T, u, c0, torch.ones(n, dtype=torch.float64), Gaussian(), 1.0, torch.tensor(1.0, dtype=torch.float64))
    J = np.zeros((n, 2 * n + 1))
    np.add.at(J, (rows.row.numpy(), rows.column.numpy()), rows.value.numpy())
    exact = torch.autograd.functional.jacobian(lambda t, v, c: equation.residual(t, v, c), (T, u, c0))
    np.testing.assert_allclose(J, np.concatenate([exact[0], exact[1], exact[2][:, None]], axis=1), atol=1e-9)


def test_the_beat_passes_one_half_at_zero_and_lasts_as_it_should():
    beat = beats([MODEL], slopes=True)[0]
    s = torch.tensor([-8.0, 0.0, 5.0, 80.0], dtype=torch.float64)
    V = beat.V_and_slope(s)[0]
    np.testing.assert_allclose(V[:2].numpy(), [0.0, 0.5], atol=2e-3)
    assert V[2] > 0.9
    assert V[3] < 0.05
    times = torch.arange(0.0, 60.0, 0.02, dtype=torch.float64)
    duration = float((beat.V_and_slope(times)[0] > 0.1).sum() * 0.02)
    assert duration == pytest.approx(30.1, abs=0.6)  # reference/cardiac.md 3.3
    other = beats([replace(MODEL, b=0.1525)])[0]
    moved = beat.V_and_slope(times)[0] + 0.0025 * beat.parameter_slopes(times)[1]
    assert float((moved - other.V_and_slope(times)[0]).abs().max()) < 0.01
