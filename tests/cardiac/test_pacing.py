"""Records of several beats: which frames hold one, and that the W which beats leave behind matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pinn_engine.cardiac import pacing, phantom, protocols, shapes
from pinn_engine.cardiac.cycles import cycles
from pinn_engine.cardiac.fit import fit
from pinn_engine.cardiac.model import AlievPanfilov, parse_parameters
from pinn_engine.cardiac.read import HeartData, from_mesh, read
from pinn_engine.cardiac.simulate import Start, simulate
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files.grid import Grid
from pinn_engine.files.movie import read_movie, write_movie

MODEL, TU, PERIOD = AlievPanfilov(), TimeUnit("tu"), 60.0


@pytest.mark.parametrize(
    ("active", "found"),
    [
        ("..1111.....1111....", [(2, 10), (11, 18)]),
        ("1111....1111....111", [(8, 15)]),  # begins and ends amid a beat
        ("..1111.............", [(2, 10)]),
        ("..1111.11.....1111.", [(2, 13), (14, 18)]),  # one frame of rest is none
        ("..11x11......1111..", [(2, 12), (13, 18)]),  # nor is one without a sample
        ("1111111111111111111", []),
        ("...................", []),
    ],
)
def test_frames_of_whole_beats(active, found):
    times = 1.5 * np.arange(len(active))
    V = np.array([[1.0 if c == "1" else 0.01 for c in active]] * 3)
    V[1, ::2] = np.nan
    if "1" not in active:
        V[:] = 0.0
    V[:, [c == "x" for c in active]] = np.nan
    beats = pacing.whole_beats(V, times)
    assert [beat.first for beat in beats] == [begin for begin, _ in found]
    assert [beat.time for beat in beats] == [times[begin] for begin, _ in found]
    for beat, (_, most) in zip(beats, found, strict=True):
        assert beat.last <= most
        assert active[beat.last] == "."


@pytest.mark.parametrize("rest", [0.0, 0.05, 0.15])
def test_a_front_into_tissue_that_has_not_recovered_is_as_fast_as_the_formula_says(rest):
    """eps = mu1 = 0 keeps W where it is; 0.15 takes 6 % off the speed. h = 0.28 front scales, order 2: 1 %."""
    still = replace(MODEL, eps=0.0, mu1=0.0, rest=rest)
    strip, _ = shapes.rectangle((12.0, 0.1), 0.05)
    start = protocols.planar(strip, MODEL, 0.1)
    run = simulate(strip, 0.1, Start(V=start.V, W=np.full(len(strip.points), rest)), duration=20.0, model=still)
    x = strip.points[:, 0]
    near, far = (int(np.abs(x - at).argmin()) for at in (4.0, 8.0))
    assert (x[far] - x[near]) / (run.LAT[far] - run.LAT[near]) == pytest.approx(still.speed(0.1), rel=0.01)
    assert still.diffusivity(still.speed(0.1)) == pytest.approx(0.1)
    sides = [np.log(replace(still, a=MODEL.a + by).speed(0.1)) for by in (-1e-4, 1e-4)]
    assert still.log_speed_by_a == pytest.approx((sides[1] - sides[0]) / 2e-4, rel=1e-5)


@pytest.fixture(scope="module")
def paced() -> tuple[HeartData, np.ndarray]:
    """Three beats from a corner round a scar, on a grid of 0.12 mm; 5 % of V, noise .1."""
    mesh, _ = shapes.rectangle((7.2, 7.2), 0.12)
    D = phantom.scar_map((3.6, 3.6, 0.0), 1.4)(mesh.points)
    start = protocols.paced(mesh, MODEL, 0.1, at=0, period=PERIOD, beats=3)
    run = simulate(mesh, D, start, duration=3 * PERIOD - 1, frame_step=1.0)
    return from_mesh(mesh, TU, V=phantom.observe_V(run.V, 0.05, 0.1, 3).astype(float), times=run.times), D


def healthy_error(fitted, D: np.ndarray) -> float:
    return float(np.median(np.abs(fitted.maps["D"].value / D - 1)[D > 0.09]))


def test_the_last_of_three_beats_gives_the_map(paced):
    """With W = 0 ahead of it, as of a first beat, the same frames give healthy tissue twice the error.

    The truth's coarse grid is 4 % slow.
    """
    data, D = paced
    found = fit(data, map=("D",))
    assert healthy_error(found, D) < 0.08
    scar = D < 0.05
    slow = found.maps["D"].value < 0.05
    assert 2 * np.sum(scar & slow) / (scar.sum() + slow.sum()) > 0.9
    assert any("3 whole beats" in note for note in found.data.notes)
    assert found.settings["model"]["rest"] == pytest.approx(float(cycles(MODEL, (PERIOD,))[0].at(np.array(-1.0))[1]), rel=0.05)
    cut = replace(data, V=found.data.V, times=found.data.times)
    assert healthy_error(fit(cut, map=("D",)), D) > 2 * healthy_error(found, D)


def test_a_window_of_the_record(tmp_path, capsys):
    """Only its frames are read; what is fitted to them begins when they do."""
    mesh, grid = shapes.rectangle((4.0, 2.0), 0.2)
    run = simulate(mesh, 0.1, protocols.planar(mesh, MODEL, 0.1), duration=40.0, frame_step=1.0)
    V = (run.V + np.random.default_rng(0).normal(0, 0.02, run.V.shape)).reshape(*grid.shape, -1)
    movie = tmp_path / "beat_movie.nii.gz"
    write_movie(movie, V, Grid(grid.shape, grid.affine), 1.0, "tu", start=5.0)
    data = read(movie, time_unit="tu", window=(8.0, 30.0))
    assert data.times.tolist() == list(range(8, 31))
    np.testing.assert_array_equal(data.V, read(movie, time_unit="tu").V[:, 3:26])
    words = ["cardiac", "fit", str(movie), "--time-unit", "tu", "--out", str(tmp_path / "o"), "--window", "8,30"]
    assert main(words) == 0
    assert read_movie(tmp_path / "o" / "beat_desc-fit_V.nii.gz").times.tolist() == list(range(8, 31))
    assert main([*words[:-1], "50,60"]) == 2
    assert "0 from 50 to 60; the record goes from 5 to 45 TU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words[:-1], "50"])
    assert "two times" in capsys.readouterr().err


def test_paced_beats_that_overlap_are_refused():
    """A wrong D came out before, with a mere note. The second stimulus comes at 36 TU, before the first beat has ended everywhere."""
    mesh, _ = shapes.rectangle((6.0, 1.0), 0.25)
    run = simulate(mesh, 0.1, protocols.paced(mesh, MODEL, 0.1, period=36.0), duration=55.0, frame_step=1.0, max_step=0.2)
    V = phantom.observe_V(run.V[:, 25:], 0.3, 0.1, 0).astype(float)
    data = from_mesh(mesh, TU, V=V, times=run.times[25:])
    assert not pacing.whole_beats(data.V, data.times)
    with pytest.raises(InputError, match=r"later waves do not follow .* up to 3\d of 55 TU explained"):
        fit(data)


def test_two_pieces_that_fire_one_after_the_other_are_one_beat():
    """Only where the same tissue fires again is the first beat left out."""
    mesh, _ = shapes.rectangle((4.0, 2.0), 0.2)
    times, x = np.arange(0.0, 120.0, 2.0), mesh.points[:, 0]
    one = np.where((times > 10) & (times < 40), 1.0, 0.0) * (x < 2.5)[:, None]
    two = np.where((times > 60) & (times < 90), 1.0, 0.0) * np.ones_like(x)[:, None]
    for late, cut in ((two * (x >= 2.5)[:, None], False), (two, True)):
        data = from_mesh(mesh, TU, V=one + late, times=times)
        assert len(pacing.whole_beats(data.V, times)) == 2
        assert (len(pacing.last_beat(data, MODEL)[0].times) < len(times)) == cut


def test_a_run_begins_with_the_rest_that_is_given(tmp_path):
    from pinn_engine.cardiac.run_simulate import simulate_to

    files = [
        simulate_to(tmp_path / name, rectangle=(4.0, 1.0), spacing=0.1, duration=12.0, time_unit="tu", parameters=parameters)
        for name, parameters in (("a", ()), ("b", ("rest=.1",)))
    ]
    V = [read_movie(each["movie"]).V for each in files]
    assert V[1].sum() < 0.98 * V[0].sum()  # slower and shorter


def test_rest_must_be_possible():
    assert parse_parameters(["rest=.05"]).rest == 0.05
    for impossible in ("rest=3", "rest=-.1", "rest=.3,k=1"):
        with pytest.raises(InputError, match="no wave travels into such tissue"):
            parse_parameters([impossible])
