"""Streamed Gauss-Newton: rows in blocks give what all rows at once give, and a chain is solved as the whole matrix is."""

import torch
from made_problems import normal

from pinn_engine.core.gauss_newton import Block, StreamedAdam, StreamedGaussNewton, StreamedProblem, gram, solve_chain
from pinn_engine.core.solution import Status


class Curve(StreamedProblem):
    """y = exp(theta_0 t) + theta_1, in blocks of a few rows; the second block knows its columns in another order."""

    def __init__(self, t, y):
        self.t, self.y = t, y

    def blocks(self, theta, slopes):
        for k, rows in enumerate(torch.arange(len(self.t)).split(7)):
            grown = (theta[0] * self.t[rows]).exp()
            jacobian = torch.stack([self.t[rows] * grown, torch.ones_like(grown)], dim=1)
            order = torch.tensor([1, 0] if k % 2 else [0, 1])
            yield Block(grown + theta[1] - self.y[rows], jacobian[:, order] if slopes else None, order)


def test_it_finds_the_truth_and_its_normal_equations_are_the_plain_ones():
    t = torch.linspace(0, 1, 40, dtype=torch.float64)
    problem = Curve(t, (0.7 * t).exp() - 0.3)
    theta = torch.tensor([0.1, 0.4], dtype=torch.float64)
    cost, gradient, matrix = problem.normal(theta)
    r = (theta[0] * t).exp() + theta[1] - problem.y
    J = torch.stack([t * (theta[0] * t).exp(), torch.ones_like(t)], dim=1)
    torch.testing.assert_close(torch.tensor(cost), float(0.5 * (r**2).sum()) * torch.ones(()))
    torch.testing.assert_close(gradient, J.T @ r)
    torch.testing.assert_close(problem.slope(theta), J.T @ r)
    torch.testing.assert_close(matrix, J.T @ J)
    found = StreamedGaussNewton().solve(problem, theta)
    assert found.status == Status.CONVERGED
    torch.testing.assert_close(found.theta, torch.tensor([0.7, -0.3], dtype=torch.float64), atol=1e-4, rtol=0)
    slow = StreamedAdam(400, 3e-2).solve(lambda step: problem, theta)
    torch.testing.assert_close(slow, torch.tensor([0.7, -0.3], dtype=torch.float64), atol=2e-2, rtol=0)


def test_the_half_that_is_copied_is_that_of_the_product():
    for columns in (1, 2, 10):
        J = normal(3, 30, columns)
        torch.testing.assert_close(gram(J), J.T @ J)


def test_a_chain_with_a_border_is_solved_as_the_whole():
    sizes, border = (4, 3, 5), 2
    edges = [0, 4, 7, 12, 14]
    J = torch.zeros(0, 14, dtype=torch.float64)
    for k in range(2):  # rows that see two neighbours and the border
        rows = normal(k, 20, 14)
        rows[:, [c for c in range(12) if not edges[k] <= c < edges[k + 2]]] = 0.0
        J = torch.cat([J, rows])
    matrix, extra, rhs = J.T @ J, 0.1 + normal(5, 14) ** 2, normal(6, 14, 3)
    assert sum(sizes) + border == len(matrix)
    whole = torch.linalg.solve(matrix + torch.diag(extra), rhs)
    torch.testing.assert_close(solve_chain(matrix, extra, rhs, sizes), whole)
    torch.testing.assert_close(solve_chain(matrix, extra, rhs), whole)
    torch.testing.assert_close(
        solve_chain(matrix[:12, :12], extra[:12], rhs[:12], sizes), torch.linalg.solve(matrix[:12, :12] + torch.diag(extra[:12]), rhs[:12])
    )
    assert solve_chain(-matrix, 0 * extra, rhs, sizes) is None
