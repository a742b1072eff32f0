"""Fits end to end on small tissue: known D comes back, outliers do not matter, files are as promised, bad input is named."""

import json

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.cardiac import phantom, shapes
from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.read import HeartData, from_mesh, grids, read
from pinn_engine.cardiac.result import NodeStatus
from pinn_engine.cardiac.save import every_name
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files import mesh as meshes
from pinn_engine.files.movie import write_movie
from pinn_engine.files.vtkmesh import write

MODEL = AlievPanfilov()
TU = TimeUnit("tu")


def planar_LAT(mesh, D=0.1, count=150, noise=0.1, seed=0, axis=0):
    random = np.random.default_rng(seed)
    c, x = float(MODEL.speed(D)), mesh.points[:, axis]
    LAT = x / c - D / c**2 * np.exp((x - x.max()) * c / D)  # exact, no flux at the far end
    seen = np.full(len(LAT), np.nan)
    nodes = random.choice(len(LAT), count, replace=False)
    seen[nodes] = LAT[nodes] + noise * random.standard_normal(count)
    return seen


def test_even_tissue_from_activation_times_with_outliers():
    mesh, _ = shapes.rectangle((6.0, 6.0), 0.25)
    LAT = planar_LAT(mesh)
    wrong = np.flatnonzero(np.isfinite(LAT))[10::18]
    LAT[wrong] += 6.0
    found = fit(from_mesh(mesh, TU, LAT=LAT), strength=0.4)
    good = found.status == NodeStatus.FITTED
    assert np.median(found.maps["D"].value[good]) == pytest.approx(0.1, rel=0.05)
    assert np.median(found.maps["CV"].value[good]) == pytest.approx(float(MODEL.speed(0.1)), rel=0.03)
    assert found.settings["outliers"] == pytest.approx(8, abs=2)
    D = found.parameters["D"]  # its error is that of the median, not how D spreads over the tissue
    assert abs(D.value - 0.1) < 3.0 * D.std
    assert D.std < 0.5 * (D.spread[1] - D.spread[0])
    assert found.settings["noise_sd"]["value"] == pytest.approx(0.1, rel=0.35)


def test_no_speed_is_claimed_where_a_stimulus_set_the_tissue_off():
    """A disc that fires at once, one time in it far too early: its nodes are the start, and their CV is said to be open."""
    mesh, _ = shapes.rectangle((6.0, 6.0), 0.25)
    r = np.linalg.norm(mesh.points - [3.0, 3.0, 0.0], axis=1)
    LAT = np.maximum(r - 0.6, 0.0) / float(MODEL.speed(0.1)) + 0.1 * np.random.default_rng(0).standard_normal(len(r))
    LAT[np.random.default_rng(1).random(len(r)) < 0.5] = np.nan
    LAT[r.argmin()] = -3.0
    found = fit(from_mesh(mesh, TU, LAT=LAT), noise=0.1, strength=0.4)
    spread = found.maps["CV"].std / found.maps["CV"].value
    assert (spread[r < 0.5] > 1.8).all()
    assert set(found.status[r < 0.5]) <= {NodeStatus.START, NodeStatus.UNDETERMINED}
    assert (found.status[r > 2.0] == NodeStatus.FITTED).mean() > 0.9
    assert np.median(spread[r > 2.0]) < 0.2


def test_the_equation_matters():
    """Without its rows the map of D is the prior's: one value."""
    from pinn_engine.cardiac.fit import equation_of
    from pinn_engine.cardiac.lat import fit_lat
    from pinn_engine.cardiac.mapfit import Tuning

    mesh, _ = shapes.rectangle((6.0, 6.0), 0.25)
    x = mesh.points[:, 0]
    c = np.where(x < 3.0, float(MODEL.speed(0.1)), float(MODEL.speed(0.025)))
    LAT = np.where(x < 3.0, x / c, 3.0 / float(MODEL.speed(0.1)) + (x - 3.0) / c)
    LAT[np.random.default_rng(0).random(len(x)) < 0.7] = np.nan
    data = from_mesh(mesh, TU, LAT=LAT)
    equation = equation_of(data, None)[0]
    with_it = np.exp(fit_lat(equation, data.samples(0.05), MODEL, sd=0.05, strength=0.4).u)
    without = np.exp(fit_lat(equation, data.samples(0.05), MODEL, sd=0.05, strength=0.4, tuning=Tuning(equation_sd=1e6)).u)
    assert np.median(with_it[x < 2]) == pytest.approx(0.1, rel=0.1)
    assert np.median(with_it[x > 4]) == pytest.approx(0.025, rel=0.2)
    assert np.ptp(without) < 0.02


def test_tetrahedra_and_a_second_piece_without_data():
    mesh, _ = shapes.rectangle((3.0, 2.0, 1.0), 0.25)
    far = mesh.points + np.array([20.0, 0.0, 0.0])
    both = meshes.Mesh(np.concatenate([mesh.points, far]), np.concatenate([mesh.cells, mesh.cells + len(far)]))
    LAT = np.concatenate([planar_LAT(mesh, noise=0.05), np.full(len(far), np.nan)])
    found = fit(from_mesh(both, TU, LAT=LAT), noise=0.05, strength=0.4)
    assert (found.status[len(far) :] == NodeStatus.OUTSIDE).all()
    assert (found.maps["D"].value[len(far) :] == 0).all()
    assert np.median(found.maps["D"].value[: len(far)]) == pytest.approx(0.1, rel=0.1)


def test_a_movie_is_fitted_on_a_coarser_grid_and_put_back():
    whole, coarse, up = grids((41, 31, 1), np.array([0.1, 0.2, 1.0]), limit=400)
    assert len(coarse.points) <= 600 < len(whole.points)
    np.testing.assert_allclose(up @ coarse.points, whole.points, atol=1e-9)


def test_between_nodes_D_is_what_the_equation_has_there():
    whole, coarse, up = grids((5, 2, 1), np.ones(3), 4)
    data = HeartData(whole, coarse, up, np.arange(10) < 8, TU)
    x = coarse.points[:, 0]
    found = data.back_log(np.log(np.where(x > 0.0, 0.02, 0.1)))
    np.testing.assert_allclose(found[:8:2], 0.1 * 0.2 ** np.minimum(whole.points[:8:2, 0] / x[2], 1.0))
    assert (found[8:] == 0.0).all()


def test_scar_from_a_movie(tmp_path):
    """A stripe of slow tissue from a tenth of V; the movie's own grid carries the maps."""
    mesh, grid = shapes.rectangle((8.0, 1.6), 0.2)
    D = np.where((mesh.points[:, 0] > 5.0) & (mesh.points[:, 0] < 6.6), 0.03, 0.1)
    from pinn_engine.cardiac.protocols import planar
    from pinn_engine.cardiac.simulate import simulate

    run = simulate(mesh, D, planar(mesh, MODEL, 0.1), duration=45.0, frame_step=1.0)
    V = phantom.observe_V(run.V, 0.1, 0.05, 0)
    write_movie(tmp_path / "x_movie.nii.gz", V.reshape(*grid.shape, -1), grid, 1.0, "tu")
    assert main(["cardiac", "fit", str(tmp_path / "x_movie.nii.gz"), "--map", "D", "--time-unit", "tu", "--out", str(tmp_path / "o")]) == 0
    import nibabel

    image = nibabel.load(tmp_path / "o" / "x_D.nii.gz")
    value = image.get_fdata().ravel()
    assert image.shape == grid.shape
    x = mesh.points[:, 0]
    assert np.median(value[(x > 2.0) & (x < 4.0)]) == pytest.approx(0.1, rel=0.15)
    assert np.median(value[(x > 5.3) & (x < 6.3)]) == pytest.approx(0.03, rel=0.25)
    assert (tmp_path / "o" / "x_desc-fit_W.nii.gz").exists()
    status = nib.load(tmp_path / "o" / "x_desc-status_dseg.nii.gz").get_fdata()
    assert status.shape == grid.shape
    assert (status == 1).mean() > 0.5
    assert {f.name for f in (tmp_path / "o").glob("x_*")} <= set(every_name("x"))


def test_files_of_a_mesh(tmp_path, capsys):
    mesh = shapes.ellipsoid((12.0, 12.0, 14.0), level=3)
    order = np.random.default_rng(0).permutation(len(mesh.points))
    place = np.argsort(order)
    shuffled = meshes.Mesh(mesh.points[order], place[mesh.cells])
    LAT = (shuffled.points[:, 2] + 14.0) / 0.6  # ms at 0.6 m/s along the axis, faster on the flanks
    LAT[::3] = np.nan
    write(shuffled.with_data(LAT=LAT), tmp_path / "heart.vtp")
    out = tmp_path / "out"
    assert main(["cardiac", "fit", str(tmp_path / "heart.vtp"), "--out", str(out), "--spacing", "2", "--strength", "0.4"]) == 0
    back = meshes.read(out / "heart_cardiac.vtp")
    np.testing.assert_allclose(back.points, shuffled.points)
    for name in ("D", "D_std", "CV", "CV_std", "LAT", "LAT_std", "status"):
        assert np.isfinite(back.find(name)).all()
    table = json.loads((out / "heart_parameters.json").read_text())
    assert table["parameters"]["D"]["unit"] == "mm^2/ms"
    assert "given a = 0.01" in table["identifiability"]
    report = (out / "heart_report.html").read_text()
    assert "Conduction velocity" in report
    assert "http://" not in report.replace("http://www.w3.org/2000/svg", "")
    shape, labels = (nib.load(out / f"heart_{name}.nii.gz") for name in ("D", "desc-status_dseg"))
    assert labels.shape == shape.shape
    np.testing.assert_array_equal(labels.get_fdata() > 0, shape.get_fdata() > 0)
    assert set(np.unique(labels.get_fdata())) == {0} | set(back.find("status"))
    assert "undetermined" in (out / "heart_desc-status_dseg.tsv").read_text()
    again = tmp_path / "again"
    again.mkdir()
    stale = [again / "heart_desc-fit_V.nii.gz", again / "heart_cardiac.vtu"]
    for file in (*stale, again / "notes.txt"):
        file.write_text("of another fit")
    main(["cardiac", "fit", str(tmp_path / "heart.vtp"), "--out", str(again), "--spacing", "2", "--strength", "0.4"])
    assert (again / "heart_cardiac.vtp").read_bytes() == (out / "heart_cardiac.vtp").read_bytes()
    assert not any(file.exists() for file in stale)
    assert (again / "notes.txt").exists()
    assert {f.name for f in out.glob("heart_*")} <= set(every_name("heart"))


def test_bad_input_is_one_line(tmp_path, capsys):
    mesh, _ = shapes.rectangle((50.0, 50.0), 2.5)
    seconds = tmp_path / "seconds.vtp"
    write(mesh.with_data(LAT=mesh.points[:, 0] / 0.6 / 1000.0), seconds)
    few = tmp_path / "few.vtp"
    write(mesh.with_data(LAT=np.where(np.arange(len(mesh.points)) < 4, np.arange(len(mesh.points)), np.nan)), few)
    fine = tmp_path / "fine.vtp"
    write(mesh.with_data(LAT=mesh.points[:, 0] / 0.6), fine)
    calls = {
        "not a heart's": [str(seconds)],
        "too few": [str(few)],
        "cannot tell a and b": [str(fine), "--unknown", "D,a,b"],
        "the mesh or movie does not exist": [str(tmp_path / "gone.vtp")],
        "has no fibres": [str(fine), "--across", "0.3"],
    }
    for words, call in calls.items():
        assert main(["cardiac", "fit", *call, "--out", str(tmp_path / "o")]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    V = np.where(np.arange(20) > 5, 20.0, -80.0) * np.ones((len(mesh.points), 1))
    write(mesh.with_data(V=V), tmp_path / "mv.vtp")
    times = tmp_path / "t.txt"
    times.write_text("\n".join(map(str, range(20))))
    with pytest.raises(InputError, match="does not look like an action potential"):
        read(tmp_path / "mv.vtp", times=times)
