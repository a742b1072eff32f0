"""A mask made from an image covers the object in it, and an image without an object is an error."""

from __future__ import annotations

import numpy as np
import pytest

from pinn_engine.asl import mask
from pinn_engine.errors import InputError
from pinn_engine.files.grid import Grid

GRID = Grid((40, 44, 16), np.diag([3.5, 3.5, 5.0, 1]))


def head() -> np.ndarray:
    """(X, Y, Z) bool: an ellipsoid that leaves the field of view below."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij")
    return ((x - 20) / 15) ** 2 + ((y - 22) / 18) ** 2 + ((z - 4) / 11) ** 2 < 1


def image(case: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    inside = head()
    values = np.where(inside, 100.0 + 20 * rng.standard_normal(GRID.shape), np.abs(5 * rng.standard_normal(GRID.shape)))
    if case == "holes":  # ventricles, dark in a difference image
        values[17:24, 18:27, 3:8] = 2
    if case == "vessels":  # a few very bright voxels
        values[18:20, 20:23, 0:3] = 5000
    if case == "suppressed":  # slices read later have recovered
        values *= np.linspace(0.35, 1, GRID.shape[2])
    if case == "eyes":  # bright, apart from the head
        values[1:4, 1:4, 1:4] = 150
    if case == "not finite":
        values[::7, ::5, ::3] = np.nan
        values[20, 22, 4] = np.inf
    if case == "noisy":
        values = np.abs(values + 80 * rng.standard_normal(GRID.shape))
    return values


@pytest.mark.parametrize("case", ["plain", "holes", "vessels", "suppressed", "eyes", "not finite", "noisy"])
def test_the_head_is_found(case):
    made = mask.make(image(case), GRID, "M0", "x.nii", noisy=case == "noisy")
    truth = head()
    assert 2 * (made & truth).sum() / (made.sum() + truth.sum()) > (0.85 if case == "noisy" else 0.94)
    assert made[17:24, 18:27, 3:8].all()
    assert not made[1:4, 1:4, 1:4].any()


def test_slices_may_lie_along_another_axis():
    turned = Grid((16, 40, 44), np.diag([5.0, 3.5, 3.5, 1]))
    along_x = mask.make(np.moveaxis(image("suppressed"), 2, 0), turned, "M0", "x.nii", slice_axis=0)
    np.testing.assert_array_equal(along_x, np.moveaxis(mask.make(image("suppressed"), GRID, "M0", "x.nii"), 2, 0))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_no_object_is_an_error(value):
    with pytest.raises(InputError, match="--mask"):
        mask.make(np.full(GRID.shape, value), GRID, "M0", "x.nii")


def test_a_single_slice_and_a_tiny_image():
    flat = Grid((40, 44, 1), np.diag([3.5, 3.5, 5.0, 1]))
    assert mask.make(image("plain")[..., 4:5], flat, "M0", "x.nii").sum() > 700
    assert mask.make(np.array([[[1.0, 9.0]]]), Grid((1, 1, 2), np.eye(4)), "M0", "x.nii").any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (6, 5, 4)])
def test_an_image_without_air_is_brain_everywhere(shape):
    values = 1000 + np.random.default_rng(0).normal(0, 30, shape)
    assert mask.make(values, Grid(shape, np.diag([3.0, 3, 3, 1])), "M0", "x.nii").all()


def test_otsu_separates_two_classes():
    values = np.concatenate([np.random.default_rng(0).normal(10, 1, 500), np.random.default_rng(1).normal(50, 5, 300)])
    assert 14 < mask.otsu(values) < 38
