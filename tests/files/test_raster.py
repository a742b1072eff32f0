"""Nodal values to volumes and back; movies."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.cardiac.shapes import hollow_ball, rectangle, sphere
from pinn_engine.errors import InputError
from pinn_engine.files.grid import Grid
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.movie import read_movie, write_movie
from pinn_engine.files.raster import grid_around, rasterise, sample


@pytest.mark.parametrize(("mesh", "bar"), [(sphere(30.0, 4), 0.25), (hollow_ball(10.0, 16.0, 3, 5), 0.5)])
def test_mesh_to_volume_to_mesh(mesh, bar):
    truth = mesh.points @ [0.3, -0.2, 0.5]  # up to 0.62 a mm
    grid = grid_around(mesh, 1.0, 2.0)
    volume, mask = rasterise(mesh, truth, grid)
    back = sample(volume, grid, mesh.points, mask)
    assert volume.dtype == np.float32
    assert not volume[~mask].any()
    assert np.abs(back - truth).max() < bar
    assert np.median(np.abs(back - truth)) < 0.1


def test_shell_is_as_thick_as_asked():
    mesh = sphere(20.0, 3)
    grid = grid_around(mesh, 0.5, 3.0)
    _, mask = rasterise(mesh, np.ones(len(mesh.points)), grid, thickness=2.0)
    assert mask.sum() * 0.125 == pytest.approx(4.0 * np.pi * 20.0**2 * 2.0, rel=0.03)  # volume = area x thickness


def test_tetrahedra_fill_their_inside():
    mesh = hollow_ball(10.0, 16.0, 3, 4)
    _, mask = rasterise(mesh, np.ones(len(mesh.points)), grid_around(mesh, 0.5))
    assert mask.sum() * 0.125 == pytest.approx(4.0 / 3.0 * np.pi * (16.0**3 - 10.0**3), rel=0.03)


def test_oblique_grid_and_lps():
    """A turned, anisotropic image; and the same surface told in LPS lands in the same voxels."""
    mesh = sphere(15.0, 3)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.8, 1.0, 1.2]
    affine[:3, 3] = -affine[:3, :3] @ [25, 20, 17]
    grid = Grid((51, 41, 35), affine)
    truth = mesh.points[:, 0]
    volume, mask = rasterise(mesh, truth, grid, thickness=3.0)
    assert np.abs(sample(volume, grid, mesh.points, mask) - truth).max() < 0.5
    lps = Mesh(mesh.points * [-1, -1, 1], mesh.cells, space="LPS")
    np.testing.assert_array_equal(rasterise(lps, truth, grid, thickness=3.0)[0], volume)


def test_nan_nodes_stay_out_of_the_volume():
    mesh = sphere(20.0, 3)
    values = np.where(mesh.points[:, 2] > 0, np.nan, 1.0)
    volume, mask = rasterise(mesh, values, grid_around(mesh, 1.0, 2.0))
    assert np.isfinite(volume).all()
    assert set(np.unique(volume)) <= {0.0, 1.0}
    assert 0.3 < mask.sum() / rasterise(mesh, np.ones(len(values)), grid_around(mesh, 1.0, 2.0))[1].sum() < 0.5


@pytest.mark.parametrize(
    ("spacing", "shift", "words"), [(0.0, 0, "must be positive"), (1e-3, 0, "too large"), (1.0, 500, "does not overlap the reference")]
)
def test_bad_grids(spacing, shift, words):
    mesh = sphere(20.0, 2)
    with pytest.raises(InputError, match=words):
        rasterise(Mesh(mesh.points + shift, mesh.cells), mesh.points[:, 0], grid_around(mesh, spacing))


@pytest.mark.parametrize(("unit", "step"), [("ms", 12.9), ("tu", 1.0)])
def test_movie_round_trip(tmp_path, unit, step):
    _, grid = rectangle((3.0, 2.0), 0.5)
    V = np.random.default_rng(0).random((*grid.shape, 6)).astype(np.float32)
    V[0, 0] = np.nan
    write_movie(tmp_path / "m.nii.gz", V, grid, step, unit)
    movie = read_movie(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(movie.V, V)
    assert (movie.unit, movie.grid.shape) == (unit, grid.shape)
    np.testing.assert_allclose(movie.times, step * np.arange(6), rtol=1e-6)
    np.testing.assert_allclose(movie.grid.affine, grid.affine)


def test_seconds_become_ms(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 3, 1, 4), np.float32), np.eye(4))
    image.header["pixdim"][4] = 0.01
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "m.nii")
    assert read_movie(tmp_path / "m.nii").step == pytest.approx(10.0)


BAD = {
    "no step": (lambda: np.zeros((3, 3, 1, 4)), 0.0, "has no time step"),
    "three axes": (lambda: np.zeros((3, 3, 3)), 1.0, "is not a movie"),
    "one frame": (lambda: np.zeros((3, 3, 1, 1)), 1.0, "is not a movie"),
    "all nan": (lambda: np.full((3, 3, 1, 4), np.nan), 1.0, "has no observed value"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_movies(tmp_path, name):
    make, step, words = BAD[name]
    image = nib.Nifti1Image(make().astype(np.float32), np.eye(4))
    image.header["pixdim"][4] = step
    nib.save(image, tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match=words):
        read_movie(tmp_path / "m.nii.gz")


def test_damaged_movie(tmp_path):
    (tmp_path / "m.nii.gz").write_bytes(b"\x1f\x8b\x08\x00 not a gzip")
    with pytest.raises(InputError, match="could not be read"):
        read_movie(tmp_path / "m.nii.gz")
