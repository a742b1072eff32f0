"""The simulator against exact fronts and an independent solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, elsewhere
from scipy.integrate import solve_ivp

from pinn_engine.cardiac import phantom, protocols, shapes
from pinn_engine.cardiac.fem import Diffusion, elements, stiffness, tensors
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.simulate import Start, Stepper, Stimulus, activation_time, simulate
from pinn_engine.errors import InputError

MODEL = AlievPanfilov()
FRONT_ONLY = AlievPanfilov(eps=0.0, mu1=0.0)  # W stays 0: the front is exact


def cable(h: float, D: float, fronts: float = 60.0) -> shapes.Mesh:
    return shapes.grid_mesh((round(fronts * float(MODEL.front_scale(D)) / h), 2), h)[0]


@pytest.mark.parametrize("D", [0.02, 0.1, 1.0, 15.6])
@pytest.mark.parametrize("share", [0.15, 0.3])
def test_speed_within_one_percent_of_the_closed_form(D, share):
    mesh = cable(share * np.sqrt(8.0 * D / MODEL.k), D)
    sim = simulate(mesh, D, protocols.planar(mesh, MODEL, D), duration=22.0, frame_step=1.0)
    x = mesh.points[:, 0]
    seen = (x > 0.4 * x.max()) & (x < 0.7 * x.max())
    speed = 1.0 / np.polyfit(x[seen], sim.LAT[seen], 1)[0]
    assert speed == pytest.approx(MODEL.speed(D), rel=0.01)


@pytest.mark.parametrize("what", ["space and time", "time"])
def test_second_order(what):
    """Error against the exact front: a quarter when h and the step are halved together; and when the step alone is halved."""
    D, errors = 0.1, []
    for level in range(3):
        h, step = (0.1 / 2**level, 0.1 / 2**level) if what != "time" else (0.1, 0.2 / 2**level)
        mesh = cable(h, D, 40.0)
        start = protocols.planar(mesh, FRONT_ONLY, D)
        options = {"duration": 4.0, "frame_step": 4.0, "model": FRONT_ONLY}
        sim = simulate(mesh, D, start, max_step=step, **options)
        s, c = FRONT_ONLY.front_scale(D), FRONT_ONLY.speed(D)
        if what == "time":
            truth = simulate(mesh, D, start, max_step=0.005, **options).end.V
        else:
            truth = 1.0 / (1.0 + np.exp((mesh.points[:, 0] - c * 4.0) / s - 5.0))
        errors.append(np.sqrt(np.mean((sim.end.V - truth)[mesh.points[:, 0] > 1.0] ** 2)))  # the left end feels the wall
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders[-1] == pytest.approx(2.0, abs=0.2), (errors, orders)


@pytest.mark.parametrize("make", [lambda: shapes.ellipsoid((2.0, 2.0, 3.0), 3), lambda: shapes.rectangle((2.0, 2.0, 1.0), 0.25)[0]])
def test_diffusion_loses_nothing(make):
    mesh = make()
    element = elements(mesh)
    operator = stiffness(element, tensors(element, Diffusion(0.5)))
    stepper = Stepper(AlievPanfilov(k=0.0, eps=0.0, mu1=0.0), operator, 0.05)
    V = torch.as_tensor(np.random.default_rng(0).random(len(mesh.points)))
    total = float((operator.mass * V).sum())
    after = V
    for number in range(20):
        after, _ = stepper(after, torch.zeros_like(V), number)
    assert float((operator.mass * after).sum()) == pytest.approx(total, rel=1e-12)
    assert float(after.std()) < float(V.std())


def reference(n: int, h: float, D: np.ndarray, V0: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Finite differences, mirrored edges, D averaged on faces, scipy's LSODA-grade integrator: nothing shared with the simulator."""

    def rates(_: float, y: np.ndarray) -> np.ndarray:
        V, W = y.reshape(2, n, n)
        flow = np.zeros((n, n))
        for axis in (0, 1):
            flux = 0.5 * (np.take(D, range(n - 1), axis) + np.take(D, range(1, n), axis)) * np.diff(V, axis=axis) / h
            width = np.where(np.isin(np.arange(n), (0, n - 1)), 0.5 * h, h)
            edge = [(0, 0), (0, 0)]
            edge[axis] = (1, 1)
            flow += np.diff(np.pad(flux, edge), axis=axis) / (width[:, None] if axis == 0 else width[None, :])
        V_t = flow - 8 * V * (V - 0.01) * (V - 1) - V * W
        return np.concatenate([V_t.ravel(), ((0.002 + 0.2 * W / (V + 0.3)) * (-W - 8 * V * (V - 1.15))).ravel()])

    y0 = np.concatenate([V0.ravel(), np.zeros(n * n)])
    return solve_ivp(rates, (0, times[-1]), y0, t_eval=times, rtol=1e-7, atol=1e-8, method="RK45").y[: n * n]


@pytest.mark.parametrize(("scar", "rms", "late"), [(0.1, 0.002, 0.02), (0.02, 0.01, 0.2)])
def test_against_an_independent_solver(scar, rms, late):
    """A corner wave on 25 x 25 nodes against scipy: even tissue alike; with a scar the two treat its edge differently."""
    case = phantom.rectangle_case(phantom.scar_map((2.4, 2.4, 0.0), 0.9, scar=scar), 4.8, 0.2)
    sim = phantom.run(case, 12.0, frame_step=1.0, max_step=0.025)
    truth = reference(25, 0.2, case.D.reshape(25, 25), case.start.V.reshape(25, 25), sim.times)
    assert np.sqrt(np.mean((sim.V - truth) ** 2)) < rms
    lat = activation_time(sim.V, sim.times), activation_time(truth, sim.times)
    assert np.nanmax(np.abs(lat[0] - lat[1])) < late


def test_activation_time_of_frames():
    times = np.array([0.0, 1.0, 2.0, 3.0])
    V = np.array([[0.0, 0.4, 0.6, 0.2], [0.9, 0.1, 0.9, 0.9], [0.0, 0.1, 0.2, 0.3], [0.0, 0.5, 0.1, 0.9]])
    np.testing.assert_allclose(activation_time(V, times), [1.5, 0.0, np.nan, 1.0])


def test_activation_time_of_a_run_agrees_with_its_frames():
    mesh = cable(0.1, 0.1)
    sim = simulate(mesh, 0.1, protocols.planar(mesh, MODEL, 0.1), duration=10.0, frame_step=0.1)
    late = activation_time(sim.V, sim.times)
    np.testing.assert_allclose(sim.LAT, late, atol=2e-3)
    assert np.isnan(sim.LAT).any()  # not reached in 10 TU
    assert (sim.LAT[mesh.points[:, 0] < 0.5] == 0.0).all()


def test_speed_along_and_across_fibres():
    """Planar waves along and across the fibres of a sheet turned in space: speeds go with the root of D."""
    flat, _ = shapes.rectangle((24.0, 0.6), 0.3)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    speed = []
    for fibre, D in (([1.0, 0.0, 0.0], 2.0), ([0.0, 1.0, 0.0], 0.5)):
        mesh = shapes.Mesh(flat.points @ turn.T, flat.cells, fibres=np.tile(turn @ fibre, (len(flat.cells), 1)))
        sim = simulate(mesh, Diffusion(2.0, 0.5), protocols.planar(flat, MODEL, D), duration=16.0)
        lat = sim.LAT.reshape(81, 3)[:, 1]
        speed.append((50 - 30) * 0.3 / (lat[50] - lat[30]))
    np.testing.assert_allclose(speed, [MODEL.speed(2.0), MODEL.speed(0.5)], rtol=0.02)


def test_runs_at_once_equal_runs_alone():
    mesh = cable(0.1, 0.1, 30.0)
    start = protocols.planar(mesh, MODEL, 0.1)
    model = AlievPanfilov(a=torch.tensor([0.01, 0.05]), b=torch.tensor([0.15, 0.2]))
    together = simulate(mesh, 0.1, start, duration=8.0, model=model, D_factor=[1.0, 1.5], keep_W=True)
    assert together.V.shape == (2, len(mesh.points), 33)
    for i, (a, b, factor) in enumerate([(0.01, 0.15, 1.0), (0.05, 0.2, 1.5)]):
        alone = simulate(mesh, 0.1 * factor, start, duration=8.0, model=AlievPanfilov(a=a, b=b), keep_W=True)
        np.testing.assert_allclose(together.V[i], alone.V, atol=1e-3)  # the stage count differs
        np.testing.assert_allclose(together.W[i], alone.W, atol=1e-3)
        np.testing.assert_allclose(together.LAT[i], alone.LAT, atol=1e-3)


def test_going_on_from_the_end():
    mesh = cable(0.1, 0.1, 30.0)
    start = protocols.planar(mesh, MODEL, 0.1)
    whole = simulate(mesh, 0.1, start, duration=6.0)
    half = simulate(mesh, 0.1, start, duration=3.0)
    np.testing.assert_allclose(simulate(mesh, 0.1, half.end, duration=3.0).end.V, whole.end.V, atol=1e-12)


def test_step_is_differentiable():
    """d V / d D through two steps, against a difference quotient."""
    mesh, _ = shapes.rectangle((1.0, 1.0), 0.25)
    element = elements(mesh)
    V = torch.as_tensor(np.random.default_rng(0).random(element.nodes))

    def last(factor: torch.Tensor) -> torch.Tensor:
        stepper = Stepper(MODEL, operator, 0.05, factor=factor)
        v, w = stepper(V, 0.1 * V, 0)
        return stepper(v, w, 1)[0].square().sum()

    operator = stiffness(element, tensors(element, Diffusion(0.1)))
    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(last(factor), factor)
    with torch.no_grad():
        assert float(slope) == pytest.approx(float(last(factor + 1e-5) - last(factor - 1e-5)) / 2e-5, rel=1e-6)


def test_stimulus_is_exact_in_time():
    """Without diffusion to speak of and reaction: V grows by strength x duration, however the steps fall."""
    mesh, _ = shapes.rectangle((1.0, 1.0), 0.25)
    still = AlievPanfilov(k=0.0, eps=0.0, mu1=0.0)
    stimulus = Stimulus(np.ones(len(mesh.points), bool), start=0.33, duration=0.777, strength=0.4)
    sim = simulate(mesh, 0.1, Start(stimuli=(stimulus,)), duration=2.0, model=still)
    np.testing.assert_allclose(sim.end.V, 0.4 * 0.777, rtol=1e-12)


def test_spiral_keeps_turning():
    """S1-S2 on 10 x 10 mm (h = 0.2): excited and resting tissue side by side at 120 TU; every quarter has been active in the last turn."""
    mesh, _ = shapes.rectangle((10.0, 10.0), 0.2)
    sim = simulate(mesh, 0.1, protocols.spiral(mesh, MODEL, 0.1), duration=120.0, frame_step=2.0, max_step=0.1)
    late = sim.V[:, -18:]
    assert (late[:, -1].max() > 0.8) & (late[:, -1].min() < 0.1)
    assert (late.max(axis=1) > 0.8).mean() > 0.9


def test_reentry_on_a_hollow_ball():
    ball = shapes.hollow_ball(4.0, 5.0, 3, 3)
    sim = simulate(ball, 0.02, protocols.reentry(ball, MODEL), duration=80.0, frame_step=4.0, max_step=0.1)
    assert sim.V[:, -1].max() > 0.8
    assert sim.V[:, -1].min() < 0.1


def test_break_up_starts_many_wavelets():
    mesh, grid = shapes.rectangle((20.0, 20.0), 0.4)
    start = protocols.break_up(mesh, MODEL, 8.0, seed=1)
    assert np.array_equal(start.V, protocols.break_up(mesh, MODEL, 8.0, seed=1).V)
    edges = np.abs(np.diff((start.V.reshape(grid.shape[:2]) > 0.5).astype(int), axis=0)).sum()
    assert edges > 100  # several fronts
    late = simulate(mesh, 0.1, start, duration=80.0, frame_step=2.0, max_step=0.2).V[:, -12:]  # TU 58-80: more than one turn
    assert (late.max(axis=1) > 0.7).mean() > 0.95  # all tissue still fires
    excited = (late > 0.5).mean(axis=0)
    assert (excited.min() > 0.05) & (excited.max() < 0.95)  # never all at once


def test_paced_fires_twice():
    mesh = cable(0.2, 0.1)
    sim = simulate(mesh, 0.1, protocols.paced(mesh, MODEL, 0.1), duration=90.0, frame_step=1.0, max_step=0.1)
    V = sim.V[np.argmin(np.abs(mesh.points[:, 0] - 4.0))]
    assert int(((V[:-1] < 0.5) & (V[1:] >= 0.5)).sum()) == 2


def test_paced_takes_period_place_and_number_of_beats():
    mesh, _ = shapes.rectangle((4.0, 2.0), 0.2)
    assert len(protocols.paced(mesh, MODEL, 0.1).stimuli) == 1
    start = protocols.paced(mesh, MODEL, 0.1, period=50.0, beats=4, at=np.array([4.0, 2.0, 0.0]))
    assert [each.start for each in start.stimuli] == [50.0, 100.0, 150.0]
    np.testing.assert_array_equal(start.V, protocols.point(mesh, MODEL, 0.1, len(mesh.points) - 1).V)
    assert all(np.array_equal(each.nodes, start.V > 0.5) for each in start.stimuli)


def test_a_point_start_ignites_on_a_surface():
    case = phantom.surface_case(level=4)
    assert len(case.mesh.points) == 2562
    sim = phantom.run(case, 20.0)
    assert np.isfinite(sim.LAT).all()
    far = sim.LAT[np.argmin(case.mesh.points[:, 2])]
    assert far == pytest.approx(sim.LAT.max(), rel=0.05)  # the other pole comes last


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_single_precision_and_gpu_agree(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    mesh = cable(0.1, 0.1, 30.0)
    start = protocols.planar(mesh, MODEL, 0.1)
    a = simulate(mesh, 0.1, start, duration=8.0)
    b = simulate(mesh, 0.1, start, duration=8.0, dtype=torch.float32, device=device)
    np.testing.assert_allclose(b.LAT, a.LAT, atol=1e-3)


def test_it_runs_on_another_device():
    """Shown on any machine by a device that is not there; one number is read back a burst of steps, not a step."""
    mesh, _ = shapes.rectangle((3.0, 3.0), 0.25)
    start = protocols.planar(mesh, MODEL, 0.1)
    a = simulate(mesh, 0.1, start, duration=8.0)
    with elsewhere() as reads:
        b = simulate(mesh, 0.1, start, duration=8.0, device=DEVICE)
    np.testing.assert_allclose(b.LAT, a.LAT, atol=1e-6)
    assert 0 < len(reads) < 60


BAD = {
    "no time": ({"duration": 0.0}, "the duration must be positive"),
    "frames": ({"duration": 1.0, "frame_step": 2.0}, "longer than the run"),
    "memory": ({"duration": 1e9, "frame_step": 0.01}, "would not fit in memory"),
    "start": ({"duration": 1.0, "start": Start(V=np.zeros(3))}, "does not fit the mesh"),
    "nan": ({"duration": 1.0, "start": Start(V=np.nan)}, "is not finite"),
    "D": ({"duration": 1.0, "D": 1e7}, "stable step would need more than"),
    "stimulus": ({"duration": 1.0, "start": Start(stimuli=(Stimulus(np.zeros(25, bool)),))}, "touches no node"),
    "blow-up": ({"duration": 5.0, "start": Start(V=500.0)}, "left the model's range"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_runs(name):
    options, words = BAD[name]
    mesh, _ = shapes.rectangle((1.0, 1.0), 0.25)
    options = {"start": Start(), "D": 0.1, **options}
    with pytest.raises(InputError, match=words):
        simulate(mesh, options.pop("D"), options.pop("start"), **options)
