"""A few unknowns that every row sees, eliminated last: against the same problem without the distinction."""

import numpy as np
import pytest
import torch

from pinn_engine.core.sparse import Rows, SparseGaussNewton, SparseProblem, assemble
from pinn_engine.core.sparse_linear import BorderedNormal

MANY, FEW = 30, 4


class Waves(SparseProblem):
    """exp(theta_i) seen with noise; neighbours of theta less a sum of smooth functions tied."""

    def __init__(self, dense: bool):
        x = np.linspace(0.0, 1.0, MANY)
        self.dense = dense
        self.shape = torch.from_numpy(np.cos(np.pi * np.outer(x, np.arange(FEW))))
        self.y = torch.from_numpy(np.exp(np.sin(3.0 * x)) + 0.05 * np.random.default_rng(0).standard_normal(MANY))

    def terms(self, theta):
        many, few = theta[:MANY], theta[MANY:]
        i, j, k = torch.arange(MANY), torch.arange(MANY - 1), torch.arange(FEW)
        data = Rows((many.exp() - self.y) / 0.05, i, i, many.exp() / 0.05)
        rough, step = many - self.shape @ few, 20.0 * torch.ones(MANY - 1, dtype=torch.float64)
        by_few = -20.0 * (self.shape[1:] - self.shape[:-1])
        tied = 20.0 * (rough[1:] - rough[:-1])
        row, column, value = torch.cat([j, j]), torch.cat([j + 1, j]), torch.cat([step, -step])
        if self.dense:
            empty = torch.zeros(0, dtype=torch.long)
            prior = Rows(few / 0.5, empty, empty, step[:0], dense=2.0 * torch.eye(FEW, dtype=torch.float64))
            return {"data": data, "ties": Rows(tied, row, column, value, dense=by_few), "prior": prior}
        every = (j[:, None].expand(-1, FEW).reshape(-1), (MANY + k).repeat(MANY - 1), by_few.reshape(-1))
        ties = Rows(tied, *(torch.cat(pair) for pair in zip((row, column, value), every, strict=True)))
        return {"data": data, "ties": ties, "prior": Rows(few / 0.5, k, MANY + k, 2.0 * torch.ones(FEW, dtype=torch.float64))}


def test_same_minimum_and_information_as_with_one_sparse_matrix():
    start = torch.zeros(MANY + FEW, dtype=torch.float64)
    plain, bordered = (SparseGaussNewton(relative=1e-12, absolute=1e-12).solve(Waves(dense), start) for dense in (False, True))
    torch.testing.assert_close(plain.theta, bordered.theta, atol=1e-6, rtol=0)
    rhs = np.random.default_rng(1).standard_normal((MANY + FEW, 3))
    np.testing.assert_allclose(bordered.normal.solve(rhs), plain.normal.solve(rhs), atol=1e-9)
    np.testing.assert_allclose(bordered.normal.diagonal(), plain.normal.diagonal())


def test_gradient_schur_complement_and_draws():
    theta = torch.from_numpy(0.3 * np.random.default_rng(2).standard_normal(MANY + FEW))
    plain, bordered = (assemble(Waves(dense).terms(theta), MANY + FEW) for dense in (False, True))
    assert isinstance(bordered, BorderedNormal)
    torch.testing.assert_close(bordered.gradient, plain.gradient)
    covariance = np.linalg.inv(plain.matrix.toarray())
    np.testing.assert_allclose(np.linalg.inv(bordered.schur), covariance[MANY:, MANY:], rtol=1e-6)
    drawn = np.cov(bordered.draw(40_000).numpy())
    np.testing.assert_allclose(drawn, covariance, atol=4 * covariance.max() / 200)
    assert bordered.blocks @ rhs_of(plain) == pytest.approx(plain.matrix @ rhs_of(plain))


def rhs_of(normal) -> np.ndarray:
    return np.arange(1.0, 1.0 + normal.jacobian.shape[1])
