"""Intervals end at the data times of every slice and label duration; the equation's rows and the network against the closed form."""

import numpy as np
import pytest
import torch

from pinn_engine.asl.collocation import collocate, reduced_network
from pinn_engine.asl.kinetics import Continuous, Pulsed, weak_residual
from pinn_engine.core import eliminate_output_layer


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


CASES = {  # times, label durations, slice delays, spacing
    "one duration": (t(2.05, 2.3, 2.8, 3.3, 3.8, 4.3), t(1.8).expand(6), t(0.0), 0.075),
    "slices": (t(2.05, 2.3, 3.3), t(1.8).expand(3), t(0.0, 0.04, 0.31, 0.355), 0.1),
    "a duration for each delay": (t(1.4, 2.1, 2.1, 3.4), t(1.0, 1.4, 1.0, 1.8), t(0.0, 0.5), 0.2),
    "unsorted, repeated": (t(3.0, 1.0, 2.0, 1.0), t(0.8).expand(4), t(0.0), 0.15),
    "closer than the spacing": (t(0.5, 0.52, 0.54), t(0.8).expand(3), t(0.0), 0.2),
    "one delay": (t(3.6), t(1.8), t(0.0), 0.5),
}


@pytest.mark.parametrize(("times", "duration", "delays", "spacing"), CASES.values(), ids=CASES.keys())
def test_intervals(times, duration, delays, spacing):
    c = collocate(times, duration, delays, spacing)
    groups, edges, intervals = len(delays), c.edges.shape[1], len(c.low)
    assert c.edges.dtype == torch.float64
    assert c.widths.shape == (groups, intervals)
    assert float(c.widths.min()) > 0
    assert float(c.widths.max()) <= spacing + 1e-12
    torch.testing.assert_close(c.edges[:, c.at_data], times + delays.unsqueeze(1))  # data times are edges
    assert not c.edges[:, c.first].any()  # every curve starts at 0
    assert edges == intervals + len(c.first)
    curves = duration.unique()
    assert len(c.first) == len(curves)
    for k, tau in enumerate(curves):
        own, mine = c.tau == tau, duration == tau
        torch.testing.assert_close(c.widths[:, own].sum(dim=1), times[mine].max() + delays)  # intervals fill the time, once
        assert bool((torch.isin(c.at_data[mine], c.high[own])).all())  # data lie on the curve of their own label duration
        assert int(c.low[own].min()) == int(c.first[k])
    assert bool((c.high == c.low + 1).all())


def test_rows_are_the_weak_residual_over_the_root_of_the_width():
    times, duration, delays, spacing = CASES["a duration for each delay"]
    c, model = collocate(times, duration, delays, spacing), Continuous(1.2)
    for g in range(2):
        curve = torch.rand(c.edges.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        rows = c.equation_rows(g, model.loss_rate) @ curve
        supply = model.supply(c.edges[g, c.low], c.edges[g, c.high], c.tau, t(0.7), t(1.65))[0]
        for tau in duration.unique():
            own = c.tau == tau
            index = torch.cat([c.low[own][:1], c.high[own]])
            expected = weak_residual(model, c.edges[g, index], curve[index], t(45.0), tau, t(0.7), t(1.65))
            torch.testing.assert_close((rows - 45 * supply / c.widths[g].sqrt())[own], expected / c.widths[g, own].sqrt())


def test_white_noise_in_the_rows_means_the_same_at_any_spacing():
    """The variance that equation rows of one sd allow at the data is the Ornstein-Uhlenbeck covariance, whatever the intervals."""
    times, rate = t(2.05, 2.3, 2.8, 3.3, 3.8, 4.3), 1 / 1.2
    apart, total = (times - times.unsqueeze(1)).abs(), times + times.unsqueeze(1)
    exact = ((-rate * apart).exp() - (-rate * total).exp()) / (2 * rate)
    for spacing, tolerance in ((0.3, 0.02), (0.075, 1e-3)):
        c = collocate(times, t(1.8).expand(6), t(0.0), spacing)
        net = reduced_network(c, 0, rate, torch.ones(6))
        back = torch.linalg.inv(net.rotation)
        torch.testing.assert_close(back.T @ torch.diag(net.spread) @ back, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("model", [Continuous(1.2), Pulsed(1.2)], ids=["pcasl", "pasl"])
@pytest.mark.parametrize("case", ["one duration", "slices", "a duration for each delay"])
def test_the_network_without_model_error_is_the_closed_form_at_second_order(case, model):
    times, duration, delays, _ = CASES[case]
    worst = []
    for spacing in (0.15, 0.075, 0.0375):
        c = collocate(times, duration, delays, spacing)
        errors = []
        for g in range(len(delays)):
            net = reduced_network(c, g, model.loss_rate, torch.full((len(times),), 3.0))
            for att in (0.45, 0.8, 1.3):
                supply = model.supply(c.edges[g, c.low], c.edges[g, c.high], c.tau, t(att), t(1.65))[0] / c.widths[g].sqrt()
                predicted = supply @ net.propagator @ torch.linalg.inv(net.rotation)
                exact = model.closed_form(times + delays[g], duration, t(att), t(1.65))[0]
                errors.append(float((predicted - exact).abs().max() / exact.max()))
        worst.append(np.mean(errors))
    assert worst[1] < 2e-3
    assert worst[0] / worst[2] > 6  # 16 at second order; intervals end at data times, so that they do not halve exactly


def test_the_features_make_every_curve_from_zero():
    """reduced_network against the same elimination with hat functions: any basis of the piecewise linear curves gives the same network."""
    times, duration, delays, spacing = CASES["a duration for each delay"]
    c, repeats = collocate(times, duration, delays, spacing), t(2, 2, 4, 1)
    net = reduced_network(c, 1, 0.8, repeats)
    keep = [e for e in range(c.edges.shape[1]) if e not in c.first.tolist()]  # values at all edges but the zeros
    hats = torch.eye(c.edges.shape[1], dtype=torch.float64)[:, keep]
    other = eliminate_output_layer(hats[c.at_data], c.equation_rows(1, 0.8) @ hats, repeats)
    torch.testing.assert_close(net.spread, other.spread, rtol=1e-8, atol=1e-12)
    predicted, expected = (n.propagator @ torch.linalg.inv(n.rotation) for n in (net, other))
    torch.testing.assert_close(predicted, expected, rtol=1e-8, atol=1e-10)
