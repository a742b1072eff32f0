"""Batches of small positive definite systems against NumPy, and the unrolled path against the plain one."""

import numpy as np
import pytest
import torch
from made_problems import normal

from pinn_engine.core.linear import UNROLLED, inverse_spd, solve_cholesky_reference, solve_spd


def matrices(size: int, batch: int = 9, dtype=torch.float64) -> torch.Tensor:
    root = normal(size, batch, size, size)
    return (root @ root.transpose(1, 2) + 0.1 * torch.eye(size)).to(dtype)


SIZES = range(1, UNROLLED + 4)  # both paths


@pytest.mark.parametrize("columns", [None, 1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_solves_as_numpy_does(size, columns):
    a = matrices(size)
    b = normal(1, 9, size, *([] if columns is None else [columns]))
    expected = np.stack([np.linalg.solve(m, v) for m, v in zip(a.numpy(), b.numpy(), strict=True)])
    np.testing.assert_allclose(solve_spd(a, b), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(solve_cholesky_reference(a, b), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_inverse(size):
    np.testing.assert_allclose(inverse_spd(matrices(size)), np.linalg.inv(matrices(size).numpy()), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_float32_is_float64_to_its_precision(size):
    a, b = matrices(size), normal(1, 9, size)
    error = (solve_spd(a.float(), b.float()) - solve_spd(a, b)).abs().amax(dim=1) / solve_spd(a, b).abs().amax(dim=1)
    assert bool((error < 10 * torch.finfo(torch.float32).eps * torch.linalg.cond(a)).all())


@pytest.mark.parametrize("spoil", ["indefinite", "negative", "zero", "nan"])
@pytest.mark.parametrize("size", SIZES)
def test_a_matrix_that_is_not_positive_definite_is_nan_and_its_neighbours_are_untouched(size, spoil):
    a, b = matrices(size), normal(1, 9, size)
    clean = solve_spd(a, b)
    a[4] = {
        "indefinite": a[4] - 2 * torch.linalg.eigvalsh(a[4])[-1] * torch.eye(size),
        "negative": -a[4],
        "zero": 0 * a[4],
        "nan": a[4] * torch.nan,
    }[spoil]
    x, others = solve_spd(a, b), [0, 1, 2, 3, 5, 6, 7, 8]
    assert bool(x[4].isnan().all())
    assert torch.equal(x[others], clean[others])
    assert bool(inverse_spd(a)[4].isnan().all())
