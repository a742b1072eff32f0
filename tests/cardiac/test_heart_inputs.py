"""From the files that people have to a fit: openCARP with fibres, CARTO with measured points, V on an irregular mesh, bad files."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.beat import beats
from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.read import from_mesh, read
from pinn_engine.cardiac.units import MS_PER_TU, TimeUnit
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files import mesh as meshes
from pinn_engine.files import opencarp
from pinn_engine.files.grid import Grid
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.movie import read_movie, write_movie
from pinn_engine.files.vtkmesh import write

MODEL = AlievPanfilov()
TU = TimeUnit("tu")
LONG = 60.0  # mm: sheets of the size of an atrium
D_LONG = 15.6  # mm^2/TU: 0.6 m/s


def call(*words: object) -> int:
    return main(["cardiac", "fit", *map(str, words)])


def table(folder, prefix) -> dict:
    return json.loads((folder / f"{prefix}_parameters.json").read_text())


def planar_ms(x: np.ndarray, D: float) -> np.ndarray:
    """Activation times (ms) of a planar front along x (mm), no flux at its far end."""
    c = float(MODEL.speed(D))
    return MS_PER_TU * (x / c - D / c**2 * np.exp((x - x.max()) * c / D))


@pytest.mark.parametrize(("angle", "factor"), [(0.0, 1.0), (0.5 * np.pi, 0.2)])
def test_opencarp_with_fibres(tmp_path, angle, factor):
    """NAME.pts .elem .lon (fibre and sheet) and NAME.LAT.dat, micrometres: D along the fibres comes back whichever way the wave goes."""
    mesh, _ = shapes.rectangle((LONG, LONG), 4.0)
    spare = np.concatenate([mesh.points, [[10.0, 10.0, 30.0]]])  # a node that no element uses
    fibres = np.tile([np.cos(angle), np.sin(angle), 0.0], (len(mesh.cells), 1))
    opencarp.write(Mesh(spare, mesh.cells, fibres=fibres), tmp_path / "heart")
    lon = ["2", *("{:g} {:g} {:g} 0 0 1".format(*f) for f in fibres)]
    (tmp_path / "heart.lon").write_text("\n".join(lon) + "\n")
    LAT = planar_ms(mesh.points[:, 0], factor * D_LONG) + np.random.default_rng(0).normal(0.0, 1.0, len(mesh.points))
    LAT[::2] = -10000.0
    (tmp_path / "heart.LAT.dat").write_text("\n".join(f"{t:.3f}" for t in [*LAT, 0.0 * LAT[0] - 10000.0]))
    assert call(tmp_path / "heart.pts", "--out", tmp_path / "o", "--spacing", 5, "--strength", 0.4, "--noise", 1.0) == 0
    said = table(tmp_path / "o", "heart")
    assert said["Fit"]["D_across_over_along"] == 0.2
    assert said["parameters"]["D"]["value"] == pytest.approx(D_LONG / MS_PER_TU, rel=0.08)
    back = meshes.read(tmp_path / "o" / "heart_cardiac.vtp")
    np.testing.assert_allclose(back.points, spare, atol=1e-6)
    assert back.find("status")[-1] == 0
    assert back.find("D")[-1] == 0
    assert any("1 of 257 nodes belong to no cell" in note for note in said["Notes"])


def carto(mesh: Mesh, LAT: np.ndarray, position: np.ndarray, measured: np.ndarray) -> tuple[str, str]:
    """A map as CARTO 3 writes it: the surface with its interpolated colours, and the measured points."""
    colour = [f" {i} = 1.5 0.5 {t:.4f} -10000 99" for i, t in enumerate(LAT)]
    vertices = [f" {i} = {x:.4f} {y:.4f} {z:.4f} 0 0 1 0" for i, (x, y, z) in enumerate(mesh.points)]
    cells = [f" {i} = {a} {b} {c} 0 0 1 0" for i, (a, b, c) in enumerate(mesh.cells)]
    head = ["#TriangulatedMeshVersion2.0", "[GeneralAttributes]", f"NumVertex = {len(mesh.points)}", f"NumTriangle = {len(mesh.cells)}"]
    head += ["ColorsNames = Unipolar   Bipolar LAT \u00b5Bi", "[VerticesSection]", "; X Y Z NX NY NZ GroupID", ""]
    lines = [*head, *vertices, "[TrianglesSection]", *cells, "[VerticesColorsSection]", "; -10000 = invalid", *colour]
    rows = [
        f"P\t0\t{i}\t0\t{x:.4f}\t{y:.4f}\t{z:.4f}\t0\t0\t1\t1.9\t.02\t{t:.1f}\t100"
        for i, ((x, y, z), t) in enumerate(zip(position, measured, strict=True))
    ]
    return "\r\n".join(lines) + "\r\n", "\r\n".join(["VERSION_5_0 1-Map", *rows]) + "\r\n"


def test_carto_fits_what_was_measured(tmp_path):
    """The points of _car.txt, a little off the surface, count; the colours of the surface (here: wrong by a half) do not."""
    random = np.random.default_rng(1)
    mesh, _ = shapes.rectangle((LONG, LONG), 4.0)
    place = np.column_stack([random.uniform(0, LONG, (260, 2)), random.normal(0.0, 1.0, 260)])
    time = planar_ms(np.append(place[:, 0], LONG), D_LONG)[:-1] - 40.0  # CARTO's zero is the reference electrode's
    time[:10] = -10000.0
    place[10:15, 2] = 60.0  # catheter inside the chamber
    surface, points = carto(mesh, 1.5 * planar_ms(mesh.points[:, 0], D_LONG), place, np.round(time))
    (tmp_path / "1-Map.mesh").write_bytes(surface.encode("latin-1"))
    (tmp_path / "1-Map_car.txt").write_bytes(points.encode("latin-1"))
    assert call(tmp_path / "1-Map.mesh", "--out", tmp_path / "o", "--spacing", 5, "--strength", 0.4) == 0
    said = table(tmp_path / "o", "1-Map")
    assert said["parameters"]["D"]["value"] == pytest.approx(D_LONG / MS_PER_TU, rel=0.08)
    assert said["Fit"]["observations"] == 245
    assert any("245 measured points are fitted" in note for note in said["Notes"])
    assert any("5 measured points lie more than 8 mm" in note for note in said["Notes"])
    by_colour = read(tmp_path / "1-Map.mesh", array="LAT")
    assert by_colour.points is None
    assert np.isfinite(by_colour.LAT).sum() == len(mesh.points)


def irregular(size: tuple[float, float], count: int, seed: int = 0) -> Mesh:
    """A sheet of triangles between random nodes (and even ones on its border)."""
    from scipy.spatial import Delaunay

    random = np.random.default_rng(seed)
    edge = [np.linspace(0.0, s, round(s / 0.25) + 1) for s in size]
    border = [(x, y) for x in edge[0] for y in (0.0, size[1])] + [(x, y) for x in (0.0, size[0]) for y in edge[1][1:-1]]
    inner = random.uniform(0.05, 0.95, (count, 2)) * size
    points = np.concatenate([border, inner])
    return Mesh(np.column_stack([points, np.zeros(len(points))]), Delaunay(points).simplices.astype(np.int64), source="sheet")


def seen_V(mesh: Mesh, D: float, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """V (N, F) of a planar beat along x, NaN where not observed."""
    random = np.random.default_rng(seed)
    times = np.arange(0.0, 42.0, 1.5)
    T = mesh.points[:, 0] / float(MODEL.speed(D))
    V = beats([MODEL])[0].V_and_slope(torch.from_numpy(times[None, :] - T[:, None] - 2.0))[0].numpy()
    V = V + 0.05 * random.standard_normal(V.shape)
    return np.where(random.random(V.shape) < share, V, np.nan), times


def test_a_b_and_a_map_from_V_on_an_irregular_mesh(tmp_path):
    mesh = irregular((4.0, 1.5), 100)
    V, times = seen_V(mesh, 0.1, 0.3)
    write(replace(mesh.with_data(V=V), field_data={"times": times}), tmp_path / "sheet.vtu")
    out = tmp_path / "o"
    words = ("--unknown", "D,a,b", "--map", "D", "--time-unit", "tu")
    assert call(tmp_path / "sheet.vtu", *words, "--out", out, "--spacing", 0.5, "--strength", 0.4) == 0
    said = table(out, "sheet")
    assert said["parameters"]["D"]["value"] == pytest.approx(0.1, rel=0.1)
    assert said["parameters"]["a"]["value"] == pytest.approx(0.01, abs=0.012)
    assert said["parameters"]["b"]["value"] == pytest.approx(0.15, abs=0.004)
    assert said["parameters"]["b"]["std"] > 0
    back = meshes.read(next(out.glob("sheet_cardiac.*")))
    assert back.find("V").shape == V.shape
    assert np.sqrt(np.nanmean((back.find("V") - V) ** 2)) == pytest.approx(0.05, rel=0.2)


def test_tetrahedra_with_fibres():
    mesh, _ = shapes.rectangle((3.0, 2.0, 0.25), 0.25)
    along = replace(mesh, fibres=np.tile([1.0, 0.0, 0.0], (len(mesh.cells), 1)))
    random = np.random.default_rng(0)
    for axis, factor in ((0, 1.0), (1, 0.3)):
        c, x = float(MODEL.speed(0.1 * factor)), mesh.points[:, axis]
        LAT = x / c - 0.1 * factor / c**2 * np.exp((x - x.max()) * c / (0.1 * factor)) + random.normal(0.0, 0.05, len(x))
        LAT[::2] = np.nan
        found = fit(from_mesh(along, TU, LAT=LAT), noise=0.05, strength=0.4, across=0.3)
        good = found.status == 1
        assert np.median(found.maps["D"].value[good]) == pytest.approx(0.1, rel=0.1)
        assert np.median(found.maps["CV"].value[good]) == pytest.approx(c, rel=0.05)


SHEET, _ = shapes.rectangle((LONG, LONG), 5.0)
GOOD = planar_ms(SHEET.points[:, 0], D_LONG)


def _movie(path, V, step=1.0):
    image = nib.Nifti1Image(V.astype(np.float32), np.eye(4))
    image.header["pixdim"][4] = step
    nib.save(image, path)


def _no_triangles(path):
    path.write_text("# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n0 0 0 1 0 0 0 1 0\n")


BAD = {  # name: (file, what writes it, options, words)
    "no triangles": ("a.vtk", _no_triangles, (), "has no triangles"),
    "no data": ("a.vtp", lambda p: write(SHEET, p), (), "has no point data called LAT, found no point data at all"),
    "all nan": ("a.vtp", lambda p: write(SHEET.with_data(LAT=np.nan * GOOD), p), (), "no node has a valid LAT, found 169 nodes"),
    "all nan V": ("a.vtp", lambda p: write(SHEET.with_data(V=np.full((169, 5), np.nan)), p), (), "V has no valid value"),
    "seconds": ("a.vtp", lambda p: write(SHEET.with_data(LAT=GOOD / 1000.0), p), (), "times may be in s or in TU"),
    "us": ("a.vtp", lambda p: write(SHEET.with_data(LAT=GOOD * 1000.0), p), (), "times may be in us or coordinates in m"),
    "metres": ("a.vtp", lambda p: write(Mesh(SHEET.points / 1000.0, SHEET.cells, {"LAT": GOOD}), p), (), "coordinates in m"),
    "um": ("a.vtp", lambda p: write(Mesh(SHEET.points * 1000.0, SHEET.cells, {"LAT": GOOD}), p), (), "coordinates in um"),
    "no step": ("a.nii.gz", lambda p: _movie(p, np.random.default_rng(0).random((9, 9, 1, 9)), 0.0), (), "has no time step"),
    "not finite": (
        "a.vtp",
        lambda p: write(Mesh(np.where(SHEET.points == LONG, np.inf, SHEET.points), SHEET.cells, {"LAT": GOOD}), p),
        (),
        "not finite",
    ),
    "too few": (
        "a.vtp",
        lambda p: write(SHEET.with_data(LAT=np.where(np.arange(169) < 7, GOOD, np.nan)), p),
        (),
        "found 7; at least 10 are needed",
    ),
    "too few V": (
        "a.nii.gz",
        lambda p: _movie(p, np.where(np.arange(9) < 1, 0.5, np.nan) * np.linspace(0, 1, 9)[:, None, None, None] * np.ones((9, 9, 1, 9))),
        ("--time-unit", "tu"),
        "too few observed values, found 81; at least 200 are needed",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(tmp_path, capsys, name):
    file, make, options, words = BAD[name]
    make(tmp_path / file)
    assert call(tmp_path / file, "--out", tmp_path / "o", *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert file in said
    assert words in said
    assert said.count("\n") == 1
    assert not list((tmp_path / "o").rglob("*_D.nii.gz"))


def test_a_time_on_every_node_is_suspected_to_be_interpolated():
    LAT = GOOD + np.random.default_rng(0).normal(0.0, 1.0, len(GOOD))
    half = np.where(np.arange(len(GOOD)) % 2, LAT, np.nan)
    said = [fit(from_mesh(SHEET, TimeUnit("ms"), LAT=seen), noise=1.0, strength=1.1).notes for seen in (LAT, half)]
    assert any("169 of 169 nodes carry an activation time" in note for note in said[0])
    assert not any("carry an activation time" in note for note in said[1])


def test_a_reference_image_elsewhere_is_told_before_the_fit(tmp_path, capsys, monkeypatch):
    write(SHEET.with_data(LAT=GOOD), tmp_path / "a.vtp")
    away = np.eye(4)
    away[:3, 3] = 500.0
    nib.save(nib.Nifti1Image(np.ones((20, 20, 20), np.float32), away), tmp_path / "mr.nii.gz")
    monkeypatch.setattr("pinn_engine.cardiac.fit.fit", lambda *a, **k: pytest.fail("the fit was run first"))
    assert call(tmp_path / "a.vtp", "--out", tmp_path / "o", "--reference", tmp_path / "mr.nii.gz") == 2
    said = capsys.readouterr().err
    assert "does not overlap the reference image" in said
    assert "x 0..60" in said
    assert said.count("\n") == 1


def test_a_reference_image_may_hold_anything(tmp_path):
    """Only where its voxels lie counts."""
    write(SHEET.with_data(LAT=GOOD), tmp_path / "a.vtp")
    nib.save(nib.Nifti1Image(np.zeros((14, 14, 3), np.float32), np.diag([5.0, 5.0, 5.0, 1.0])), tmp_path / "mr.nii.gz")
    assert call(tmp_path / "a.vtp", "--out", tmp_path / "o", "--reference", tmp_path / "mr.nii.gz", "--strength", 1.1, "--noise", 1) == 0
    assert nib.load(tmp_path / "o" / "a_D.nii.gz").shape == (14, 14, 3)


@pytest.mark.parametrize("option", ["--reference", "--spacing"])
def test_a_movie_has_its_own_grid(tmp_path, capsys, option):
    wave = np.clip(np.arange(10.0) - 0.5 * np.arange(12)[:, None, None, None], 0, 1) * np.ones((12, 12, 1, 1))
    write_movie(tmp_path / "x_movie.nii.gz", wave.astype(np.float32), Grid((12, 12, 1), np.eye(4), 1, 1), 1.0, "tu")
    assert call(tmp_path / "x_movie.nii.gz", "--time-unit", "tu", "--out", tmp_path / "o", option, "2") == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: is for meshes")


def test_a_refused_call_leaves_nothing(tmp_path, capsys):
    write(SHEET.with_data(other=GOOD), tmp_path / "a.vtp")
    assert call(tmp_path / "a.vtp", "--out", tmp_path / "new" / "o") == 2
    assert "name the array that holds the activation times with --array" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    assert call(tmp_path / "a.vtp", "--out", tmp_path / "mine") == 2
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_movie_that_never_rises_is_told(tmp_path, capsys):
    rest = tmp_path / "rest_movie.nii.gz"
    write_movie(rest, np.full((12, 12, 1, 10), 0.02, np.float32), Grid((12, 12, 1), np.eye(4), 1, 1), 1.0, "tu")
    assert main(["cardiac", "fit", str(rest), "--map", "D", "--time-unit", "tu", "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_noise_about_rest_gives_no_number(tmp_path, capsys):
    """A fit of nothing but noise converges, to a D that means nothing."""
    rest, noise = tmp_path / "rest_movie.nii.gz", np.random.default_rng(0).normal(0, 0.1, (24, 24, 1, 12)).astype(np.float32)
    write_movie(rest, noise, Grid((24, 24, 1), np.diag([0.2, 0.2, 0.2, 1.0]), 1, 1), 1.0, "tu")
    assert main(["cardiac", "fit", str(rest), "--unknown", "D", "--time-unit", "tu", "--out", str(tmp_path / "o")]) == 2
    assert "the samples of V: show no activation" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("code", "unit", "step"), [(2 | 8, "ms", 2000.0), (2 | 16, "ms", 2.0), (4 | 24, "ms", 0.002), (7, "", 2.0)])
def test_the_unit_of_a_movies_time(code, unit, step, tmp_path):
    """Codes of space that nobody defined (4, 7) do not matter."""
    path = tmp_path / "movie.nii"
    write_movie(path, np.ones((2, 2, 1, 3), np.float32), Grid((2, 2, 1), np.eye(4), 1, 1), 2.0, "ms")
    (tmp_path / "movie.json").unlink()
    content = bytearray(path.read_bytes())
    content[123] = code  # xyzt_units
    path.write_bytes(content)
    movie = read_movie(path)
    assert (movie.unit, movie.step) == (unit, pytest.approx(step))


def test_a_time_unit_that_is_none_is_refused(tmp_path):
    """Seconds had been taken for TU without a word."""
    path = tmp_path / "a.vtp"
    write(SHEET.with_data(LAT=np.arange(float(len(SHEET.points)))), path)
    with pytest.raises(InputError, match=r"--time-unit: is no unit this program knows, found s; give ms or tu"):
        read(path, time_unit="s")
    data = read(path)
    assert "\n" not in repr(data)
    with pytest.raises(InputError, match="activation times cannot tell a and b, found D,a,b"):
        fit(data, unknown="D, a,b")


def test_a_reference_that_holds_a_part_of_the_mesh_is_told(tmp_path, capsys):
    """Its volumes had lacked half of the heart without a word."""
    path, image = tmp_path / "a.vtp", tmp_path / "part.nii"
    write(SHEET.with_data(LAT=planar_ms(SHEET.points[:, 0], D_LONG)), path)
    low, high = SHEET.points.min(axis=0), SHEET.points.max(axis=0)
    half = np.diag([2.0, 2.0, 2.0, 1.0])
    half[:3, 3] = low - 4
    shape = (int((high - low)[0] / 4) + 2, *(int(length / 2) + 6 for length in (high - low)[1:]))
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), half), image)
    assert call(path, "--out", tmp_path / "out", "--reference", image) == 0
    found = re.search(r"caution: (\d+) % of the nodes lie outside the reference image", capsys.readouterr().out)
    assert 40 < int(found[1]) < 60
    assert "lie outside the reference image" in json.loads((tmp_path / "out" / "a_CV.json").read_text())["Notes"][0]
