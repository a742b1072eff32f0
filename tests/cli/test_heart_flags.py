"""Every flag of the heart's commands does something: tables flag -> what it must change. A flag without a row fails."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from runs import run, written
from test_flags import flags

from pinn_engine.cardiac import shapes
from pinn_engine.files.grid import Grid
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.movie import write_movie
from pinn_engine.files.output import OutputFolder
from pinn_engine.files.vtkmesh import write

MOVIE, TRUTH = "simulation_movie.nii.gz", "simulation_truth.json"
SMALL = ("--rectangle", "2,1", "--spacing", "0.2", "--duration", "4", "--time-unit", "tu")

SIMULATE = {  # flag: (values, a file that must change)
    "--rectangle": (("2.4,1",), MOVIE),
    "--spacing": (("0.1",), MOVIE),
    "--duration": (("6",), MOVIE),
    "--time-unit": (("ms",), TRUTH),
    "--frame-step": (("0.5",), MOVIE),
    "--D": (("0.2",), MOVIE),
    "--tissue": (("hard",), MOVIE),
    "--protocol": (("point",), MOVIE),
    "--at": (("1,0.5,0", "--protocol", "point"), MOVIE),
    "--period": (("2", "--protocol", "paced"), MOVIE),
    "--beats": (("3", "--protocol", "paced", "--period", "1.5"), MOVIE),
    "--parameters": (("a=0.05",), MOVIE),
    "--seed": (("4", "--tissue", "hard"), MOVIE),
}
PHANTOM = {  # flag: values; what is observed must change
    "--tissue": ("even",),
    "--protocol": ("planar",),
    "--from": ("2",),
    "--share": ("0.2",),
    "--noise": ("0.3",),
    "--spacing": ("0.5",),
    "--duration": ("5",),
    "--seed": ("3",),
}
FIT = {  # flag: (standing arguments, values, a file that must change)
    "--array": ((), ("late",), "heart_LAT.nii.gz"),
    "--reference": ((), ("{reference}",), "heart_D.nii.gz"),
    "--spacing": ((), ("2.5",), "heart_D.nii.gz"),
    "--time-unit": ((), ("tu",), "heart_parameters.json"),
    "--parameters": ((), ("a=0.1",), "heart_D.nii.gz"),
    "--across": ((), ("0.6",), "heart_D.nii.gz"),
    "--noise": ((), ("6",), "heart_desc-std_D.nii.gz"),
    "--strength": ((), ("30",), "heart_D.nii.gz"),
    "--seed": ((), ("5",), "heart_desc-std_D.nii.gz"),
}
REFUSED = {  # flag: values that this input cannot have, a word of the line: what the flag asks for is looked at
    "--unknown": (("D,a,b",), "cannot tell a and b"),
    "--map": (("a",), "only D can be a map"),
    "--physics": (("aliev-panfilov",), "has activation times only"),
    "--method": (("network",), "field networks need V"),
    "--window": (("10,20",), "is for records of V"),  # what it does: tests/cardiac/test_pacing.py
    "--times": (("{times}",), "has no point data called V"),
    "--device": (("cuda",), "heart fits"),
    "--threads": (("0",), "at least 1"),
}
ELSEWHERE = {"--out", "--progress"}


def test_every_flag_has_a_test():
    assert flags("cardiac", "simulate") == set(SIMULATE) | {"--across", "--out", "--device", "--threads"}
    assert flags("phantom", "cardiac") == set(PHANTOM) | {"--out"}
    assert flags("cardiac", "fit") == set(FIT) | set(REFUSED) | ELSEWHERE
    assert flags("demo", "cardiac") == ELSEWHERE


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("simulated")
    assert run("cardiac", "simulate", *SMALL, "--out", out) == 0
    return written(out)


@pytest.mark.parametrize("flag", SIMULATE)
def test_flag_of_simulate(flag, simulated, tmp_path):
    values, file = SIMULATE[flag]
    at = SMALL.index(flag) if flag in SMALL else None
    standing = SMALL if at is None else SMALL[:at] + SMALL[at + 2 :]
    if flag == "--time-unit":
        standing = (*standing[:-1], "60")  # the same 4 TU and more, in ms
    assert run("cardiac", "simulate", *standing, "--out", tmp_path, flag, *values) == 0
    assert written(tmp_path)[file] != simulated[file]


IMPOSSIBLE = {  # what cannot be: the call, and what the one line says
    "neither mesh nor rectangle": (("cardiac", "simulate", "--duration", "4"), "give either a mesh or --rectangle"),
    "duration": (("cardiac", "simulate", *SMALL, "--duration", "-4"), "the duration must be positive"),
    "one side": (("cardiac", "simulate", *SMALL, "--rectangle", "2"), "two or three positive lengths"),
    "D": (("cardiac", "simulate", *SMALL, "--D", "0"), "--D: must be positive"),
    "across": (("cardiac", "simulate", *SMALL, "--across", "-1"), "--across: must be positive"),
    "place": (("cardiac", "simulate", *SMALL, "--protocol", "point", "--at", "1,2"), "--at: is not a place"),
    "seed": (("cardiac", "simulate", *SMALL, "--seed", "-1"), "--seed is out of range, found -1"),
    "endless": (("cardiac", "simulate", *SMALL, "--rectangle", "inf,1"), "two or three positive lengths"),
    "micrometres": (
        ("cardiac", "simulate", *SMALL, "--rectangle", "8000,8000"),
        "1,600,080,001 nodes, about 2,880 GB; sides and --spacing are in mm",
    ),
    "phantom's spacing": (("phantom", "cardiac", "--spacing", "0"), "a positive spacing"),
    "phantom's seed": (("phantom", "cardiac", "--seed", "-1"), "--seed is out of range, found -1"),
    "phantom's duration": (("phantom", "cardiac", "--duration", "nan"), "--duration: is out of range"),
    "fit's seed": (("cardiac", "fit", "{mesh}", "--seed", "-1"), "--seed is out of range, found -1"),
    "no noise": (("cardiac", "fit", "{mesh}", "--noise", "0"), "--noise: is out of range, found 0; give the standard deviation"),
    "noise is no number": (("cardiac", "fit", "{mesh}", "--noise", "nan"), "--noise: is out of range, found nan"),
    "negative noise": (("cardiac", "fit", "{mesh}", "--noise", "-1"), "--noise: is out of range, found -1"),
    "no prior": (("cardiac", "fit", "{mesh}", "--strength", "0"), "--strength: is out of range, found 0; give a number"),
    "negative prior": (("cardiac", "fit", "{mesh}", "--strength", "-2"), "--strength: is out of range, found -2"),
    "a movie's times": (("cardiac", "fit", "{movie}", "--times", "{times}"), "--times: is for meshes, this is a movie"),
    "a movie's array": (("cardiac", "fit", "{movie}", "--array", "V"), "--array: is for meshes, this is a movie"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_call_is_one_line_and_leaves_nothing(name, heart, tmp_path, capsys):
    words, line = IMPOSSIBLE[name]
    assert run(*(w.format(**heart) for w in words), "--out", tmp_path / "new" / "out") == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [("--noise", "0.001"), ("--noise", "1000"), ("--strength", "0.001"), ("--strength", "1000")])
def test_the_ends_of_what_may_be_asked_for(value, heart, tmp_path):
    assert run("cardiac", "fit", heart["mesh"], "--out", tmp_path, *(() if value[0] == "--strength" else QUICK), *value) == 0


@pytest.mark.parametrize(
    ("flag", "value", "line"), [("--device", "cuda:97", "--device"), ("--threads", "0", "--threads: must be at least 1")]
)
def test_what_simulate_cannot_have(flag, value, line, tmp_path, capsys):
    assert run("cardiac", "simulate", *SMALL, "--out", tmp_path, flag, value) == 2
    assert line in capsys.readouterr().err


COARSE = ("--spacing", "0.4", "--duration", "8")


@pytest.mark.parametrize("flag", PHANTOM)
def test_flag_of_phantom(flag, tmp_path):
    standing = COARSE if flag not in COARSE else COARSE[2:] if flag == COARSE[0] else COARSE[:2]
    assert run("phantom", "cardiac", "--out", tmp_path / "a", *COARSE) == 0
    assert run("phantom", "cardiac", "--out", tmp_path / "b", *standing, flag, *PHANTOM[flag]) == 0
    a, b = ((tmp_path / name / "phantom_movie.nii.gz").read_bytes() for name in "ab")
    assert a != b


def test_the_phantom_says_where_it_begins(tmp_path):
    assert run("phantom", "cardiac", "--out", tmp_path, *COARSE, "--from", "2", "--share", "0.2") == 0
    about = json.loads((tmp_path / "phantom_movie.json").read_text())
    assert (about["FirstFrameInTruth"], about["TimeUnit"], about["Share"], about["NoiseSD"]) == (2.0, "TU", 0.2, 0.1)
    seen, true = (nib.load(file).get_fdata() for file in (tmp_path / "phantom_movie.nii.gz", tmp_path / about["Truth"]))
    assert np.nanstd(seen - true[..., 2:]) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("cardiac", "fit", "x.vtk", "--out", "o", "--fizz", "3"), "cardiac fit"),
        (("cardiac", "fit", "x.vtk", "--out", "o", "--unk", "D"), "cardiac fit"),  # options are spelt out
        (("demo", "asl", "--out", "o", "--fizz"), "demo asl"),
        (("--fizz", "demo", "asl", "--out", "o"), ""),
    ],
)
def test_an_option_that_nobody_knows(words, command, capsys):
    name = f"pinn-engine {command}".strip()
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {name}: unrecognized arguments: {' '.join(unknown(words))}")
    assert err.endswith(f"; see {name} --help\n")
    assert err.count("\n") == 1


def test_a_misspelt_option_is_guessed(capsys):
    assert run("cardiac", "fit", "x.vtk", "--out", "o", "--trength", "3") == 2
    assert "unrecognized arguments: --trength 3 (did you mean --strength?); see" in capsys.readouterr().err


def unknown(words):
    at = next(i for i, word in enumerate(words) if word in ("--fizz", "--unk"))
    return words[at : at + (1 if words[at + 1 : at + 2] in ((), ("demo",)) else 2)]


@pytest.fixture(scope="module")
def heart(tmp_path_factory) -> dict[str, str]:
    """A sheet with fibres, a wave of 0.6 m/s along x seen at two thirds of its nodes; `late` is the same on half of it, slower."""
    home = tmp_path_factory.mktemp("heart")
    flat, _ = shapes.rectangle((24.0, 15.0), 1.5)
    lat = flat.points[:, 0] / 0.6 + 5.0
    random = np.random.default_rng(0)
    seen = np.where(random.random(len(lat)) < 0.67, lat + 0.5 * random.standard_normal(len(lat)), np.nan)
    fibres = np.tile([1.0, 0.3, 0.0] / np.sqrt(1.09), (len(flat.cells), 1))
    late = np.where(random.random(len(lat)) < 0.5, 1.5 * seen, np.nan)
    mesh = Mesh(flat.points, flat.cells, {"LAT": seen, "late": late}, {"fibres": fibres}, {}, fibres, "RAS", "heart")
    (home / "times.txt").write_text("0\n1\n")
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    OutputFolder(home).write_volume("reference.nii.gz", np.ones((8, 5, 1)), Grid((8, 5, 1), affine, 1, 1))
    write_movie(home / "movie.nii.gz", np.zeros((6, 6, 1, 5)), Grid((6, 6, 1), affine, 1, 1), 1.0, "tu")
    paths = {
        "movie": home / "movie.nii.gz",
        "mesh": write(mesh, home / "heart.vtu"),
        "times": home / "times.txt",
        "reference": home / "reference.nii.gz",
    }
    return {name: str(path) for name, path in paths.items()}


def test_simulate_across_fibres(heart, tmp_path, capsys):
    """A wave from one corner: slower across the fibres. On a rectangle there are none."""
    last = []
    for name, extra in (("a", ()), ("b", ("--across", "0.2"))):
        call = ("cardiac", "simulate", heart["mesh"], "--duration", "80", "--protocol", "point", "--at", "0,0,0", "--D", "1.2", *extra)
        assert run(*call, "--out", tmp_path / name) == 0
        last.append(json.loads((tmp_path / name / TRUTH).read_text())["LAT"]["last"])
    assert last[1] > last[0] + 0.5
    assert run("cardiac", "simulate", *SMALL, "--across", "0.02", "--out", tmp_path) == 2
    assert "the mesh has no fibres" in capsys.readouterr().err


QUICK = ("--strength", "3")


@pytest.fixture(scope="module")
def fitted(heart, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("fitted")
    assert run("cardiac", "fit", heart["mesh"], "--out", out, *QUICK) == 0
    return written(out)


@pytest.mark.parametrize("flag", FIT)
def test_flag_of_fit(flag, heart, fitted, tmp_path):
    standing, values, file = FIT[flag]
    quick = () if flag == "--strength" else QUICK
    assert run("cardiac", "fit", heart["mesh"], "--out", tmp_path, *quick, *standing, flag, *(v.format(**heart) for v in values)) == 0
    assert written(tmp_path)[file] != fitted[file]


@pytest.mark.parametrize("flag", REFUSED)
def test_flag_of_fit_that_this_input_cannot_have(flag, heart, tmp_path, capsys):
    values, line = REFUSED[flag]
    assert run("cardiac", "fit", heart["mesh"], "--out", tmp_path, flag, *(v.format(**heart) for v in values)) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_progress_of_fit(heart, tmp_path, capsys):
    assert run("cardiac", "fit", heart["mesh"], "--out", tmp_path, *QUICK, "--progress", "json") == 0
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {one["stage"] for one in told} == {"read", "fit", "write"}
    done = [one["done"] for one in told if one["stage"] == "fit"]
    assert (done[0], done[-1]) == (0, 1)


def test_maps_of_fit_are_finite(heart, fitted, tmp_path: Path):
    for name, content in fitted.items():
        if name.endswith(".nii.gz"):
            (tmp_path / name).write_bytes(content)
            assert np.isfinite(nib.load(tmp_path / name).get_fdata()).all(), name
