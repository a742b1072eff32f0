"""Field networks against data: D comes back though W is never seen, weak equations let D fall, modes of a mesh, and the door."""

import json

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import protocols, shapes
from pinn_engine.cardiac.cycles import Guess
from pinn_engine.cardiac.mapfit import Samples
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.network.inverse import Settings, fit_fields
from pinn_engine.cardiac.network.places import box, mesh_modes
from pinn_engine.cardiac.network.windows import InverseProblem, Observed, Points, Windows
from pinn_engine.cardiac.numbers import with_floor
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.state_fit import fit_state
from pinn_engine.cli import main
from pinn_engine.core import MLP
from pinn_engine.files.movie import write_movie

MODEL, D, LENGTH = AlievPanfilov(), 0.1, 3.0


@pytest.fixture(scope="module")
def strip():
    """A front along 3 mm of a strip, 3 TU: places on the cable, samples of V, the truth, the mesh and its nodes."""
    mesh, _ = shapes.rectangle((LENGTH, 0.05), 0.05)
    run = simulate(mesh, D, protocols.planar(mesh, MODEL, D), duration=3.0, frame_step=0.25, keep_W=True)
    along = np.flatnonzero(mesh.points[:, 1] == 0.0)
    V = run.V[along]
    random = np.random.default_rng(0)
    node, frame = np.nonzero(random.random(V.shape) < 0.6)
    value = V[node, frame] + 0.05 * random.standard_normal(len(node))
    x = mesh.points[along, 0]
    places = box(x[:, None], np.zeros(1), np.array([LENGTH]), 4)
    data = Observed(torch.as_tensor(node), torch.as_tensor(run.times[frame]), torch.as_tensor(value), 0.05)
    return places, data, V, run, mesh, along


SMALL = Settings(width=8, window=1.5, strengths=(1.0, 30.0, 1000.0), steps=12, points=500, warm_up=100, worse=2.0)


def test_D_comes_back_from_twice_off_and_the_fields_with_it(strip):
    places, data, V, run, *_ = strip
    found = fit_fields(places, data, MODEL, 0.05, sd=0.05, settings=SMALL)
    assert found.values["D"] == pytest.approx(D, rel=0.15)
    assert abs(found.values["D"] - D) < 3 * found.std["D"]
    fitted, _ = found.fields(run.times)
    assert np.sqrt(np.mean((fitted - V) ** 2)) < 0.03
    assert found.windows.count == 2
    weak = fit_fields(places, data, MODEL, 0.05, sd=0.05, settings=Settings(**{**SMALL.__dict__, "strengths": (0.01, 0.01, 0.01)}))
    assert abs(np.log(weak.values["D"] / D)) > 2 * abs(np.log(found.values["D"] / D))  # without the equations D is anything


def test_runs_from_the_networks_state_refine_D(strip):
    """From a state as networks leave it (late by half a front, W a fifth too small) and a D 30 % low."""
    _, data, _, run, mesh, along = strip
    node, column = along[data.node.numpy()], data.time
    one = torch.ones(len(node), dtype=torch.float64)
    samples = Samples(torch.arange(len(node)), torch.as_tensor(node), one, data.value.double(), 0.05 * one, column.double())
    V0, W0 = np.clip(run.V[:, 0] - 0.05, 0.0, 1.0).astype(float), 0.8 * run.W[:, 0].astype(float)
    begin = Guess(V0, W0, np.zeros(len(V0)), np.nan, 0.05**2, 0.07)
    found = fit_state(mesh, samples, run.times, MODEL, sd=0.05, begin=begin)
    assert pytest.approx(D, rel=0.05) == found.D
    assert abs(found.D - D) < 3 * with_floor(found.solution.covariance[0].numpy(), ("D",), found.D)[0, 0] ** 0.5
    assert found.noise == pytest.approx(0.05, rel=0.1)


def test_rows_know_their_slopes():
    places = box(np.linspace(0, 3, 30)[:, None], np.zeros(1), np.array([3.0]), 2)
    windows = Windows(places, MLP((3, 4, 2)), (0.0, 1.0, 2.0, 3.0))
    generator = torch.Generator().manual_seed(0)
    time = 3.0 * torch.rand(20, generator=generator, dtype=torch.float64)
    node = torch.randint(0, 30, (20,), generator=generator)
    data = Observed(node, time, torch.rand(20, generator=generator, dtype=torch.float64), 0.1)
    problem = InverseProblem(windows, MODEL, data, Points(node, time), 2.0, ("D", "a", "b"))
    theta = 0.5 * torch.randn(problem.weights + 3, generator=generator, dtype=torch.float64)
    theta[-2:] = torch.tensor([0.02, 0.2])
    _, gradient, matrix = problem.normal(theta)
    step = 1e-6 * torch.eye(len(theta), dtype=torch.float64)
    found = torch.tensor([(problem.cost(theta + s) - problem.cost(theta - s)) / 2e-6 for s in step], dtype=torch.float64)
    torch.testing.assert_close(gradient, found, rtol=1e-4, atol=1e-4 * float(found.abs().max()))
    size = windows.network.size
    assert float(matrix[:size, 2 * size : 3 * size].abs().max()) == 0.0  # windows that do not touch share no row


def test_modes_of_a_sphere():
    """l (l + 1) / R^2 with multiplicity 2 l + 1, and gradients whose mean square is the eigenvalue."""
    mesh = shapes.sphere(2.0, 3)
    places = mesh_modes(mesh, 15)
    value = -(places.jets[-1] / places.jets[0]).median(dim=0).values
    torch.testing.assert_close(value, torch.tensor([2.0] * 3 + [6.0] * 5 + [12.0] * 7, dtype=torch.float64) / 4.0, rtol=0.03, atol=0)
    square = (places.jets[2:5] ** 2).sum(dim=0).mean(dim=0)
    torch.testing.assert_close(square, value, rtol=0.1, atol=0)
    assert float(places.jets[1].abs().max()) == 0.0


def test_the_door(tmp_path, monkeypatch, capsys):
    """--method network writes D, V and W, and says so; where it cannot be, one line."""
    from pinn_engine.cardiac import from_network

    quick = Settings(width=6, window=3.0, strengths=(1.0, 100.0), steps=4, points=300, warm_up=30)
    monkeypatch.setattr(from_network, "Settings", lambda seed=0: quick)
    mesh, grid = shapes.rectangle((2.4, 1.2), 0.2)
    run = simulate(mesh, D, protocols.planar(mesh, MODEL, D), duration=5.0, frame_step=0.5)
    write_movie(tmp_path / "x_movie.nii.gz", run.V.reshape(*grid.shape, -1), grid, 0.5, "tu")
    call = ["cardiac", "fit", str(tmp_path / "x_movie.nii.gz"), "--time-unit", "tu", "--method", "network", "--out", str(tmp_path / "o")]
    assert main(call) == 0
    table = json.loads((tmp_path / "o" / "x_parameters.json").read_text())
    assert "networks" in table["parameters"]["D"]["status"]
    assert table["parameters"]["D"]["value"] == pytest.approx(D, rel=0.1)
    assert any("then refined by runs" in note for note in table["Notes"])
    for name in ("V", "W"):
        assert (tmp_path / "o" / f"x_desc-fit_{name}.nii.gz").exists()
    assert main([*call, "--map", "D"]) == 2
    assert "not a map of D" in capsys.readouterr().err


def test_uneven_frames_are_not_refined_and_it_is_said():
    from pinn_engine.cardiac import from_network
    from pinn_engine.cardiac.read import from_mesh
    from pinn_engine.cardiac.units import TimeUnit

    mesh, _ = shapes.rectangle((2.4, 1.2), 0.2)
    run = simulate(mesh, D, protocols.planar(mesh, MODEL, D), duration=5.0, frame_step=0.25)
    frames = [0, 1, 3, 4, 7, 8, 12, 15, 20]
    data = from_mesh(mesh, TimeUnit("tu"), V=run.V[:, frames].astype(float), times=run.times[frames])
    quick = Settings(width=6, window=3.0, strengths=(1.0, 100.0), steps=4, points=300, warm_up=30)
    found = from_network.fit_network(data, MODEL, ("D",), 0.05, 0, lambda stage, done: None, settings=quick)
    assert "then by runs" not in found.parameters["D"].status
    assert found.parameters["D"].std > 0.14 * found.parameters["D"].value
    assert any("not evenly spaced" in note for note in found.notes)
