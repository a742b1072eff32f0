"""Waves that come back: recognised, and D found from sparse noisy V though neither V nor W is known at the first frame."""

import json

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import phantom, protocols, reentry, shapes, state_fit
from pinn_engine.cardiac.cycles import cycles, guess
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.mapfit import Samples
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.numbers import with_floor
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.reentry import fires_again
from pinn_engine.cardiac.simulate import simulate
from pinn_engine.cardiac.starts import laplacian
from pinn_engine.cardiac.state_fit import Smooth, Window, conjugate, window_sizes
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files.movie import write_movie

MODEL = AlievPanfilov()
TU = TimeUnit("tu")


@pytest.fixture(scope="module")
def spiral():
    """60 to 76 TU of a turning spiral, 8 x 8 mm: simulated every 0.2 mm, seen every 0.4 mm."""
    mesh, grid = shapes.rectangle((8.0, 8.0), 0.2)
    run = simulate(mesh, 0.1, protocols.spiral(mesh, MODEL, 0.1), duration=76.0, frame_step=1.0, max_step=0.2, keep_W=True)
    coarse, small = shapes.rectangle((8.0, 8.0), 0.4)
    V, W = (x.reshape(*grid.shape[:2], -1)[::2, ::2, 60:].reshape(len(coarse.points), -1) for x in (run.V, run.W))
    return coarse, small, V, W, run.times[60:] - run.times[60]


def samples(mesh, V, times, share=0.6, noise=0.1) -> Samples:
    return from_mesh(mesh, TU, V=phantom.observe_V(V, share, noise, 0).astype(float), times=times).samples(noise)


def test_a_spiral_fires_again_and_one_beat_does_not(spiral):
    mesh, _, V, _, times = spiral
    assert fires_again(elements(mesh), samples(mesh, V, times)) > 0.05
    for D in (0.1, phantom.scar_map((4.0, 4.0, 0.0))(mesh.points)):
        beat = simulate(mesh, D, protocols.point(mesh, MODEL, 0.1, 0, 1.5), duration=60.0, frame_step=1.0, max_step=0.1)
        for share in (0.05, 0.6):
            assert fires_again(elements(mesh), samples(mesh, beat.V, beat.times, share)) == 0.0


def test_two_paced_beats_and_break_up_fire_again():
    for size, protocol in ((10.0, lambda m: protocols.paced(m, MODEL, 0.1)), (20.0, lambda m: protocols.break_up(m, MODEL, 10.0, seed=1))):
        mesh, _ = shapes.rectangle((size, size), 0.4)
        start = protocol(mesh)
        run = simulate(mesh, 0.1, start, duration=75.0, frame_step=1.0, max_step=0.2)
        assert fires_again(elements(mesh), samples(mesh, run.V, run.times)) > 0.5


def test_cycles_are_cycles():
    short, long = cycles(MODEL, (20.0, 60.0))
    for one in (short, long):
        assert one.at(np.array([5.0]))[0] == pytest.approx(one.at(np.array([5.0 + 3 * one.period]))[0])
        assert one.V.max() > 0.85
        np.testing.assert_allclose(one.at(np.array([0.0]))[0], 0.5, atol=0.12)
    assert (short.V > 0.5).sum() < 0.7 * (long.V > 0.5).sum()  # restitution: a soon excited cell's action potential is short


def test_the_guess_finds_state_and_size_of_D(spiral):
    mesh, _, V, W, times = spiral
    found = guess(elements(mesh), samples(mesh, V, times), times, mesh.points, MODEL)
    assert 17.0 < found.period < 23.0
    assert np.sqrt(np.mean((found.V - V[:, 0]) ** 2)) < 0.12 < 0.3 < V[:, 0].std()
    assert np.sqrt(np.mean((found.W - W[:, 0]) ** 2)) < 0.85 * W[:, 0].std()
    assert 0.05 < found.D < 0.2


def test_smooth_fields_have_the_variance_asked_for_and_a_transpose():
    mesh, _ = shapes.rectangle((8.0, 8.0), 0.25)
    K, mass = laplacian(elements(mesh))
    field = Smooth(K, mass, 2, 0.3, 0.8)
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(len(mass), 400, dtype=torch.float64, generator=random) for _ in range(2))
    inner = np.all((mesh.points[:, :2] > 2.5) & (mesh.points[:, :2] < 5.5), axis=1)
    assert float(field(x)[inner].std()) == pytest.approx(0.3, rel=0.05)
    np.testing.assert_allclose((field(x) * y).sum(0), (x * field.transpose(y)).sum(0), rtol=1e-9)


def test_window_reads_and_spreads(spiral):
    mesh, _, V, _, times = spiral
    window = Window.first(samples(mesh, V, times, noise=0.0), times, 6, len(mesh.points))
    frames = torch.from_numpy(V[:, :6].T.astype(float))[..., None]
    np.testing.assert_allclose(window.seen(frames)[:, 0], window.data.value, atol=1e-6)
    r = torch.randn(len(window.data.value), 1, dtype=torch.float64)
    assert float((window.seen(frames) * r).sum()) == pytest.approx(float((frames * window.spread(r)).sum()))
    assert window_sizes(np.arange(21.0))[-1] == 21


def test_conjugate_gradients_on_several_right_sides():
    A = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64)) + 0.1
    b = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(A @ conjugate(lambda x: A @ x, b, 60, 1e-8), b, atol=1e-6)


def test_a_map_of_a_spiral_is_refused(spiral):
    mesh, _, V, _, times = spiral
    with pytest.raises(InputError, match="fires more than once"):
        fit(from_mesh(mesh, TU, V=phantom.observe_V(V, 0.2, 0.1, 0).astype(float), times=times), map=("D",))


@pytest.fixture(scope="module")
def fitted(spiral):
    mesh, _, V, _, times = spiral
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_fit, "STEP", 0.25)  # TU: quicker
        patch.setattr(state_fit, "FIRST_WINDOW", 20.0)
        return state_fit.fit_state(mesh, samples(mesh, V, times), times, MODEL)


def test_scatter_and_a_fit_that_misses_it(spiral):
    """A fit that is right says nothing; one whose waves stand elsewhere does not come without a warning."""
    mesh, _, V, _, times = spiral
    data = from_mesh(mesh, TU, V=phantom.observe_V(V[:, :10], 0.6, 0.1, 0).astype(float), times=times[:10])
    assert 0.09 < reentry.local_noise(elements(mesh), data.samples(0.1)) < 0.2  # moving fronts add to the noise of 0.1
    assert reentry.misfit_note(data, V[:, :10]) == ()
    (note,) = reentry.misfit_note(data, V[:, 9::-1])
    assert "do not trust" in note


def test_D_of_a_spiral(spiral, fitted):
    """Noise 0.1, state unknown, another grid's truth: D within 3 %, the unseen V and W come back."""
    _, _, V, W, _ = spiral
    assert abs(fitted.D - 0.1) < 0.003
    assert abs(fitted.D - 0.1) < 3.0 * with_floor(fitted.solution.covariance[0].numpy(), ("D",), fitted.D)[0, 0] ** 0.5
    assert fitted.noise == pytest.approx(0.1, rel=0.08)
    assert fitted.slowing < 0.95  # without the grid's correction D is more than 5 % high
    assert np.sqrt(np.mean((fitted.V - V) ** 2)) < 0.04
    assert np.sqrt(np.mean((fitted.W - W) ** 2)) < 0.25


def test_files_of_a_spiral(spiral, fitted, tmp_path, monkeypatch):
    """The command line takes this fit for a movie of a spiral, says so, and writes D, CV, V and W."""
    _, grid, V, _, _ = spiral
    monkeypatch.setattr(reentry, "fit_state", lambda *given, **options: fitted)
    write_movie(tmp_path / "s_movie.nii.gz", phantom.observe_V(V, 0.6, 0.1, 0).reshape(*grid.shape, -1), grid, 1.0, "tu")
    out = tmp_path / "o"
    assert main(["cardiac", "fit", str(tmp_path / "s_movie.nii.gz"), "--time-unit", "tu", "--out", str(out)]) == 0
    table = json.loads((out / "s_parameters.json").read_text())
    assert table["parameters"]["D"]["value"] == pytest.approx(fitted.D)
    assert any("fires more than once" in note for note in table["Notes"])
    assert {"s_D.nii.gz", "s_CV.nii.gz", "s_desc-fit_V.nii.gz", "s_desc-fit_W.nii.gz", "s_report.html"} <= {f.name for f in out.iterdir()}
    assert not list(out.glob("*LAT*"))  # there is no single activation time
