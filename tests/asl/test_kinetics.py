"""The kinetic models: published numbers, and closed form = differential equation = supply per interval, each held against the others."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pinn_engine.asl.kinetics import Continuous, Pulsed, Simplified, apparent_t1, kinetics, weak_residual

T1B = 1.65


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# reference/asl.md 2.9: M0 of tissue 1, lambda 0.9, T1b 1.65; T1' with the true f.
# (model, T1t, f, alpha, ATT, tau) -> {PLD or TI: difference}
GOLDEN = [
    (
        (Continuous, 1.33, 60, 0.85, 1.0, 1.8),
        {0.25: 7.443450e-3, 0.5: 8.496004e-3, 1.0: 1.008450e-2, 1.8: 5.477270e-3, 2.5: 3.210778e-3},
    ),
    ((Continuous, 0.83, 20, 0.85, 1.4, 1.8), {0.5: 1.478601e-3, 1.8: 1.219104e-3, 2.5: 5.231694e-4}),
    ((Pulsed, 1.33, 60, 0.98, 0.7, 0.8), {0.5: 0.0, 1.0: 3.481313e-3, 1.5: 6.596506e-3, 1.8: 5.246929e-3, 2.5: 3.075752e-3}),
]


@pytest.mark.parametrize(("case", "values"), GOLDEN)
def test_golden_values(case, values):
    kind, t1, f, alpha, att, tau = case
    model = kind(1 / (1 / t1 + f / 6000 / 0.9))
    times = t(*values) + (tau if kind is Continuous else 0.0)
    signal, _ = model.closed_form(times, t(tau), t(att), t(T1B))
    np.testing.assert_allclose(2 * alpha * f / 6000 / 0.9 * signal, list(values.values()), rtol=3.5e-7, atol=1e-15)  # the digits given


def test_the_linear_model_takes_one_outflow_for_all():
    """f0 = 0.01 /s: right for f = 60, and off by less than 1 % in the signal of f = 20."""
    assert apparent_t1(1.33, 0.9) == pytest.approx(1 / (1 / 1.33 + 0.01 / 0.9))
    model = kinetics("PCASL", "buxton", 0.83, 0.9)
    signal = model.closed_form(t(2.3, 3.6, 4.3), t(1.8), t(1.4), t(T1B))[0]
    ratio = 2 * 0.85 * 20 / 6000 / 0.9 * signal / t(1.478601e-3, 1.219104e-3, 5.231694e-4)
    assert bool(((ratio > 0.985) & (ratio < 1)).all())


MODELS = {
    "pcasl": Continuous(1.2),
    "pcasl, long T1": Continuous(3.0),
    "pasl": Pulsed(1.2),
    "pasl, T1' = T1b": Pulsed(T1B),
    "pasl, T1' > T1b": Pulsed(2.4),
    "simplified": Simplified(),
}
TIMING = [(1.8, 1.0), (0.6, 0.3), (1.4, 0.0), (0.8, 2.2)]  # tau, ATT
GRID = torch.linspace(0.0, 4.5, 91, dtype=torch.float64)


def ode(model, tau: float, att: float) -> np.ndarray:
    """S on GRID by scipy, integrated from kink to kink."""
    stops = sorted({0.0, att, att + tau, 4.5})
    found, state = np.zeros(len(GRID)), 0.0
    for a, b in pairwise(stops):

        def rate(x, s, a=a, b=b):
            return model.rate(t(np.clip(x, a + 1e-9, b - 1e-9)), t(*s), t(tau), t(att), t(T1B)).numpy()  # strictly between the kinks

        run = solve_ivp(rate, (a, b), [state], dense_output=True, rtol=1e-10, atol=1e-13, max_step=0.1)
        inside = (GRID.numpy() > a) & (GRID.numpy() <= b)
        found[inside], state = run.sol(GRID.numpy()[inside])[0], run.y[0][-1]
    return found


@pytest.mark.parametrize(("tau", "att"), TIMING)
@pytest.mark.parametrize("name", MODELS)
def test_the_closed_form_solves_the_differential_equation(name, tau, att):
    signal, _ = MODELS[name].closed_form(GRID, t(tau), t(att), t(T1B))
    np.testing.assert_allclose(signal, ode(MODELS[name], tau, att), atol=2e-8)


@pytest.mark.parametrize(("tau", "att"), TIMING)
@pytest.mark.parametrize("name", MODELS)
def test_supply_is_the_integral_of_the_delivery(name, tau, att):
    edges = torch.linspace(0, 4.5, 24, dtype=torch.float64)
    supply, _ = MODELS[name].supply(edges[:-1], edges[1:], t(tau), t(att), t(T1B))
    cells = 20000
    fine = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    for j in range(23):
        x = edges[j] + (edges[j + 1] - edges[j]) * fine
        expected = float(MODELS[name].delivery(x, t(tau), t(att), t(T1B)).mean() * (edges[j + 1] - edges[j]))
        assert float(supply[j]) == pytest.approx(expected, abs=3e-5)


def test_supply_adds_up():
    """Splitting intervals anywhere changes nothing: nothing is lost or counted twice at edges, kinks on edges included."""
    for model in MODELS.values():
        whole = model.supply(t(0.0), t(4.0), t(1.8), t(1.0), t(T1B))[0]
        for cut in (1.0, 1.00001, 2.8, 0.5, 3.9):
            parts = sum(model.supply(a, b, t(1.8), t(1.0), t(T1B))[0] for a, b in ((t(0.0), t(cut)), (t(cut), t(4.0))))
            torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)


POINTS = [(a, b) for a in (0.31, 0.77, 1.52) for b in (1.2, 1.65, 2.1)]  # ATT, T1b: away from the kinks of TIMES
TIMES = torch.linspace(0.05, 4.45, 23, dtype=torch.float64)


@pytest.mark.parametrize("call", ["closed_form", "supply"])
@pytest.mark.parametrize("name", MODELS)
def test_derivatives_against_finite_differences(name, call):
    def value(att, t1b):
        model, tau = MODELS[name], t(0.83)
        if call == "closed_form":
            return model.closed_form(TIMES, tau, t(att), t(t1b))
        return model.supply(TIMES[:-1], TIMES[1:], tau, t(att), t(t1b))

    for att, t1b in POINTS:
        slopes, h = value(att, t1b)[1], 1e-6
        for key, (up, down) in {
            "att": (value(att + h, t1b), value(att - h, t1b)),
            "t1b": (value(att, t1b + h), value(att, t1b - h)),
        }.items():
            torch.testing.assert_close(slopes[key], (up[0] - down[0]) / (2 * h), rtol=1e-5, atol=2e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7, 1e-4, 1e-2])
def test_pasl_is_exact_where_tissue_and_blood_relax_alike(apart, dtype):
    """T1' = T1b is 0/0 in the usual form. There S = clip(t - ATT, 0, tau) exp(-t/T1b)."""
    times, tau, att, t1b = (x.to(dtype) for x in (GRID, t(0.8), t(0.7), t(T1B)))
    signal, slopes = Pulsed(T1B * (1 + apart)).closed_form(times, tau, att, t1b)
    exact = (GRID - 0.7).clamp(0, 0.8) * torch.exp(-GRID / T1B)
    np.testing.assert_allclose(signal.double(), exact, rtol=2.5 * apart + 10 * torch.finfo(dtype).eps, atol=1e-7)
    assert all(bool(slope.isfinite().all()) for slope in slopes.values())


def test_simplified_is_pasl_with_the_relaxation_of_blood():
    for tau, att in TIMING:
        simplified, by_simplified = Simplified().closed_form(GRID, t(tau), t(att), t(T1B))
        pulsed, by_pulsed = Pulsed(T1B).closed_form(GRID, t(tau), t(att), t(T1B))
        torch.testing.assert_close(simplified, pulsed, rtol=1e-12, atol=1e-15)
        away = ((GRID - att).abs() > 1e-9) & ((GRID - att - tau).abs() > 1e-9)
        torch.testing.assert_close(by_simplified["att"][away], by_pulsed["att"][away], rtol=1e-9, atol=1e-12)


def test_simplified_is_the_tutorial_s_equation():
    """reference/asl.md 2.8, piece by piece."""
    tau, att = 0.6, 0.5
    x = GRID[GRID > 0]
    rate = Simplified().rate(x, torch.zeros_like(x), t(tau), t(att), t(T1B))
    decay = torch.exp(-x / T1B)
    pieces = torch.where(x < att + tau, decay * (1 - (x - att) / T1B), -decay * tau / T1B) * (x > att)
    away = ((x - att).abs() > 1e-9) & ((x - att - tau).abs() > 1e-9)
    torch.testing.assert_close(rate[away], pieces[away], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", MODELS)
def test_the_equation_in_integral_form_vanishes_at_second_order(name):
    """The trapezium rule is all that separates the solution's weak residual from 0: a quarter at each halving."""
    model, worst = MODELS[name], []
    for pieces in (60, 120, 240):
        edges = torch.linspace(0, 3, pieces + 1, dtype=torch.float64)
        signal, _ = model.closed_form(edges, t(0.8), t(0.7), t(T1B))
        rows = weak_residual(model, edges, 45 * signal, t(45.0), t(0.8), t(0.7), t(T1B))
        worst.append(float(rows.abs().sum()))
        assert rows.shape == (pieces,)
    if name == "simplified":  # no S on the right: exact
        assert max(worst) < 1e-12
    else:
        assert worst[0] < 0.01 * float(45 * signal.max())
        assert worst[0] / worst[1] == pytest.approx(4, rel=0.1)
        assert worst[1] / worst[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_another_curve_is_no_solution(name):
    model = MODELS[name]
    signal, _ = model.closed_form(GRID, t(0.8), t(0.75), t(T1B))
    away = weak_residual(model, GRID, signal, t(1.0), t(0.8), t(0.7), t(T1B))
    right = weak_residual(model, GRID, signal, t(1.0), t(0.8), t(0.75), t(T1B))
    assert float(away.abs().max()) > 0.02
    assert float(right.abs().max()) < 1e-4


def test_which_model():
    assert isinstance(kinetics("PCASL", "buxton", 1.33, 0.9), Continuous)
    assert isinstance(kinetics("CASL", "buxton", 1.33, 0.9), Continuous)
    assert isinstance(kinetics("PASL", "buxton", 1.33, 0.9), Pulsed)
    assert isinstance(kinetics("PASL", "simplified", 1.33, 0.9), Simplified)
    assert kinetics("PASL", "buxton", 1.33, 0.9).t1_apparent == apparent_t1(1.33, 0.9)


def test_arguments_broadcast():
    """Voxels by times, with T1' one a voxel."""
    att, t1 = t(0.5, 0.9, 1.4).unsqueeze(1), t(1.0, 1.2, 1.5).unsqueeze(1)
    for kind in (Continuous, Pulsed):
        together, slopes = kind(t1).closed_form(GRID, t(0.8), att, t(T1B))
        for b in range(3):
            alone, own = kind(float(t1[b])).closed_form(GRID, t(0.8), att[b], t(T1B))
            torch.testing.assert_close(together[b], alone)
            torch.testing.assert_close(slopes["att"][b], own["att"])
