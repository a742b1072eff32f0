"""The joint smooth fit against dense algebra, and what it promises about strength and intervals."""

from __future__ import annotations

import numpy as np
import torch

from pinn_engine.core.coarse import CoarseSpace, hats
from pinn_engine.core.roughness import Roughness, grid_neighbours
from pinn_engine.core.smooth_fit import Posterior, SmoothFit, SmoothSettings, _doubt, _move, fit_smooth

SHAPE, SPACING = (7, 6, 5), torch.tensor([2.0, 2.0, 3.0])


def problem(seed: int = 0):
    """A small anisotropic grid with random edges, information and strength."""
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[0, 0] = False
    graph = grid_neighbours(mask, SPACING)
    g = torch.Generator().manual_seed(seed)
    weight = graph.factor * (0.1 + torch.rand(2, len(graph.first), generator=g))
    root = torch.randn(2, 2, graph.count, generator=g)
    information = torch.einsum("fkv,gkv->fgv", root, root)
    strength = (1 + 9 * torch.rand(2, graph.count, generator=g)) * 5
    position = torch.nonzero(mask) * SPACING / SPACING.min()
    return (
        graph,
        Roughness(graph, weight, 0.05),
        information,
        strength,
        CoarseSpace(hats(position, torch.zeros(graph.count, dtype=torch.long))),
    )


def dense(post: Posterior) -> torch.Tensor:
    """(F V, F V) float64, column by column."""
    f, v = post.strength.shape
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


def test_solve_equals_dense_with_and_without_coarse_space():
    graph, rough, information, strength, coarse = problem()
    rhs = torch.randn(2, graph.count, 3, generator=torch.Generator().manual_seed(1))
    for space in (coarse, None):
        post = Posterior(information, strength, rough, SmoothSettings(tolerance=1e-5, max_iterations=2000), space)
        h = dense(post)
        assert torch.allclose(h, h.T, atol=1e-2)
        exact = torch.linalg.solve(h, rhs.reshape(-1, 3).double()).reshape(rhs.shape)
        assert torch.linalg.norm(post.solve(rhs) - exact) < 2e-3 * torch.linalg.norm(exact)


def test_preconditioner_is_symmetric_and_needs_few_iterations():
    graph, rough, information, strength, coarse = problem()
    post = Posterior(information, strength, rough, SmoothSettings(tolerance=1e-3), coarse)
    eye = torch.eye(2 * graph.count).reshape(2, graph.count, -1)
    m = post.precondition(eye).reshape(2 * graph.count, -1).double()
    assert torch.allclose(m, m.T, atol=1e-4 * float(m.abs().max()))
    assert float(torch.linalg.eigvalsh(0.5 * (m + m.T)).min()) > 0
    post.solve(torch.randn(2, graph.count, 1, generator=torch.Generator().manual_seed(2)))
    assert post.iterations < 40


def test_block_diagonal_and_sample_covariance_are_those_of_the_dense_inverse():
    _, rough, information, strength, coarse = problem()
    post = Posterior(information, strength, rough, SmoothSettings(tolerance=1e-5, max_iterations=500), coarse)
    h = dense(post)
    assert torch.allclose(rough.diagonal(strength).reshape(-1).double(), (h - dense_information(information)).diagonal(), rtol=1e-3)
    z, rhs = post.sample(400)
    found = post.covariance(z, rhs).diagonal(dim1=0, dim2=1).T.reshape(-1).double()
    exact = torch.linalg.inv(h).diagonal()
    assert abs(float((found / exact).mean()) - 1) < 0.03


def dense_information(information: torch.Tensor) -> torch.Tensor:
    v = information.shape[2]
    out = torch.zeros(2 * v, 2 * v, dtype=torch.float64)
    for f in range(2):
        for g in range(2):
            out[f * v : (f + 1) * v, g * v : (g + 1) * v] = torch.diag(information[f, g].double())
    return out


class Level:
    """Data y = J x + K b + noise, linear, with fields x and two shared numbers b of prior N(0, 1): b[0] beyond the fields, b[1] a level."""

    def __init__(self, nodes: int, seed: int = 3):
        g = torch.Generator().manual_seed(seed)
        self.j, self.b = torch.randn(nodes, 4, 2, generator=g), torch.zeros(2)
        self.k = torch.stack([torch.randn(nodes, 4, generator=g), self.j[:, :, 1]], dim=2)
        truth = torch.stack([torch.full((nodes,), 0.5), torch.linspace(-1, 1, nodes)])
        noise = 0.3 * torch.randn(nodes, 4, generator=g)
        self.y = torch.einsum("vki,iv->vk", self.j, truth) + self.k @ torch.tensor([2.0, -1.0]) + noise

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("vki,iv->vk", self.j, x) + self.k @ self.b - self.y

    def linearise(self, x: torch.Tensor):
        r = self.residual(x)
        return torch.einsum("vki,vk->iv", self.j, r), torch.einsum("vki,vkj->ijv", self.j, self.j), 0.5 * r.square().sum(dim=1)

    def linearise_shared(self, x: torch.Tensor):
        worth = torch.zeros(2, len(self.j), 2)
        worth[1, :, 1] = 1
        beyond = self.k - torch.einsum("vki,ivp->vkp", self.j, worth)
        gradient = torch.einsum("vkp,vk->p", beyond, self.residual(x)) + self.b
        information = torch.einsum("vkp,vkq->pq", beyond, beyond) + torch.eye(2)
        return worth, gradient, information, torch.einsum("vki,vkp->ivp", self.j, beyond)

    def move_shared(self, step: torch.Tensor) -> None:
        self.b = self.b + step


def test_what_nodes_share_and_its_doubt_are_those_of_dense_algebra():
    """Steps end at the joint optimum; the variance of x + worth b exceeds that of x at given b as in the joint inverse."""
    graph, rough, _, strength, coarse = problem()
    level = Level(graph.count)
    settings = SmoothSettings(tolerance=1e-6, max_iterations=2000)
    nothing = torch.zeros(2, graph.count)
    post = Posterior(level.linearise(nothing)[1], strength, rough, settings, coarse)
    x = post.solve(-level.linearise(nothing)[0].unsqueeze(2)).squeeze(2)

    n = 2 * graph.count
    j = torch.zeros(graph.count, 4, 2, graph.count)
    for v in range(graph.count):
        j[v, :, :, v] = level.j[v]
    whole = torch.cat([j.reshape(-1, n), level.k.reshape(-1, 2)], dim=1).double()
    prior = torch.zeros(n + 2, n + 2, dtype=torch.float64)
    prior[:n, :n] = dense(Posterior(torch.zeros_like(post.information), strength, rough, settings, None))
    prior[n:, n:] = torch.eye(2)
    inverse = torch.linalg.inv(whole.T @ whole + prior)
    joint = inverse @ whole.T @ level.y.reshape(-1).double()

    for _ in range(40):  # steps are bounded
        x = _move(level.linearise, level, post, x)
    assert torch.allclose(level.b.double(), joint[n:], atol=2e-3)
    assert torch.allclose(x.reshape(-1).double(), joint[:n], atol=5e-3)

    fitted = SmoothFit(x, nothing, x.new_zeros(2, graph.count, 0), x.new_zeros(0), strength, rough, x.new_zeros(2, 1), coarse)
    change = torch.eye(n + 2, dtype=torch.float64)[:n]
    change[graph.count :, n + 1] = 1  # the fields that b is worth
    known = torch.linalg.inv((whole.T @ whole + prior)[:n, :n])
    expected = (change @ inverse @ change.T - known).diagonal()
    found = _doubt(level.linearise, level, fitted, settings)
    assert torch.allclose(torch.stack([found[0, 0], found[1, 1]]).reshape(-1).double(), expected, rtol=2e-2, atol=1e-5)


def smooth_truth(noise: float, seed: int):
    """One field of one wave on a grid, seen with noise: graph, coarse space, truth, data."""
    mask = torch.ones((14, 14, 10), dtype=torch.bool)
    graph = grid_neighbours(mask, torch.ones(3))
    at = torch.nonzero(mask).double()
    truth = torch.sin(at @ torch.tensor([0.35, 0.2, 0.25]).double()).float()
    data = truth + noise * torch.randn(len(truth), generator=torch.Generator().manual_seed(seed))
    return graph, CoarseSpace(hats(at, torch.zeros(len(at), dtype=torch.long))), truth, data


def fit_one(noise: float, seed: int, seen: torch.Tensor | None = None):
    graph, coarse, truth, data = smooth_truth(noise, seed)
    precision = torch.full_like(truth, noise**-2) if seen is None else seen * noise**-2

    def linearise(x):
        away = x[0] - data
        return (precision * away).unsqueeze(0), precision.reshape(1, 1, -1), 0.5 * precision * away**2

    kind = torch.zeros(graph.count, dtype=torch.long)
    alike = torch.ones(len(graph.first))
    settings = SmoothSettings(degrees=None)
    return fit_smooth(linearise, graph, alike, kind, torch.zeros(1, graph.count), settings, coarse), truth, data


def test_a_smooth_field_is_recovered_better_than_voxelwise_with_intervals_that_cover():
    inside = []
    for seed in (300, 301):
        found, truth, data = fit_one(1.0, seed)
        error = found.x[0] - truth
        assert float(error.square().mean()) < 0.1 * float((data - truth).square().mean())
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
