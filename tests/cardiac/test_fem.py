"""Finite elements: known operators, conservation, tensors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from scipy.sparse import csr_matrix

from pinn_engine.cardiac.fem import Diffusion, Elements, elements, stiffness, tensors
from pinn_engine.cardiac.shapes import ellipsoid, grid_mesh, hollow_ball, rectangle, sphere
from pinn_engine.errors import InputError
from pinn_engine.files.mesh import Mesh
from pinn_engine.files.meshcheck import clean

MESHES = {
    "rectangle": lambda: rectangle((4.0, 3.0), 0.5)[0],
    "box": lambda: rectangle((2.0, 1.5, 1.0), 0.5)[0],
    "ellipsoid": lambda: ellipsoid(level=2),
    "ball": lambda: hollow_ball(level=1, layers=3),
}


def dense(mesh: Mesh, diffusion: Diffusion) -> tuple[np.ndarray, Elements]:
    """K itself (N, N)."""
    element = elements(mesh)
    operator = stiffness(element, tensors(element, diffusion, mesh.fibres))
    return (operator(torch.eye(element.nodes, dtype=torch.float64)) * operator.mass[:, None]).numpy(), element


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("fibred", [False, True])
def test_stiffness_is_a_diffusion(name, fibred):
    mesh = MESHES[name]()
    random = np.random.default_rng(0)
    fibres = random.normal(size=(len(mesh.cells), 3))
    D = random.uniform(0.5, 2.0, len(mesh.points))
    K, element = dense(mesh, Diffusion(D, 0.2 * D if fibred else None, fibres))
    np.testing.assert_allclose(K.sum(axis=0), 0.0, atol=1e-12)  # no flux: nothing is lost
    np.testing.assert_allclose(K, K.T, atol=1e-12)
    assert np.linalg.eigvalsh(K).min() > -1e-10
    operator = stiffness(element, tensors(element, Diffusion(D, 0.2 * D if fibred else None, fibres)))
    root = np.sqrt(operator.mass.numpy())
    assert np.linalg.eigvalsh(K / root[:, None] / root).max() <= operator.bound


@pytest.mark.parametrize(
    ("mesh", "size"), [(rectangle((4.0, 3.0), 0.5)[0], 12.0), (rectangle((2.0, 1.5, 1.0), 0.5)[0], 3.0), (sphere(10.0, 4), 400 * np.pi)]
)
def test_mass_is_the_size(mesh, size):
    assert float(elements(mesh).mass.sum()) == pytest.approx(size, rel=4e-3)


@pytest.mark.parametrize("counts", [(6, 5), (5, 4, 4)])
def test_flat_simplices_give_the_stencil(counts):
    """Inside a grid M^-1 K is the 5- or 7-point Laplacian."""
    h, D = 0.3, 0.7
    mesh, grid = grid_mesh(counts, h)
    element = elements(mesh)
    operator = stiffness(element, tensors(element, Diffusion(D)))
    row = operator(torch.eye(element.nodes, dtype=torch.float64)).numpy()[np.ravel_multi_index((2, 2, grid.shape[2] // 2), grid.shape)]
    row = row.reshape(grid.shape) * h**2 / D
    expected = np.zeros(grid.shape)
    middle = (2, 2, grid.shape[2] // 2)
    expected[middle] = 2.0 * len(counts)
    for axis in range(len(counts)):
        for step in (-1, 1):
            expected[tuple(m + step * (i == axis) for i, m in enumerate(middle))] = -1.0
    np.testing.assert_allclose(row, expected, atol=1e-12)


def test_sphere_has_laplace_beltrami_eigenvalues():
    """l (l + 1) / R^2, 2 l + 1 times each."""
    K, element = dense(sphere(10.0, 4), Diffusion(1.0))
    root = np.sqrt(element.mass.numpy())
    found = scipy.sparse.linalg.eigsh(csr_matrix(K / root[:, None] / root), k=16, sigma=-1e-3, return_eigenvectors=False)
    expected = np.concatenate([[l * (l + 1) / 100.0] * (2 * l + 1) for l in range(4)])  # noqa: E741
    np.testing.assert_allclose(np.sort(found), expected, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize("name", ["rectangle", "ellipsoid", "ball"])
def test_turning_mesh_and_fibres_changes_nothing(name):
    mesh = MESHES[name]()
    fibres = np.random.default_rng(3).normal(size=(len(mesh.cells), 3))
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    K = dense(mesh, Diffusion(2.0, 0.3, fibres))[0]
    turned = dense(Mesh(mesh.points @ turn.T, mesh.cells), Diffusion(2.0, 0.3, fibres @ turn.T))[0]
    np.testing.assert_allclose(turned, K, atol=1e-10)


def test_fibres_are_laid_into_the_surface():
    """A fibre that sticks out counts by its direction in the plane alone; a normal or zero fibre leaves the slow D everywhere."""
    mesh = MESHES["rectangle"]()
    along = dense(mesh, Diffusion(2.0, 0.3, np.tile([1.0, 0.0, 0.0], (len(mesh.cells), 1))))[0]
    tilted = dense(mesh, Diffusion(2.0, 0.3, np.tile([0.1, 0.0, 5.0], (len(mesh.cells), 1))))[0]
    np.testing.assert_allclose(tilted, along, atol=1e-10)
    normal = dense(mesh, Diffusion(2.0, 0.3, np.tile([0.0, 0.0, 1.0], (len(mesh.cells), 1))))[0]
    np.testing.assert_allclose(normal, dense(mesh, Diffusion(0.3))[0], atol=1e-10)
    tensor = np.tile(np.diag([2.0, 0.3, 0.3]), (len(mesh.cells), 1, 1))
    np.testing.assert_allclose(dense(mesh, Diffusion(tensor))[0], along, atol=1e-10)


@pytest.mark.parametrize("runs", [(), (3,)])
def test_csr_equals_the_plain_neighbour_table(runs):
    mesh = MESHES["ellipsoid"]()
    element = elements(mesh)
    D = tensors(element, Diffusion(1.3))
    V = torch.as_tensor(np.random.default_rng(0).normal(size=(element.nodes, *runs)))
    torch.testing.assert_close(stiffness(element, D, "csr")(V), stiffness(element, D, "gather")(V))


def test_gradient_and_divergence_are_adjoint():
    mesh = MESHES["ellipsoid"]()
    element = elements(mesh)
    D = tensors(element, Diffusion(1.3))
    u = torch.as_tensor(np.random.default_rng(0).normal(size=element.nodes))
    torch.testing.assert_close(-element.divergence(1.3 * element.gradient(u)) / element.mass, stiffness(element, D)(u))
    x = torch.as_tensor(mesh.points[:, 0])
    assert float(element.gradient(x).norm(dim=1).max()) <= 1.0 + 1e-9  # a surface sees the tangential part only


def test_one_sliver_does_not_rule_the_step():
    flat = MESHES["rectangle"]()
    mesh = clean(Mesh(np.vstack([flat.points, [[-1e-5, 0.9, 0.0]]]), np.vstack([flat.cells, [[0, 1, len(flat.points)]]]))).mesh
    plain, odd = (stiffness(e, tensors(e, Diffusion(1.0))).bound for e in (elements(flat), elements(mesh)))
    assert odd < 100.0 * plain  # without the floor on slivers: 2e5 times


@pytest.mark.parametrize(
    ("diffusion", "words"),
    [
        (Diffusion(np.ones(7)), "does not fit the mesh"),
        (Diffusion(np.ones((7, 3, 3))), "does not fit the mesh"),
        (Diffusion(-1.0), "not negative"),
        (Diffusion(np.nan), "must be finite"),
        (Diffusion(1.0, 0.2), "the mesh has no fibres"),
    ],
)
def test_bad_diffusion(diffusion, words):
    mesh = MESHES["rectangle"]()
    with pytest.raises(InputError, match=words):
        tensors(elements(mesh), diffusion, mesh.fibres)
