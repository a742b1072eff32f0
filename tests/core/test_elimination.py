"""What is eliminated must not change the answer: amplitudes against the joint fit, a network's output layer against brute force and GLS."""

import numpy as np
import pytest
import torch
from made_problems import Exponentials, Made, decay, normal, rng
from scipy.optimize import least_squares

from pinn_engine.core import Fixed, Free, LevenbergMarquardt, Separable, Status, Unknowns, eliminate_output_layer

NOISE = 0.03


def noisy(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(0, 4, 20, dtype=torch.float64).expand(batch, -1)
    return x, 2 * torch.exp(-0.8 * x) + NOISE * normal(seed, batch, 20)


def separable(x, y) -> tuple[Exponentials, torch.Tensor]:
    problem = Exponentials(x, y, Unknowns({"k0": Free(0.01, 10.0)}), scale=NOISE)
    return problem, problem.unknowns.internal({"k0": torch.full((len(x),), 1.5, dtype=x.dtype)})


def test_separable_equals_the_joint_fit_and_scipy():
    x, y = noisy(20)
    eliminated = LevenbergMarquardt().solve(*separable(x, y))
    joint = LevenbergMarquardt().solve(Made(decay, ("a", "k"), {"data": NOISE**-2}, x=x, y=y), torch.ones(20, 2, dtype=torch.float64))
    torch.testing.assert_close(eliminated.values["a"], joint.values["a"], rtol=1e-5, atol=0)
    torch.testing.assert_close(eliminated.values["k0"], joint.values["k"], rtol=1e-5, atol=0)
    torch.testing.assert_close(eliminated.cost, joint.cost, rtol=1e-8, atol=0)
    torch.testing.assert_close(eliminated.covariance, joint.covariance, rtol=1e-4, atol=0)
    assert eliminated.names == ("a", "k0")
    for b in range(3):
        best = least_squares(lambda p, b=b: (p[0] * np.exp(-p[1] * x[b].numpy()) - y[b].numpy()) / NOISE, [1, 1], xtol=1e-12, ftol=1e-12)
        np.testing.assert_allclose([eliminated.values["a"][b], eliminated.values["k0"][b]], best.x, rtol=1e-5)
        np.testing.assert_allclose(eliminated.covariance[b], np.linalg.inv(best.jac.T @ best.jac), rtol=1e-3)


def test_covariance_is_the_scatter_of_repeated_experiments():
    fits = LevenbergMarquardt().solve(*separable(*noisy(4000, seed=3)))
    assert bool((fits.status == Status.CONVERGED).all())
    scatter = torch.cov(torch.stack([fits.values["a"], fits.values["k0"]]))
    torch.testing.assert_close(fits.covariance.mean(dim=0), scatter, rtol=0.08, atol=0)
    inside = (fits.values["k0"] - 0.8).abs() < 1.96 * fits.std("k0")
    assert float(inside.double().mean()) == pytest.approx(0.95, abs=0.012)


def test_two_amplitudes_and_a_known_rate():
    x = torch.linspace(0, 4, 30, dtype=torch.float64).expand(6, -1)
    y = 2 * torch.exp(-0.4 * x) + 3 * torch.exp(-2.5 * x)
    problem = Exponentials(x, y, Unknowns({"k0": Fixed(0.4), "k1": Free(1.0, 6.0)}), ("slow", "fast"))
    found = LevenbergMarquardt(relative=1e-14).solve(problem, torch.zeros(6, 1, dtype=torch.float64))
    for name, expected in (("slow", 2.0), ("fast", 3.0), ("k1", 2.5)):
        torch.testing.assert_close(found.values[name], torch.full((6,), expected).double(), rtol=1e-5, atol=0)


def test_amplitudes_may_be_negative_and_are_zero_where_nothing_arrives():
    x, y = noisy(3)
    found = LevenbergMarquardt().solve(*separable(x, -y))
    torch.testing.assert_close(found.values["a"], -LevenbergMarquardt().solve(*separable(x, y)).values["a"])

    class Late(Separable):
        def basis(self, values):
            return torch.zeros(3, 20, 1).double(), torch.zeros(3, 20, 1, 1).double()

        def take(self, rows):
            return Late(self.target[rows], self.unknowns.take(rows), self.linear)

    silent = LevenbergMarquardt().solve(Late(y, Unknowns({"k": Free(0.0, 1.0)}), ("a",)), torch.zeros(3, 1).double())
    assert not silent.values["a"].any()
    assert bool(silent.std("a").isfinite().all())
    assert float(silent.std("a").min()) > 1e5


def test_nothing_left_to_search_for():
    x, y = noisy(3)
    problem = Exponentials(x, y, Unknowns({"k0": Fixed(0.8)}), scale=NOISE)
    found = LevenbergMarquardt().solve(problem, torch.zeros(3, 0, dtype=torch.float64))
    basis = torch.exp(-0.8 * x)
    torch.testing.assert_close(found.values["a"], (basis * y).sum(1) / (basis**2).sum(1))
    torch.testing.assert_close(found.std("a"), NOISE / (basis**2).sum(1).sqrt())
    assert found.status.tolist() == [Status.CONVERGED] * 3


# --- the output layer of a network: PINN = generalised least squares -------------------------------------------------


def network(points: int, features: int, seed: int):
    phi, psi = normal(seed, points, features), normal(seed + 1, features, features) + 2 * torch.eye(features)
    weight = 0.5 + 3 * torch.rand(points, generator=rng(seed + 2), dtype=torch.float64)
    return phi, psi, weight, normal(seed + 3, features)  # supply b of unit flow in each interval


LEVELS = [(0.1, 0.5), (1.0, 1e-3), (1e-3, 1.0), (0.3, 100.0)]  # noise s, model error q


@pytest.mark.parametrize(("s", "q"), LEVELS)
@pytest.mark.parametrize(("points", "features"), [(6, 6), (4, 15), (9, 5), (1, 3)])
def test_the_network_without_its_output_layer_is_generalised_least_squares(points, features, s, q):
    """For any data y and flow f: brute-force least squares over the output layer = the reduced rows = GLS with noise + model error."""
    phi, psi, weight, supply = network(points, features, 10 * points)
    net = eliminate_output_layer(phi, psi, weight)
    for f in (0.0, 0.7, -40.0):
        y = normal(int(100 + f), points)
        reduced = ((y @ net.rotation - f * supply @ net.propagator) ** 2 / (s**2 + q**2 * net.spread)).sum()

        rows = np.vstack([(weight.sqrt()[:, None] * phi).numpy() / s, psi.numpy() / q])  # residual of c: rows @ c - target
        target = np.concatenate([(weight.sqrt() * y).numpy() / s, f * supply.numpy() / q])
        c = np.linalg.lstsq(rows, target, rcond=None)[0]
        brute = ((rows @ c - target) ** 2).sum()

        transfer = phi.numpy() @ np.linalg.inv(psi.numpy())
        covariance = s**2 * np.diag(1 / weight.numpy()) + q**2 * transfer @ transfer.T
        away = y.numpy() - f * transfer @ supply.numpy()
        gls = away @ np.linalg.solve(covariance, away)
        assert float(reduced) == pytest.approx(brute, rel=1e-8)
        assert float(reduced) == pytest.approx(gls, rel=1e-8)


def test_the_rotation_whitens_noise_and_model_error_at_once():
    phi, psi, weight, _ = network(6, 11, 7)
    net = eliminate_output_layer(phi, psi, weight)
    transfer = phi @ torch.linalg.inv(psi)
    v = net.rotation
    torch.testing.assert_close(v.T @ torch.diag(1 / weight) @ v, torch.eye(6).double(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(v.T @ transfer @ transfer.T @ v, torch.diag(net.spread), rtol=1e-9, atol=1e-10)


def test_without_model_error_it_is_the_solution_of_the_equation():
    """q -> 0 leaves weighted least squares on Phi Psi^-1 f b: the closed form of the discretised equation."""
    phi, psi, weight, supply = network(5, 8, 3)
    net = eliminate_output_layer(phi, psi, weight)
    y, f = normal(8, 5), 1.3
    exact = (weight * (y - phi @ torch.linalg.solve(psi, f * supply)) ** 2).sum()
    torch.testing.assert_close(((y @ net.rotation - f * supply @ net.propagator) ** 2).sum(), exact, rtol=1e-9, atol=0)


def test_as_many_equations_as_features():
    with pytest.raises(ValueError, match="5 rows and 6 features"):
        eliminate_output_layer(normal(0, 4, 6), normal(1, 5, 6), torch.ones(4))
