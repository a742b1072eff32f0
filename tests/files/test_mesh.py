"""Readers and writers of heart meshes: what goes in comes out, nodes in order; what cannot be used is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pinn_engine.cardiac.shapes import hollow_ball, rectangle, sphere
from pinn_engine.errors import InputError
from pinn_engine.files import opencarp
from pinn_engine.files.mesh import Mesh, read
from pinn_engine.files.meshcheck import check, clean
from pinn_engine.files.vtkmesh import to_vtk, write


def surface() -> Mesh:
    ball = sphere(30.0, 1)
    lat = np.linspace(0.0, 80.0, len(ball.points))
    lat[3] = np.nan
    fibres = np.tile([1.0, 0.0, 0.0], (len(ball.cells), 1))
    data = {"LAT": lat, "V": np.random.default_rng(0).random((len(lat), 5))}
    return Mesh(ball.points, ball.cells, data, {"scar": np.arange(len(ball.cells))}, {"times": np.arange(5.0)}, fibres=fibres)


def legacy(mesh: Mesh, path: Path, binary: bool, version: int) -> None:
    from vtkmodules.vtkIOLegacy import vtkDataSetWriter

    writer = vtkDataSetWriter()
    writer.SetInputData(to_vtk(mesh))
    writer.SetFileName(str(path))
    writer.SetFileVersion(version)
    writer.SetFileTypeToBinary() if binary else writer.SetFileTypeToASCII()
    assert writer.Write() == 1


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("version", [42, 51])
@pytest.mark.parametrize("make", [surface, lambda: hollow_ball(20.0, 24.0, 1, 3).with_data(LAT=np.arange(126.0))])
def test_legacy_vtk(tmp_path, make, version, binary):
    mesh = make()
    legacy(mesh, tmp_path / "heart.vtk", binary, version)
    back = read(tmp_path / "heart.vtk")
    same(mesh, back, 1e-4)  # ASCII keeps six digits


@pytest.mark.parametrize("suffix", [".vtp", ".vtu"])
def test_xml_keeps_everything(tmp_path, suffix):
    mesh = surface()
    write(mesh, tmp_path / f"heart{suffix}")
    back = read(tmp_path / f"heart{suffix}")
    same(mesh, back, 0.0)
    np.testing.assert_array_equal(back.fibres, mesh.fibres)
    np.testing.assert_array_equal(back.cell_data["scar"], mesh.cell_data["scar"])
    np.testing.assert_array_equal(back.field_data["times"], mesh.field_data["times"])
    assert [p.name for p in tmp_path.iterdir()] == [f"heart{suffix}"]  # no temporary file left behind


@pytest.mark.parametrize(("suffix", "module", "name"), [(".ply", "vtkIOPLY", "vtkPLYWriter"), (".stl", "vtkIOGeometry", "vtkSTLWriter")])
def test_geometry_formats(tmp_path, suffix, module, name):
    import importlib

    mesh = surface()
    writer = getattr(importlib.import_module(f"vtkmodules.{module}"), name)()
    writer.SetInputData(to_vtk(mesh))
    writer.SetFileName(str(tmp_path / f"heart{suffix}"))
    writer.Write()
    back = read(tmp_path / f"heart{suffix}")
    assert len(back.points) == len(mesh.points)
    np.testing.assert_allclose(
        np.sort(back.points[back.cells].sum(axis=(1, 2))), np.sort(mesh.points[mesh.cells].sum(axis=(1, 2))), atol=1e-3
    )


def write_ply(path: Path, mesh: Mesh, order: str, faces: int | None = None) -> None:
    """As MeshLab and openEP users write it: numbers of the vertices after their places; big and little end, or text."""
    head = f"ply\nformat {order} 1.0\ncomment map\nelement vertex {len(mesh.points)}\n"
    head += "property float x\nproperty float y\nproperty float z\nproperty uchar flag\nproperty double LAT\n"
    head += f"element face {faces or len(mesh.cells)}\nproperty list uchar int vertex_indices\nend_header\n"
    lat = mesh.point_data["LAT"]
    if order == "ascii":
        rows = [f"{x:.6f} {y:.6f} {z:.6f} 7 {t:.9g}" for (x, y, z), t in zip(mesh.points, lat, strict=True)]
        rows += ["3 " + " ".join(map(str, cell)) for cell in mesh.cells]
        path.write_text(head + "\n".join(rows) + "\n")
        return
    end = "<" if "little" in order else ">"
    points = np.zeros(len(lat), [("p", f"{end}f4", 3), ("flag", "u1"), ("LAT", f"{end}f8")])
    points["p"], points["flag"], points["LAT"] = mesh.points, 7, lat
    cells = np.zeros(len(mesh.cells), [("n", "u1"), ("c", f"{end}i4", 3)])
    cells["n"], cells["c"] = 3, mesh.cells
    path.write_bytes(head.encode() + points.tobytes() + cells.tobytes())


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_keeps_the_numbers_of_its_vertices(tmp_path, order):
    """VTK's reader passes over all but places, normals and colours: activation times were lost, and the file said to hold none."""
    mesh = surface()
    write_ply(tmp_path / "map.ply", mesh, order)
    back = read(tmp_path / "map.ply")
    np.testing.assert_allclose(back.points, mesh.points, atol=1e-5)
    np.testing.assert_allclose(back.point_data["LAT"], mesh.point_data["LAT"], rtol=1e-8)  # NaN where it was
    assert set(back.point_data) >= {"LAT", "flag"}
    np.testing.assert_array_equal(back.cells, mesh.cells)


@pytest.mark.parametrize(("order", "kept"), [("ascii", 20), ("ascii", 60), ("binary_little_endian", 20), ("binary_little_endian", 60)])
def test_a_ply_that_ends_early_is_refused(tmp_path, order, kept):
    """VTK gives what it has read; a surface without half of its faces would be fitted without a word."""
    write_ply(tmp_path / "map.ply", surface(), order)
    content = (tmp_path / "map.ply").read_bytes()
    (tmp_path / "map.ply").write_bytes(content[: len(content) * kept // 100])
    with pytest.raises(InputError, match=r"map\.ply: (is cut short, found|could not be read whole|crashes VTK)"):
        read(tmp_path / "map.ply")


def test_slicer_says_lps(tmp_path):
    legacy(surface(), tmp_path / "a.vtk", False, 42)
    text = (tmp_path / "a.vtk").read_text().replace("vtk output", "3D Slicer output. SPACE=LPS", 1)
    (tmp_path / "a.vtk").write_text(text)
    mesh = read(tmp_path / "a.vtk")
    assert mesh.space == "LPS"
    np.testing.assert_allclose(mesh.ras_points, mesh.points * [-1, -1, 1])
    write(mesh, tmp_path / "b.vtp")
    assert read(tmp_path / "b.vtp").space == "LPS"


MIXED = """# vtk DataFile Version 3.0
mixed cells
ASCII
DATASET UNSTRUCTURED_GRID
POINTS 5 float
0 0 0  1 0 0  1 1 0  0 1 0  2 0.5 0
CELLS 3 12
4 0 1 2 3
3 1 4 2
2 0 1
CELL_TYPES 3
9 5 3
CELL_DATA 3
SCALARS tag int 1
LOOKUP_TABLE default
7 8 9
"""


def test_quads_are_split_and_lines_left_out(tmp_path):
    (tmp_path / "m.vtk").write_text(MIXED)
    mesh = read(tmp_path / "m.vtk")
    assert mesh.cells.tolist() == [[0, 1, 2], [0, 2, 3], [1, 4, 2]]
    assert mesh.cell_data["tag"].tolist() == [7, 7, 8]
    assert "split" in mesh.notes[0]


@pytest.mark.parametrize("make", [surface, lambda: hollow_ball(20.0, 24.0, 1, 3)])
def test_opencarp_is_micrometres(tmp_path, make):
    mesh = make()
    opencarp.write(mesh, tmp_path / "heart")
    assert float((tmp_path / "heart.pts").read_text().split()[1]) == pytest.approx(1000.0 * mesh.points[0, 0], abs=1e-3)
    (tmp_path / "heart.LAT.dat").write_text("\n".join(map(str, range(len(mesh.points)))))
    for name in ("heart", "heart.pts", "heart.elem"):
        back = read(tmp_path / name)
        np.testing.assert_allclose(back.points, mesh.points, atol=1e-8)
        np.testing.assert_array_equal(back.cells, mesh.cells)
        np.testing.assert_array_equal(back.point_data["LAT"], np.arange(len(mesh.points)))
    assert mesh.fibres is None or np.allclose(back.fibres, mesh.fibres)


CARTO = """#TriangulatedMeshVersion2.0
; Biosense Webster

[GeneralAttributes]
NumVertex = 4
NumTriangle = 3
ColorsNames = Unipolar   Bipolar LAT \u00b5Bi
[VerticesSection]
; X Y Z
 0 = 0 0 0 0 0 1 0
 1 = 40 0 0 0 0 1 0
 2 = 40 40 0 0 0 1 0

 3 = 0 40 0 0 0 1 0
[TrianglesSection]
 0 = 0 1 2 0 0 1 0
 1 = 0 2 3 0 0 1 0
 2 = 0 1 3 0 0 1 -1000000
[VerticesColorsSection]
; -10000 = invalid
 0 = 1.5 0.5 -10000.00000 1 99
 1 = 1.6 0.6 12.0 1 99
 2 = 1.7 bad 13.0 1 99
 3 = 1.8 0.8 14.0 1 99
"""
CAR = "VERSION_5_0 1-Map\nP 0 1 0 1 2 3 0 0 1 1.9 .02 -10000 100\nP 0 2 0 x 2 3\nP 0 3 0 4 5 6 0 0 1 1.9 .03 25 100\n"


def test_carto(tmp_path):
    (tmp_path / "1-Map.mesh").write_bytes(CARTO.replace("\n", "\r\n").encode("latin-1"))
    (tmp_path / "1-Map_car.txt").write_bytes(CAR.replace("\n", "\r\n").replace(" ", "\t").encode("latin-1"))
    mesh = read(tmp_path / "1-Map.mesh")
    assert mesh.cells.tolist() == [[0, 1, 2], [0, 2, 3]]
    np.testing.assert_array_equal(mesh.point_data["LAT"], [np.nan, 12.0, 13.0, 14.0])
    np.testing.assert_array_equal(mesh.point_data["Bipolar"], [0.5, 0.6, np.nan, 0.8])
    assert set(mesh.point_data) == {"Unipolar", "Bipolar", "LAT", "MicroBipolar"}
    np.testing.assert_array_equal(mesh.field_data["measured_LAT"], [np.nan, 25.0])
    assert "1 unreadable" in " ".join(mesh.notes)
    assert "cut away" in " ".join(mesh.notes)


def test_carto_survives_a_bad_vertex(tmp_path):
    (tmp_path / "1-Map.mesh").write_bytes(CARTO.replace("3 = 0 40 0 0", "3 = ?? 40 0 0").encode("latin-1"))
    mesh = read(tmp_path / "1-Map.mesh")
    assert mesh.cells.tolist() == [[0, 1, 2]]
    assert np.isfinite(mesh.points).all()
    assert "no measured points" in " ".join(mesh.notes)
    assert mesh.missing == "1-Map_car.txt"


POINTS = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n0 0 0 1 0 0 0 1 0\n"
BAD = {  # name: (content, what the line must say)
    "empty.vtk": ("", "could not be read whole"),
    "notvtk.vtk": ("hello\nworld\n", "could not be read whole"),
    "points.vtk": (POINTS, "has no triangles"),
    "range.vtk": (POINTS + "POLYGONS 1 4\n3 0 1 3\n", "a node that does not exist, found index 3 with 3 points"),
    "negative.vtk": (POINTS + "POLYGONS 1 4\n3 0 1 -1\n", "a node that does not exist"),
    "nan.vtk": (POINTS.replace("1 0 0 0 1 0", "nan 0 0 0 1 0") + "POLYGONS 1 4\n3 0 1 2\n", "not finite, found the first is point 1"),
    "cut.vtk": (POINTS.replace("POINTS 3", "POINTS 300"), "could not be read whole"),
    "huge.vtk": (POINTS.replace("POINTS 3", "POINTS 3000000000000"), "could not be read whole"),
    "image.vtk": (
        "# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS 2 2 2\nORIGIN 0 0 0\nSPACING 1 1 1\n",
        "is not a mesh",
    ),
    "hex.vtk": (MIXED.replace("9 5 3", "9 5 14").replace("2 0 1\n", "2 0 1\n"), "cells other than triangles"),
    "cut.vtp": ("<VTKFile type='PolyData'><PolyData><Piece Numb", "could not be read whole"),
    "cut.vtu": ("", "could not be read whole"),
    "bad.ply": ("ply\nformat ascii 1.0\nelement vertex 3\n", "bad.ply"),
    "empty.stl": ("solid\nendsolid\n", "empty.stl"),
    "a.pts": ("3\n0 0 0\n1 0 0\n", "is cut short, found 2 points where the first line says 3"),
    "b.pts": ("x\n0 0 0\n", "does not begin with the number of lines"),
    "c.pts": ("2\n0 0 0\n0 z 0\n", "row 2 does not hold 3 numbers"),
    "d.mesh": ("nothing", "is not a CARTO 3 triangulated mesh"),
    "e.mesh": (CARTO.replace("NumVertex = 4", "NumVertex = 40"), "is cut short, found 4 vertices of 40"),
    "f.obj": ("v 0 0 0", "not a mesh file this program knows, found .obj"),
    "g": (None, "not a mesh file this program knows"),
    "h.vtk": (None, "no such file"),
    "i.pts": (None, "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(tmp_path, name, capfd):
    content, words = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as fault:
        read(tmp_path / name)
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)
    assert capfd.readouterr() == ("", "")  # VTK's own messages are caught


OPENCARP_BAD = {
    "no .elem": ({".pts": "3\n0 0 0\n1 0 0\n0 1 0\n"}, "no such file"),
    "kind": ({".elem": "1\nXx 0 1 2 1\n"}, "an element type that openCARP does not, found Xx"),
    "lines only": ({".elem": "1\nLn 0 1 1\n"}, "has no triangles (Tr) or tetrahedra (Tt)"),
    "cut": ({".elem": "2\nTr 0 1 2 1\n"}, "is cut short"),
    "one-based": ({".elem": "1\nTr 1 2 3 1\n"}, "index 3 with 3 points"),
    "short": ({".elem": "1\nTr 0 1\n"}, "element 0 has too few numbers"),
    "fibres": ({".elem": "1\nTr 0 1 2 1\n", ".lon": "1\n1 0 0\n1 0 0\n"}, "does not give one fibre an element"),
    "data": ({".elem": "1\nTr 0 1 2 1\n", ".LAT.dat": "1\n2\n"}, "found 2 for 3"),
}


@pytest.mark.parametrize("name", OPENCARP_BAD)
def test_bad_opencarp(tmp_path, name):
    files, words = OPENCARP_BAD[name]
    for suffix, text in {".pts": "3\n0 0 0\n1000 0 0\n0 1000 0\n", **files}.items():
        (tmp_path / f"h{suffix}").write_text(text)
    with pytest.raises(InputError) as fault:
        read(tmp_path / "h.pts")
    assert words in str(fault.value)


def test_truncated_binary_is_refused_wherever_it_is_cut(tmp_path):
    legacy(surface(), tmp_path / "a.vtk", True, 51)
    whole = (tmp_path / "a.vtk").read_bytes()
    for share in (0.1, 0.4, 0.7, 0.95):
        (tmp_path / "b.vtk").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError):
            read(tmp_path / "b.vtk")


def patched(points=(), cells=()) -> Mesh:
    flat, _ = rectangle((30.0, 30.0), 5.0)
    return Mesh(
        np.concatenate([flat.points, np.reshape(points, (-1, 3))]), np.concatenate([flat.cells, np.reshape(cells, (-1, 3))]).astype(int)
    )


N = 49
ODD = {  # what is added to a good sheet: (points, cells, words of the finding, nodes the solver sees)
    "nothing": ([], [], ["1 hole (open"], N),
    "unused": ([[1, 1, 5]], [], ["1 of 50 nodes belong to no cell"], N),
    "doubled": ([[0, 0, 0], [-5, 0, 0], [0, -5, 0]], [[49, 50, 51]], ["1 node lies on top"], N + 2),
    "flat": ([], [[0, 7, 14]], ["1 of 73 cells left out"], N),
    "twice": ([], [[0, 7, 8]], ["1 of 73 cells left out: of zero size, or standing twice"], N),
    "sliver": ([[-0.001, 15, 0]], [[0, 6, 49]], ["1 cell is a sliver"], N + 1),
    "piece": ([[0, 0, 9], [1, 0, 9], [0, 1, 9]], [[49, 50, 51]], ["2 separate pieces (largest 49, next 3 nodes)"], N + 3),
    "fin": ([[2, 2, 9]], [[8, 16, 49]], ["1 edge is shared by more than two"], N + 1),
}


@pytest.mark.parametrize("name", ODD)
def test_oddities_are_named_and_survived(name):
    points, cells, words, nodes = ODD[name]
    mesh = patched(points, cells)
    said = " | ".join(check(mesh))
    assert all(word in said for word in words), said
    tidy = clean(mesh)
    assert len(tidy.mesh.points) == nodes
    lat = np.arange(len(mesh.points), dtype=float)
    back = tidy.back(tidy.forth(lat))
    assert np.isnan(back).sum() == (name == "unused")
    np.testing.assert_array_equal(back[1:N], lat[1:N])


@pytest.mark.parametrize(("factor", "guess"), [(0.001, "metres"), (0.05, "centimetres"), (1000.0, "micrometres")])
def test_wrong_units_are_suspected(factor, guess):
    mesh = surface()
    assert f"are its coordinates {guess}?" in check(Mesh(mesh.points * factor, mesh.cells))[0]


def test_frames_with_gaps_come_back(tmp_path):
    """Every node lacks some frame: VTK's own note of the range of such an array cannot be read again, ours is left out."""
    V = np.random.default_rng(0).random((len(surface().points), 5))
    V[np.arange(len(V)), np.arange(len(V)) % 5] = np.nan
    mesh = surface().with_data(V=V)
    write(mesh, tmp_path / "a.vtu")
    np.testing.assert_array_equal(read(tmp_path / "a.vtu").find("V"), V)
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    other = vtkXMLPolyDataWriter()  # as other programs write it
    other.SetInputData(to_vtk(mesh))
    other.SetFileName(str(tmp_path / "b.vtp"))
    other.Write()
    np.testing.assert_array_equal(read(tmp_path / "b.vtp").find("V"), V)


def same(a: Mesh, b: Mesh, tolerance: float) -> None:
    np.testing.assert_allclose(b.points, a.points, atol=tolerance)
    np.testing.assert_array_equal(b.cells, a.cells)
    for name, values in a.point_data.items():
        np.testing.assert_allclose(b.point_data[name], values, atol=tolerance, equal_nan=True)
