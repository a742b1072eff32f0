"""The cardiac bundle: movies and meshes, the same bytes as the command line's, the network whose forward is the fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import HEART, config, run_bundle, written
from monai.bundle import ConfigWorkflow, run_workflow

from pinn_engine import cli
from pinn_engine.bundle import HeartNetwork, MovieSampling, Settings
from pinn_engine.bundle.settings import options
from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.phantom import observe_V
from pinn_engine.cardiac.run_simulate import simulate_to
from pinn_engine.files import nifti
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.movie import read_movie, write_movie
from pinn_engine.files.vtkmesh import write

GIVEN = {"time_unit": "tu", "strength": 0.4, "noise": 0.05}
FLAGS = ["--map", "D", "--time-unit", "tu", "--strength", "0.4", "--noise", "0.05"]


@pytest.fixture(scope="module")
def hearts(tmp_path_factory) -> Path:
    """A movie with its truth beside it, and a mesh in a folder of its own."""
    folder = tmp_path_factory.mktemp("hearts")
    files = simulate_to(folder / "one" / "truth", rectangle=(6.0, 4.0), spacing=0.25, duration=20.0, time_unit="tu", tissue="scar")
    movie = read_movie(files["movie"])
    V = observe_V(movie.V.reshape(-1, movie.V.shape[3]), 0.3, 0.05, 0).reshape(movie.V.shape)
    write_movie(folder / "one" / "small_movie.nii.gz", V, movie.grid, movie.step, "tu")
    mesh, _ = shapes.rectangle((6.0, 6.0), 0.25)
    LAT = mesh.points[:, 0] / float(AlievPanfilov().speed(0.1)) + np.random.default_rng(0).normal(0, 0.1, len(mesh.points))
    (folder / "atria").mkdir()
    write(Mesh(mesh.points, mesh.cells, {"LAT": LAT}), folder / "atria" / "left.vtp")
    return folder


@pytest.fixture(scope="module")
def fitted(hearts, tmp_path_factory) -> Path:
    """The bundle's run of the movie, with errors against the truth."""
    out = tmp_path_factory.mktemp("out")
    assert run_bundle(HEART, "inference", "evaluate", dataset_dir=hearts, output_dir=out, **GIVEN) == 0
    return out


def test_a_movie_gives_the_command_lines_bytes(hearts, fitted, tmp_path):
    assert cli.main(["cardiac", "fit", str(hearts / "one" / "small_movie.nii.gz"), "--out", str(tmp_path), *FLAGS]) == 0
    assert written(fitted / "one") == written(tmp_path)
    assert json.loads((fitted / "logs" / "run.json").read_text())["done"] == ["one/small"]


def test_errors_against_the_truth(fitted):
    with open(fitted / "accuracy.tsv") as stream:
        rows = {row["region"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert set(rows) == {"healthy", "scar"}
    assert float(rows["healthy"]["median_relative_error"]) < 0.1
    assert 0 <= float(rows["scar"]["dice"]) <= 1


def test_forward_is_the_fit(hearts, fitted):
    """The dataset's item through inferer and network, under inference_mode, is what the run wrote."""
    workflow = ConfigWorkflow(config(HEART), logging_file=False, workflow_type="infer", dataset_dir=str(hearts), **GIVEN)
    workflow.initialize()
    item = workflow.dataset[0]
    assert item["acquisition"] == MovieSampling((0.25, 0.25, 0.25), 1.0, 0.0)
    with torch.inference_mode():
        found = workflow.inferer(item["image"][None], workflow.network_def, acquisition=item["acquisition"])
    names = [f"{prefix}{key}" for prefix in ("", "desc-std_") for key in ("D", "CV", "LAT")]
    maps = np.stack([nifti.read(fitted / "one" / f"small_{name}.nii.gz")[0] for name in names])
    np.testing.assert_allclose(found[0].numpy(), maps, rtol=1e-5)
    np.testing.assert_allclose(found.affine.reshape(-1, 4, 4)[0], read_movie(hearts / "one" / "small_movie.nii.gz").grid.affine)


def test_meshes_by_the_second_config(hearts, tmp_path):
    given = {"time_unit": "tu", "strength": 0.4, "spacing": 0.5}
    assert run_bundle(HEART, "inference_mesh", dataset_dir=hearts, output_dir=tmp_path / "bundle", **given) == 0
    flags = ["--map", "D", "--time-unit", "tu", "--strength", "0.4", "--spacing", "0.5"]
    assert cli.main(["cardiac", "fit", str(hearts / "atria" / "left.vtp"), "--out", str(tmp_path / "cli"), *flags]) == 0
    assert written(tmp_path / "bundle" / "atria") == written(tmp_path / "cli")


def test_a_broken_heart_is_reported_and_the_rest_is_done(hearts, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.vtp").write_text("nothing")
    (tmp_path / "data" / "b.vtp").write_bytes((hearts / "atria" / "left.vtp").read_bytes())
    with pytest.raises(SystemExit, match="3"):
        run_workflow(
            "pinn_engine.bundle.HeartWorkflow",
            dataset_dir=str(tmp_path / "data"),
            output_dir=str(tmp_path / "out"),
            pattern="*.vtp",
            time_unit="tu",
            strength=0.4,
            spacing=1,
        )
    assert "error: a: " in capsys.readouterr().err
    assert (tmp_path / "out" / "b_cardiac.vtp").is_file()


WRONG = {
    "no heart": ({"dataset_dir": "{here}"}, "holds no heart"),
    "nowhere": ({"dataset_dir": "nowhere"}, "error: nowhere: does not exist"),
    "key": ({"paramters": "a=.02"}, "did you mean parameters?"),
    "device": ({"device": "tpu", "time_unit": "tu"}, None),
}


@pytest.mark.parametrize(("given", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call(given, says, hearts, tmp_path, capsys):
    given = {key: str(value).format(here=tmp_path) for key, value in given.items()}
    code = run_bundle(HEART, **({"dataset_dir": hearts, "output_dir": tmp_path / "out"} | given))
    assert code == (2 if says else 3)
    assert (says or "--device") in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused(hearts, tmp_path, capsys):
    for suffix in (".vtp", ".vtu"):
        (tmp_path / f"left{suffix}").write_bytes((hearts / "atria" / "left.vtp").read_bytes())
    assert run_bundle(HEART, "inference_mesh", dataset_dir=tmp_path, output_dir=tmp_path / "out") == 2
    assert "two inputs have one name, found left.vtp and left.vtu" in capsys.readouterr().err


def test_results_inside_the_dataset_are_no_inputs(hearts, tmp_path):
    from pinn_engine.bundle import Subjects

    for name in ("a_movie.nii.gz", "truth/simulation_movie.nii.gz", "out/b_movie.nii.gz", "left_cardiac.vtp", "left.vtp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    given = {"dataset_dir": tmp_path, "output_dir": tmp_path / "out"}
    assert [one["id"] for one in Subjects(Settings("cardiac", given))] == ["a"]
    assert [one["id"] for one in Subjects(Settings("cardiac", given | {"pattern": ["*.vtp", "*.vtu"]}))] == ["left"]


def test_constants_reach_the_fit():
    task = Settings("cardiac", {"parameters": "a=0.02,mu1=0.1", "across": 0.5}).task
    assert (task.fit["model"].a, task.fit["model"].mu1, task.fit["across"]) == (0.02, 0.1, 0.5)
    assert {"parameters", "across", "time_unit", "reference", "spacing"} <= set(options("cardiac"))
    assert not {"out", "input", "rectangle"} & set(options("cardiac"))


def test_two_movies_and_one_that_cannot_be_fitted():
    """A front over 8 x 8 voxels of 0.5 mm, a frame every 0.5 TU, at 0.6 mm/TU (0.048 m/s)."""
    network = HeartNetwork({"map": "D", "strength": 1.0, "noise": 0.05})
    arrival = 2 + torch.arange(8) * 0.5 / 0.6
    front = torch.sigmoid((torch.arange(20)[:, None] * 0.5 - arrival) / 0.35)[:, :, None, None].expand(20, 8, 8, 1)
    movies = torch.stack([front, torch.full_like(front, torch.nan)])
    with pytest.warns(UserWarning, match="image 1 of the batch was not fitted"):
        found = network(movies)
    assert found.shape == (2, 6, 8, 8, 1)
    assert found[0, 0].min() > 0
    assert found[0, 1].median() == pytest.approx(0.6 / 12.9, rel=0.1)
    assert not found[1].any()


def test_the_reference_sampling_is_in_the_buffers(monkeypatch):
    network = HeartNetwork()
    assert network.reference().step == pytest.approx(6.45)
    assert HeartNetwork({"time_unit": "tu"}).reference() == MovieSampling((0.5, 0.5, 0.5), 0.5)
    state = torch.load(HEART / "models" / "model.pt", weights_only=True)
    assert list(state) == list(network.state_dict())
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    network.load_state_dict(state, strict=True)
    network.step *= 2
    assert network.reference().step == pytest.approx(12.9)
