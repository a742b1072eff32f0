"""What `pinn-engine cardiac simulate` writes."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.cardiac.phantom import hard_map, observe_LAT, observe_V
from pinn_engine.cardiac.run_simulate import simulate_to
from pinn_engine.cardiac.shapes import ellipsoid, rectangle
from pinn_engine.cardiac.units import MS_PER_TU
from pinn_engine.errors import InputError
from pinn_engine.files.mesh import Mesh, read
from pinn_engine.files.movie import read_movie
from pinn_engine.files.vtkmesh import write


def test_rectangle(tmp_path):
    files = simulate_to(tmp_path, rectangle=(6.0, 4.0), spacing=0.2, duration=20.0, time_unit="tu", tissue="scar")
    movie = read_movie(files["movie"])
    assert (movie.V.shape, movie.step, movie.unit) == ((31, 21, 1, 21), 1.0, "tu")
    lat = nib.load(files["LAT"]).get_fdata()
    assert 5.0 < lat.max() < 20.0
    assert (np.diff(lat[:, 0, 0]) >= 0).all()  # a wave from x = 0
    truth = json.loads(files["truth"].read_text())
    assert truth["D"] == {"value": 0.1, "unit": "mm^2/TU"}
    assert np.unique(nib.load(files["D"]).get_fdata().round(3)).tolist() == [0.02, 0.1]


def test_units_do_not_change_the_wave(tmp_path):
    """The same run told in ms and in TU."""
    a = simulate_to(tmp_path / "a", rectangle=(4.0, 4.0), spacing=0.2, duration=10.0, time_unit="tu", D=0.1)
    ms = {"duration": 10.0 * MS_PER_TU, "D": 0.1 / MS_PER_TU, "frame_step": MS_PER_TU}
    b = simulate_to(tmp_path / "b", rectangle=(4.0, 4.0), spacing=0.2, time_unit="ms", **ms)
    np.testing.assert_allclose(read_movie(b["movie"]).V, read_movie(a["movie"]).V, atol=1e-6)
    np.testing.assert_allclose(nib.load(b["LAT"]).get_fdata(), MS_PER_TU * nib.load(a["LAT"]).get_fdata(), rtol=1e-5)
    assert read_movie(b["movie"]).unit == "ms"


def test_same_call_same_bytes(tmp_path):
    for name in "ab":
        simulate_to(tmp_path / name, rectangle=(10.0, 10.0), spacing=0.5, duration=8.0, time_unit="tu", protocol="breakup", seed=3)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_mesh_with_doubled_and_unused_nodes(tmp_path):
    ball = ellipsoid((20.0, 20.0, 25.0), 3)
    points = np.vstack([ball.points, ball.points[:1], [[0.0, 0.0, 0.0]]])
    cells = ball.cells.copy()
    first = np.flatnonzero((cells == 0).any(axis=1))[0]
    cells[first][cells[first] == 0] = len(ball.points)
    fibres = np.tile([1.0, 0.0, 0.0], (len(cells), 1))
    write(Mesh(points, cells, fibres=fibres), tmp_path / "heart.vtp")
    files = simulate_to(tmp_path / "out", tmp_path / "heart.vtp", duration=160.0, D=1.2, across=0.3, protocol="point", at=(0, 0, 25))
    back = read(files["movie"])
    np.testing.assert_array_equal(back.points, points)
    lat = back.point_data["LAT"]
    assert back.point_data["V"].shape == (len(points), 17)
    np.testing.assert_allclose(back.field_data["times"], 10.0 * np.arange(17))
    assert np.isfinite(lat[:-1]).all()
    assert np.isnan(lat[-1])
    assert lat[0] == lat[-2]
    truth = json.loads(files["truth"].read_text())
    assert any("on top of another" in note for note in truth["notes"])
    assert truth["LAT"]["unit"] == "ms"


BAD = {
    "both": ({"mesh_file": "x.vtp"}, "give either"),
    "spacing": ({"spacing": 0.7}, "not whole numbers of spacings"),
    "negative": ({"rectangle": (-1.0, 2.0)}, "positive lengths"),
    "protocol": ({"protocol": "sideways"}, "no such protocol"),
    "tissue": ({"tissue": "stone"}, "no such tissue"),
    "D": ({"D": -1.0}, "must be positive"),
    "parameter": ({"parameters": ("z=1",)}, "no such parameter"),
    "coarse": ({"D": 1e-4, "protocol": "point"}, "too coarse to start a wave"),
    "beats": ({"protocol": "paced", "beats": 0}, "cannot be paced so"),
    "period of another protocol": ({"protocol": "planar", "period": 60.0}, "are of paced tissue"),
    "beats of another protocol": ({"protocol": "point", "beats": 3}, "are of paced tissue"),
    "period": ({"protocol": "paced", "period": 0.0}, "cannot be paced so"),
    "fibres": ({"across": 0.1}, "has no fibres"),
    "still": ({"D": 1e-5}, "did not leave its start"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls(tmp_path, name):
    options, words = BAD[name]
    with pytest.raises(InputError, match=words):
        simulate_to(tmp_path / "out", **{"rectangle": (4.0, 4.0), "spacing": 0.2, "duration": 5.0, "time_unit": "tu", **options})
    assert not (tmp_path / "out").exists()  # nothing is written


def test_phantom_observations():
    mesh, _ = rectangle((10.0, 10.0), 0.2)
    D = hard_map()(mesh.points)
    assert D.min() < 0.015 < 0.05 < np.median(D) < 0.15
    V = observe_V(np.zeros((500, 100)), 0.05, 0.1, seed=1)
    assert np.isfinite(V).mean() == pytest.approx(0.05, abs=0.005)
    assert np.nanstd(V) == pytest.approx(0.1, rel=0.1)
    lat = observe_LAT(np.where(np.arange(500) < 400, np.arange(500.0), np.nan), 300, 0.1, seed=1)
    assert np.isfinite(lat).sum() == 300
    assert np.isnan(lat[400:]).all()
