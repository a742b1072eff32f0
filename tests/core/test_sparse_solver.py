"""The sparse Gauss-Newton: against dense least squares, in its robust losses, and in the draws it gives."""

import numpy as np
import pytest
import torch

from pinn_engine.core.solution import Status
from pinn_engine.core.sparse import Contaminated, Huber, Rows, SparseGaussNewton, SparseProblem, weighted_rows
from pinn_engine.core.sparse_linear import DeviceSolver, SparseSolver


class Chain(SparseProblem):
    """exp(theta_i) seen with noise, neighbours tied: nonlinear, tridiagonal."""

    def __init__(self, y, loss=None):
        self.y, self.loss = y, loss or Huber(1e9)

    def terms(self, theta):
        n = len(theta)
        i = torch.arange(n)
        data = weighted_rows((theta.exp() - self.y) / 0.1, i, i, theta.exp() / 0.1, self.loss)
        j = torch.arange(n - 1)
        ties = Rows(
            10.0 * (theta[1:] - theta[:-1]),
            torch.cat([j, j]),
            torch.cat([j + 1, j]),
            10.0 * torch.cat([torch.ones(n - 1), -torch.ones(n - 1)]).double(),
        )
        return {"data": data, "ties": ties}


def problem(n=40, seed=0, **options):
    random = np.random.default_rng(seed)
    truth = torch.from_numpy(0.3 * np.sin(np.arange(n) / 5.0))
    return Chain(truth.exp() + 0.1 * torch.from_numpy(random.standard_normal(n)), **options), truth


def test_reaches_the_minimum_that_a_dense_optimiser_finds():
    from scipy.optimize import least_squares

    p, _ = problem()

    def dense(x):
        return torch.cat([rows.residual for rows in p.terms(torch.from_numpy(x)).values()]).numpy()

    found = SparseGaussNewton(relative=1e-10, absolute=1e-10).solve(p, torch.zeros(40, dtype=torch.float64))
    best = least_squares(dense, np.zeros(40), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.theta.numpy(), best.x, atol=1e-5)


def test_factorised_and_conjugate_gradients_agree():
    p, _ = problem()
    theta = torch.zeros(40, dtype=torch.float64)
    a = SparseGaussNewton(relative=1e-9, absolute=1e-9).solve(p, theta, SparseSolver()).theta
    b = SparseGaussNewton(relative=1e-9, absolute=1e-9).solve(p, theta, DeviceSolver(tolerance=1e-10)).theta
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", [Huber(2.0), Contaminated(1e-3)])
def test_a_wrong_value_is_set_aside(loss):
    p, truth = problem(loss=loss)
    p.y[20] += 3.0
    start = torch.zeros(40, dtype=torch.float64)
    robust = SparseGaussNewton().solve(p, start).theta
    plain = SparseGaussNewton().solve(Chain(p.y), start).theta
    assert abs(robust[20] - truth[20]) < 0.5 * abs(plain[20] - truth[20])


def test_the_majoriser_has_the_exact_gradient():
    p, _ = problem(loss=Huber(0.5))
    theta = torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, 40))
    rows = p.terms(theta)["data"]
    gradient = torch.zeros(40, dtype=torch.float64).index_add(0, rows.column, rows.value * rows.residual[rows.row])
    for k in (0, 7, 39):
        step = torch.zeros(40, dtype=torch.float64)
        step[k] = 1e-6
        slope = (p.terms(theta + step)["data"].cost - p.terms(theta - step)["data"].cost) / 2e-6
        assert slope == pytest.approx(float(gradient[k]), rel=1e-5, abs=1e-6)


def test_draws_have_the_inverse_information_as_covariance():
    p, _ = problem(n=6)
    found = SparseGaussNewton().solve(p, torch.zeros(6, dtype=torch.float64))
    draws = found.draw(20_000)
    np.testing.assert_allclose(np.cov(draws.numpy()), np.linalg.inv(found.normal.matrix.toarray()), atol=2e-4)
