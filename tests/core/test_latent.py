"""Expectation propagation against what can be worked out otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from pinn_engine.core.latent import Conditioned, Sites, propagate

V, F = 6, 2


def prior(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(F, V, V, generator=generator, dtype=torch.float64)
    return root @ root.mT + 0.5 * torch.eye(V, dtype=torch.float64), torch.randn(F, V, generator=generator, dtype=torch.float64)


def gaussian_factors(seed: int = 1):
    """y = x + noise at every node; what exact factors answer, and the pieces."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(V, F, generator=generator, dtype=torch.float64)
    root = torch.randn(V, F, F, generator=generator, dtype=torch.float64)
    noise = root @ root.mT + 0.3 * torch.eye(F, dtype=torch.float64)

    def factors(mean, covariance):
        total = covariance + noise
        gain = covariance @ torch.linalg.inv(total)
        away = (y - mean).unsqueeze(2)
        log_z = -0.5 * (away.mT @ torch.linalg.solve(total, away)).flatten() - 0.5 * torch.logdet(2 * math.pi * total)
        return log_z, mean + (gain @ away).squeeze(2), covariance - gain @ covariance

    return factors, y, noise


def test_gaussian_factors_give_the_exact_posterior_and_evidence():
    kernel, mean = prior()
    factors, y, noise = gaussian_factors()
    found = propagate(kernel, mean, factors, Sites.silent(V, F), damping=1.0)
    whole, errors = torch.block_diag(*kernel), torch.zeros(F * V, F * V, dtype=torch.float64)
    for v in range(V):
        at = torch.arange(F) * V + v
        errors[at.unsqueeze(1), at] = noise[v]
    total, away = whole + errors, (y.T - mean).flatten()
    exact = mean.flatten() + whole @ torch.linalg.solve(total, away)
    covariance = whole - whole @ torch.linalg.solve(total, whole)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(F * V, dtype=torch.float64), total).log_prob(away)
    assert torch.allclose(found.mean.T.flatten(), exact, atol=1e-9)
    assert torch.allclose(found.covariance[3, 0, 1], covariance[3, V + 3], atol=1e-9)
    assert torch.allclose(found.covariance[:, 1, 1], covariance.diagonal()[V:], atol=1e-9)
    assert float(found.log_evidence) == pytest.approx(float(evidence), abs=1e-6)


def test_the_answer_does_not_depend_on_the_sites_it_starts_from():
    """Factors with two modes and a nearby pair of voxels: ratio of exact two-dimensional sums as truth for the marginal of one."""
    kernel, mean = torch.tensor([[[1.0, 0.8], [0.8, 1.0]]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    grid = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    log_factor = torch.stack([torch.log(torch.exp(-2 * (grid - 1) ** 2) + 0.5 * torch.exp(-2 * (grid + 1) ** 2)), -((grid - 0.5) ** 2)])

    def factors(m, c):
        log_mass = log_factor - 0.5 * (grid - m) ** 2 / c[:, 0] - 0.5 * (2 * math.pi * c[:, 0]).log() + math.log(0.01)
        whole = log_mass.logsumexp(dim=1, keepdim=True)
        share = (log_mass - whole).exp()
        first = (share * grid).sum(dim=1, keepdim=True)
        return whole.squeeze(1), first, (share * (grid - first) ** 2).sum(dim=1)[:, None, None]

    precision = torch.linalg.inv(kernel[0])
    x, y = grid.unsqueeze(1), grid.unsqueeze(0)
    joint = (
        log_factor[0].unsqueeze(1) + log_factor[1] - 0.5 * (precision[0, 0] * x * x + 2 * precision[0, 1] * x * y + precision[1, 1] * y * y)
    )
    weight = (joint - joint.max()).exp()
    exact_mean = float((weight * x).sum() / weight.sum())
    exact = float(joint.logsumexp(dim=(0, 1))) + 2 * math.log(0.01) - float(torch.logdet(2 * math.pi * kernel[0])) / 2
    for start in (Sites.silent(2, 1), Sites(torch.full((2, 1, 1), 9.0).double(), torch.tensor([[-20.0], [20.0]]).double())):
        found = propagate(kernel, mean, factors, start, turns=100, tolerance=1e-6)
        assert float(found.mean[0, 0]) == pytest.approx(exact_mean, abs=0.02)
        assert float(found.log_evidence) == pytest.approx(exact, abs=0.03)


def test_the_normaliser_is_differentiable_by_the_prior():
    kernel, mean = prior()
    factors, _, _ = gaussian_factors()
    sites = propagate(kernel, mean, factors, Sites.silent(V, F)).sites
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    Conditioned(kernel * scale, mean, sites).log_normaliser.backward()
    step = 1e-5
    up, down = (float(Conditioned(kernel * s, mean, sites).log_normaliser) for s in (1 + step, 1 - step))
    assert float(scale.grad) == pytest.approx((up - down) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 40.0])  # sd of the prior, in units in which the data are sure to 1e-5
def test_evidence_and_mean_keep_their_digits_where_data_are_far_surer_than_the_prior(size):
    """Against the density of the sites' own means under the prior, whose logarithm has no large terms."""
    kernel, mean = prior(3)
    kernel = size**2 * kernel
    precision = torch.diag_embed(torch.full((V, F), 1e10, dtype=torch.float64))
    at = mean.T + 0.3 * torch.randn(V, F, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shift = (precision @ at.unsqueeze(2)).squeeze(2)
    found = Conditioned(kernel, mean, Sites(precision, shift))
    total = torch.block_diag(*kernel) + 1e-10 * torch.eye(F * V, dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(mean.flatten(), total).log_prob(at.T.flatten())
    whole = 0.5 * 1e10 * at.square().sum() + 0.5 * F * V * math.log(2 * math.pi / 1e10)
    assert float(found.log_normaliser - whole) == pytest.approx(float(evidence), abs=0.01)
    assert torch.allclose(found.mean(), at, atol=1e-8)
