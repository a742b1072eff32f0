"""The joint smooth fit against dense algebra, and what it promises about strength and intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pinn_engine.core import smooth_fit
from pinn_engine.core.coarse import CoarseSpace, hats
from pinn_engine.core.roughness import Roughness, grid_neighbours
from pinn_engine.core.smooth_fit import Posterior, SmoothSettings, edge_weights, fit_smooth

SHAPE, SPACING = (7, 6, 5), torch.tensor([2.0, 2.0, 3.0])


def problem(seed: int = 0, tissues: int = 1):
    """A small anisotropic grid with random edges, information and strength: two families of as many fields as `tissues`."""
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[0, 0] = False
    graph = grid_neighbours(mask, SPACING)
    g = torch.Generator().manual_seed(seed)
    weight = graph.factor * (0.1 + torch.rand(2, len(graph.first), generator=g))
    root = torch.randn(2 * tissues, 2, graph.count, generator=g)
    information = torch.einsum("fkv,gkv->fgv", root, root)
    strength = (1 + 9 * torch.rand(2 * tissues, generator=g)) * 5
    coarse = CoarseSpace(hats(torch.nonzero(mask) * SPACING / SPACING.min()))
    return graph, Roughness(graph, weight, 0.05, coarse), information, strength


def dense(post: Posterior) -> torch.Tensor:
    """(F V, F V) float64, column by column."""
    f, _, v = post.information.shape
    return post.apply(torch.eye(f * v).reshape(f, v, f * v)).reshape(f * v, f * v).double()


def test_neighbours_are_those_at_faces_and_edges_weighed_by_length():
    graph = grid_neighbours(torch.ones((3, 3, 3), dtype=torch.bool), SPACING)
    of_centre = (graph.first == 13) | (graph.second == 13)
    assert int(of_centre.sum()) == 18
    other = torch.where(graph.first == 13, graph.second, graph.first)[of_centre]
    place = torch.stack([other // 9, other // 3 % 3, other % 3], dim=1) - 1
    assert torch.allclose(graph.factor[of_centre], 4 / (place * SPACING).square().sum(dim=1))
    thin = torch.eye(4, dtype=torch.bool).unsqueeze(2)  # a sheet one voxel thick, across the grid
    assert len(grid_neighbours(thin, SPACING).first) == 3


@pytest.mark.parametrize("tissues", [1, 2])
def test_solve_equals_dense_with_and_without_coarse_space(tissues):
    graph, rough, information, strength = problem(tissues=tissues)
    rhs = torch.randn(2 * tissues, graph.count, 3, generator=torch.Generator().manual_seed(1))
    for one in (rough, replace(rough, coarse=None)):
        post = Posterior(information, strength, one, SmoothSettings(tolerance=1e-5, max_iterations=2000))
        h = dense(post)
        assert torch.allclose(h, h.T, atol=1e-2)
        exact = torch.linalg.solve(h, rhs.reshape(-1, 3).double()).reshape(rhs.shape)
        assert torch.linalg.norm(post.solve(rhs) - exact) < 2e-3 * torch.linalg.norm(exact)


def test_fields_of_a_family_share_its_matrix():
    graph, rough, _, _ = problem()
    x = torch.randn(6, graph.count, 2, generator=torch.Generator().manual_seed(4))
    expected = torch.stack([rough.matrices[k // 3].to_dense() @ rough.matrices[k // 3].to_dense() @ x[k] for k in range(6)])
    assert torch.allclose(rough.apply(x, times=2), expected, atol=1e-3)


@pytest.mark.parametrize("tissues", [1, 2])
def test_preconditioner_is_symmetric_and_needs_few_iterations(tissues):
    graph, rough, information, strength = problem(tissues=tissues)
    post = Posterior(information, strength, rough, SmoothSettings(tolerance=1e-3))
    n = 2 * tissues * graph.count
    m = post.precondition(torch.eye(n).reshape(2 * tissues, graph.count, -1)).reshape(n, -1).double()
    assert torch.allclose(m, m.T, atol=1e-4 * float(m.abs().max()))
    assert float(torch.linalg.eigvalsh(0.5 * (m + m.T)).min()) > 0
    post.solve(torch.randn(2 * tissues, graph.count, 1, generator=torch.Generator().manual_seed(2)))
    assert post.iterations < 40


def test_fields_seen_in_folds_need_few_iterations_by_averaged_information(monkeypatch):
    """As a tissue's field is: by each node's own information half as many again; where the data outweigh the prior nothing is averaged."""
    mask = torch.ones((14, 14, 10), dtype=torch.bool)
    graph = grid_neighbours(mask, torch.ones(3))
    coarse = CoarseSpace(hats(torch.nonzero(mask)))
    first = (torch.nonzero(mask).sum(dim=1) % 6 < 3).float()
    information = torch.diag_embed(torch.stack([first, 1 - first]).T).permute(1, 2, 0)
    rhs = torch.randn(2, graph.count, 1, generator=torch.Generator().manual_seed(3))
    iterations = {}
    for steps in (0, 6):
        monkeypatch.setattr(smooth_fit, "EVENED", steps)
        for strength in (1e-3, 5.0):
            post = Posterior(
                information, torch.full((2,), strength), Roughness(graph, graph.factor.unsqueeze(0), 1e-3, coarse), SmoothSettings()
            )
            post.solve(rhs)
            iterations[steps, strength] = post.iterations
    assert iterations[6, 5.0] < 0.7 * iterations[0, 5.0]
    assert iterations[6, 1e-3] == iterations[0, 1e-3]


@pytest.mark.parametrize("tissues", [1, 2])
def test_block_diagonal_and_sample_covariance_are_those_of_the_dense_inverse(tissues):
    graph, rough, information, strength = problem(tissues=tissues)
    post = Posterior(information, strength, rough, SmoothSettings(tolerance=1e-5, max_iterations=500))
    h = dense(post)
    assert torch.allclose(rough.diagonal(strength).reshape(-1).double(), (h - dense_information(information)).diagonal(), rtol=1e-3)
    z, rhs = post.sample(1600)
    found, exact = post.covariance(z, rhs).double(), torch.linalg.inv(h)
    nodes = torch.arange(graph.count)
    for f in range(2 * tissues):
        for g in range(f + 1):
            block = exact[f * graph.count + nodes, g * graph.count + nodes]
            scale = (exact.diagonal()[f * graph.count + nodes] * exact.diagonal()[g * graph.count + nodes]).sqrt()
            assert abs(float(((found[f, g] - block) / scale).mean())) < 0.05


def dense_information(information: torch.Tensor) -> torch.Tensor:
    v = information.shape[2]
    fields = len(information)
    out = torch.zeros(fields * v, fields * v, dtype=torch.float64)
    for f in range(fields):
        for g in range(fields):
            out[f * v : (f + 1) * v, g * v : (g + 1) * v] = torch.diag(information[f, g].double())
    return out


def test_edges_are_cut_where_a_field_steps_and_only_where_it_means_something():
    """Two fields of one family on a line of edges: the first steps at edge 2; the second, absent there, at edge 5."""
    square = torch.full((2, 8), 0.01)
    square[0, 2] = square[1, 5] = 4.0
    everywhere = edge_weights(square, torch.ones(2, 8), 6.0)
    assert everywhere.shape == (1, 8)
    assert everywhere.mean() == pytest.approx(1, abs=1e-5)
    assert everywhere[0, 2] < 0.7 * everywhere[0, 0]
    assert everywhere[0, 5] < 0.7 * everywhere[0, 0]
    presence = torch.ones(2, 8)
    presence[1, 4:7] = 0
    absent = edge_weights(square, presence, 6.0)
    assert absent[0, 2] < 0.7 * absent[0, 0]
    assert absent[0, 5] == pytest.approx(float(absent[0, 4]))


def smooth_truth(noise: float, seed: int):
    """One field of one wave on a grid, seen with noise: graph, coarse space, truth, data."""
    mask = torch.ones((14, 14, 10), dtype=torch.bool)
    graph = grid_neighbours(mask, torch.ones(3))
    at = torch.nonzero(mask).double()
    truth = torch.sin(at @ torch.tensor([0.35, 0.2, 0.25]).double()).float()
    data = truth + noise * torch.randn(len(truth), generator=torch.Generator().manual_seed(seed))
    return graph, CoarseSpace(hats(at)), truth, data


def fit_one(noise: float, seed: int, seen: torch.Tensor | None = None):
    graph, coarse, truth, data = smooth_truth(noise, seed)
    precision = torch.full_like(truth, noise**-2) if seen is None else seen * noise**-2

    def linearise(x):
        away = x[0] - data
        return (precision * away).unsqueeze(0), precision.reshape(1, 1, -1), 0.5 * precision * away**2

    settings = SmoothSettings(degrees=None)
    return fit_smooth(linearise, graph, torch.ones(1, graph.count), torch.zeros(1, graph.count), settings, coarse), truth, data


def test_two_fields_of_one_quantity_are_told_apart_where_each_is_seen():
    """Every second node holds the first, the others the second: both come out smooth everywhere, with one strength."""
    graph, coarse, truth, _ = smooth_truth(1.0, 303)
    both = torch.stack([truth, 1 - truth])
    first = (torch.arange(graph.count) % 2 == 0).float()
    presence = torch.stack([first, 1 - first])
    data = (presence * both).sum(dim=0) + 0.5 * torch.randn(graph.count, generator=torch.Generator().manual_seed(303))

    def linearise(x):
        away = (presence * x).sum(dim=0) - data
        return 4 * presence * away, 4 * torch.einsum("fv,gv->fgv", presence, presence), 2 * away**2

    found = fit_smooth(linearise, graph, presence, torch.zeros(2, graph.count), SmoothSettings(degrees=None), coarse)
    error = (found.x - both).square().mean(dim=1).sqrt()
    assert float(error.max()) < 0.25
    assert found.strength[0] == found.strength[1]


def test_a_level_taken_out_of_the_fields_is_not_taken_for_roughness():
    """A field about 3 whose prior is about 0: with `recentre` its strength is learnt from its shape alone, and the error is smaller."""
    graph, coarse, truth, data = smooth_truth(1.0, 304)
    level = torch.zeros(1)

    def linearise(x):
        away = x[0] + level - data - 3
        return away.unsqueeze(0), torch.ones(1, 1, graph.count), 0.5 * away**2

    def recentre(x):
        nonlocal level
        level = level + x.mean()
        return x - x.mean()

    strength, error = [], []
    settings = SmoothSettings(degrees=None, epsilon=0.3, strength=1.0)
    for centre in (None, recentre):
        level = torch.zeros(1)
        found = fit_smooth(linearise, graph, torch.ones(1, graph.count), torch.zeros(1, graph.count), settings, coarse, recentre=centre)
        strength.append(float(found.strength[0]))
        error.append(float((found.x[0] + level - truth - 3).square().mean()))
    assert strength[1] > 1.5 * strength[0]
    assert error[1] < 0.8 * error[0]


@pytest.mark.parametrize(("noise", "gain"), [(1.0, 0.1), (3.0, 0.02)])
def test_a_smooth_field_is_recovered_better_than_voxelwise_with_intervals_that_cover(noise, gain):
    """At noise of three times its amplitude too, where strength learnt from 300 downwards runs away and flattens the field."""
    inside = []
    for seed in (300, 301):
        found, truth, data = fit_one(noise, seed)
        error = found.x[0] - truth
        assert float(error.square().mean()) < gain * float((data - truth).square().mean())
        inside.append(float((error.abs() < 1.96 * found.variance[0, 0].sqrt()).float().mean()))
    assert 0.85 < np.mean(inside) <= 1.0


def test_where_there_are_no_data_the_interval_is_wide_and_results_are_reproducible():
    graph, *_ = smooth_truth(1.0, 302)
    seen = torch.ones(graph.count)
    seen[:700] = 0  # five slabs of the first axis
    found, truth, _ = fit_one(1.0, 302, seen)
    sd = found.variance[0, 0].sqrt()
    assert float(sd[:140].mean()) > 2 * float(sd[840:].mean())
    assert float(((found.x[0] - truth)[:700].abs() < 2.5 * sd[:700]).float().mean()) > 0.8
    again, *_ = fit_one(1.0, 302, seen)
    assert torch.equal(found.x, again.x)
    assert torch.equal(found.variance, again.variance)
