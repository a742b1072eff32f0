"""Every technique changes the outcome as theory says: the cases of `python -m benchmarks.techniques`, cut short where they can be."""

import torch
from made_problems import normal

from benchmarks import technique_cases as cases
from pinn_engine.core import MLP, LevenbergMarquardt, Pinn, SkipMLP, Status, by_residual, causal, retain_resample_release, spread


def test_forward_mode_solves_a_batch_of_starts():
    errors = cases.forward_mode(0)
    assert errors["worst of three starts"] < 3e-3 < errors["a constant (0)"]


def test_inverse_mode_finds_the_parameter_and_its_spread():
    """Without the equation the data say nothing about D; the fit says so."""
    errors = cases.inverse_mode(0)
    assert abs(errors["fitted"]) < 3 * errors["fitted sd"] < 0.15
    problem = cases.inverse_problem(0, cases.FREE_D, strength=0.0)
    silent = LevenbergMarquardt(steps=3).solve(problem, problem.start(D=0.5))
    assert float(silent.values["D"]) == 0.5
    assert int(silent.status) == Status.UNDETERMINED


def test_more_weight_on_the_equation_means_less_on_the_data():
    misfit, residual = [], []
    for strength in (1.0, 1e3, 1e6):
        problem = cases.inverse_problem(0, cases.FREE_D, strength=strength)
        theta = LevenbergMarquardt(steps=25).solve(problem, problem.start(D=0.5)).theta
        misfit.append(float((problem.block("data", theta)[0] ** 2).sum()))
        residual.append(float((problem.block("equation", theta)[0] ** 2).sum()))
    assert misfit == sorted(misfit)
    assert residual == sorted(residual, reverse=True)


def test_adaptive_weights_let_adam_see_the_conditions():
    errors = cases.adaptive_weights(0, 90)
    assert errors["gradient norm"] < 0.5 * errors["equal weights"]
    assert errors["tangent kernel"] < 0.5 * errors["equal weights"]


def test_hard_conditions_hold_exactly():
    errors = cases.conditions(0)
    assert errors["hard, at the ends"] < 1e-14 < 1e-4 < errors["soft, at the ends"]
    assert errors["hard"] < errors["soft"]


def test_refined_points_find_a_thin_front():
    errors = cases.refinement(1)
    assert errors["RAD"] < 0.1 * errors["even"]
    assert errors["R3"] < 0.3 * errors["even"]


def test_refinement_draws_where_the_residual_is():
    points = spread(*cases.HEAT, 4000)
    size = torch.exp(-(((points[:, 1] - 0.3) / 0.02) ** 2))
    near = lambda p: float(((p[:, 1] - 0.3).abs() < 0.04).double().mean())  # noqa: E731
    generator = cases.rng(0)
    assert near(points) < 0.1
    assert near(by_residual(points, size, 500, generator)) > 0.3
    assert near(by_residual(points, size, 500, generator, floor=1e3)) < 0.12  # a large floor is even
    kept = retain_resample_release(points[:400], size[:400], points[400:800])
    worst = points[:400][size[:400] > size[:400].mean()]
    torch.testing.assert_close(kept[: len(worst)], worst)
    torch.testing.assert_close(kept[len(worst) :], points[400 : 800 - len(worst)])


def test_fourier_features_beat_the_spectral_bias():
    errors = cases.fourier(0)
    for name in ("harmonics 1-10 of half the range", "random features, sd 20"):
        assert errors[name] < 0.3 * errors["time alone"], name
    assert errors["random features, sd 1"] > 0.5 * errors["time alone"]  # features too slow are no features


def test_skips_keep_the_gradient_of_the_first_layer():
    layers = (2, *[10] * 24, 1)
    share = {}
    for name, network in {"none": MLP(layers), "plain": SkipMLP(layers), "adaptive": SkipMLP(layers, adaptive=True)}.items():
        problem = cases.heat_problem(hard=True, points=60, network=network)
        row, slope = problem.block("equation", problem.start())
        gradient = (slope[0].T @ row[0]).abs()
        share[name] = float(gradient[:20].norm() / gradient[network.size - 11 - 24 :].norm())
    assert share["plain"] > 10 * share["none"]
    assert share["adaptive"] > 10 * share["none"]


def test_an_adaptive_skip_starts_as_a_network_of_one_layer():
    deep, shallow = SkipMLP((2, 8, 8, 8, 1), adaptive=True), MLP((2, 8, 1))
    weights = deep.glorot(1, cases.rng(0), dtype=torch.float64)[0]
    assert not weights[deep.plain.size :].any()
    own = torch.cat([weights[:24], weights[deep.plain.size - 9 : deep.plain.size]])
    inputs = normal(3, 4, 7, 2)
    from pinn_engine.core import jets

    torch.testing.assert_close(deep.forward(weights, inputs).output, jets.forward(shallow, own, inputs).output)


def test_normalised_quantities_of_order_one_can_be_fitted():
    errors = cases.normalisation(0)
    assert errors["inputs and output"] < 0.02 * errors["inputs alone"]
    assert errors["inputs and output"] < 0.02 * errors["neither"]


def test_smooth_activations_solve_a_second_order_equation():
    errors = cases.activations(0)
    assert max(errors.values()) < 2e-3


def test_a_falling_rate_comes_to_rest():
    errors = cases.schedule(0)
    assert errors["falling to a hundredth"] < 0.5 * errors["constant rate"]


def test_a_mini_batch_stands_for_all():
    """Its gradient is right on average, and a share of it is another each time."""
    problem = cases.inverse_problem(0, cases.FREE_D, points=300)
    theta = problem.start(D=0.5)
    generator = cases.rng(0)

    def gradient(q: Pinn) -> torch.Tensor:
        x = theta.clone().requires_grad_(True)
        (0.5 * q.residual(x).square().sum()).backward()
        return x.grad[0]

    drawn = torch.stack([gradient(problem.minibatch(10, generator)) for _ in range(150)])
    whole = gradient(problem)
    away = (drawn.mean(dim=0) - whole).norm() / whole.norm()
    assert float(away) < 0.1 < 0.15 < float((drawn[0] - whole).norm() / whole.norm())


def test_second_order_goes_where_adam_does_not():
    problem = cases.heat_problem(hard=False, points=100)
    start = problem.start()
    warm = cases.Adam(100, 1e-2).solve(problem, start)
    more = cases.Adam(250, 1e-2).solve(problem, start)
    quasi = cases.LBFGS(80).solve(problem, warm.theta)
    newton = LevenbergMarquardt(steps=25).solve(problem, start)
    assert float(quasi.cost) < 0.1 * float(more.cost)
    assert float(newton.cost) < 0.1 * float(more.cost)
    assert quasi.history["cost"] == sorted(quasi.history["cost"], reverse=True)


def test_glorot_keeps_signals_the_same_size_through_the_layers():
    network = MLP((30, *[30] * 6, 1))
    spread_of = {}
    for name, uniform in {"normal": False, "uniform": True}.items():
        weights = network.glorot(40, cases.rng(0), uniform=uniform, dtype=torch.float64)
        first = network.unpack(weights)[0][0]
        torch.testing.assert_close(float(first.var()), 2 / 60, rtol=0.03, atol=0.0)
        assert (float(first.abs().max()) <= 0.1**0.5) == uniform
        for scale in (0.1, 1.0):
            a = 0.3 * normal(1, 40, 50, 30)
            for matrix, _ in network.unpack(scale * weights)[:-1]:
                a = torch.tanh(a @ matrix)
            spread_of[name, scale] = float(a.std())
        assert spread_of[name, 1.0] > 0.1
        assert spread_of[name, 0.1] < 1e-5


def test_causal_weights_wait_for_the_past():
    time = torch.linspace(0, 1, 100, dtype=torch.float64)
    early, late = (time < 0.3).double(), (time > 0.7).double()
    assert float(causal(time, early, 100.0, 10)[-1]) < 1e-6  # what comes later waits
    assert float(causal(time, late, 100.0, 10)[:70].min()) == 1.0
    assert float(causal(time, 0 * time, 100.0, 10).min()) == 1.0


def test_causal_weights_and_windows_reach_where_one_sweep_does_not():
    assert cases.in_windows(1, 5) < 0.05
    errors = cases.causality(1)
    assert errors["causal weights"] < 0.05 < 0.5 < errors["all times at once"]


def test_unknown_parameters_in_equation_and_condition():
    errors = cases.unknown_parameters(1)
    for name, sd in (("D", "sd of D"), ("amplitude", "sd of the amplitude")):
        assert abs(errors[name]) < 3 * errors[sd] < 0.1


def test_identifiability_says_what_the_data_cannot_tell():
    product = cases.identified(0, known=False)
    assert int(product.status) == Status.UNDETERMINED
    assert "a and b" in product.verdict()
    known = cases.identified(0, known=True)
    assert float(known.condition) < 1e-3 * float(product.condition)
    assert float(known.values["a"] * known.values["b"]) / cases.D - 1 < 0.2
    cost = cases.profile(0, torch.tensor([0.6, 1.0, 1.6], dtype=torch.float64))
    assert float(cost[1]) < min(float(cost[0]), float(cost[2])) - 2  # D itself has a profile with a minimum
