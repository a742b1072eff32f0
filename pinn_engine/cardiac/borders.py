"""Borders of scars as lines: log D = level + smooth background + depth * step(phi), phi the signed distance to the border of a scar.

Total variation makes a scar a deep core in a shallow rim wherever that explains a few wrong times. Here each scar that a map shows has one
depth, with slow waves in it, and what moves is its border: a level set (Osher & Sethian 1988, doi:10.1016/0021-9991(88)90002-2; as the
unknown of a Bayesian inversion: Iglesias, Lu & Stuart 2016, doi:10.4171/IFB/362). In a band along the border phi is held near a distance,
|grad phi| = 1, and its Laplacian, the border's curvature, is a normal variable. Lengths in l0 = sqrt(D0 / k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import Rows, SparseGaussNewton, SparseSolution
from ..core.sparse_linear import SparseSolver
from .background import SPREAD
from .eikonal import EikonalDiffusion
from .fem import Elements
from .mapfit import MapProblem

SHALLOW = 0.5  # e-folds below the pieces' median from which tissue counts as a scar's
LEAST = 4.0  # patches of tissue (see mapfit) that make a scar
DEPTH = (-1.5, 1.0)  # mean and sd of a scar's log D against its background
INSIDE = 0.4  # sd of the waves of log D within scars, as long as the background's: scars may have a core, or fade outwards
LEVEL_SD = 2.0  # of the level round log D0
BEND = 2.0  # weight of the squared curvature, integrated over the band
FAR = 0.01  # share of it away from the borders, where phi only has to be some smooth function
DISTANCE = 1.0  # weight of (|grad phi| - 1)^2, integrated over the band
BAND = 3.6  # half width of the band along a border: sd of its normal profile
WIDTH = 1.1  # of the step, in spacings of the mesh: a border between two nodes must move what they say
FARTHEST = 1.8  # that a border may move in one step


@dataclass(frozen=True)
class Scars:
    """C scars: `owner` (N,) the one nearest to each node, `depth` (C,) of their log D above `level`, `phi` (N,) signed distance, in l0."""

    owner: Tensor
    depth: Tensor
    level: float
    phi: Tensor


def find(problem: MapProblem, theta: Tensor) -> Scars | None:
    """The scars of a fitted map, their borders half way down in log D; None where it shows none."""
    from scipy.spatial import cKDTree

    element = problem.equation.element
    places, size, pieces = element.points.numpy(), element.mass.numpy(), problem.pieces(theta).numpy()
    level = float(np.median(pieces))
    below = pieces - level
    label = _connected(element, below < -SHALLOW)
    area = np.bincount(label[label >= 0], weights=size[label >= 0], minlength=1)
    large = np.flatnonzero(area >= LEAST * problem.patch)
    if not len(large):
        return None
    depth = np.array([np.median(below[label == one]) for one in large])
    owner = np.stack([cKDTree(places[label == one]).query(places)[0] for one in large], axis=1).argmin(axis=1)
    inward = below / depth[owner] - 0.5
    inward[~np.isin(label, large)] = np.minimum(inward[~np.isin(label, large)], -0.05)  # a dip too small to be a scar
    phi = signed_distance(element, torch.from_numpy(inward), problem.length)
    return Scars(torch.from_numpy(owner), torch.from_numpy(depth), level, phi)


def signed_distance(element: Elements, inward: Tensor, length: float) -> Tensor:
    """(N,) in l0, positive where `inward` (N,) is: to the nearest point where that changes sign along an edge of the mesh."""
    from scipy.spatial import cKDTree

    value, places = inward.numpy(), element.points.numpy()
    one, two = (x.numpy() for x in element.pairs)
    crossed = (one < two) & (value[one] * value[two] < 0)
    one, two = one[crossed], two[crossed]
    if not len(one):
        return inward
    share = (value[one] / (value[one] - value[two]))[:, None]
    far = cKDTree(places[one] + share * (places[two] - places[one])).query(places)[0] / length
    return torch.from_numpy(np.where(value > 0, far, -far))


def _connected(element: Elements, inside: np.ndarray) -> np.ndarray:
    """(N,) number of the connected part a node lies in, -1 outside."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    one, two = (x.numpy() for x in element.pairs)
    both = inside[one] & inside[two]
    graph = csr_matrix((np.ones(both.sum()), (one[both], two[both])), shape=(len(inside),) * 2)
    return np.where(inside, connected_components(graph, directed=False)[1], -1)


class BorderProblem(MapProblem):
    """theta = T (N,), phi (N,), background (K,), level, depths (C,), waves in scars (K,); the problem it is made of has been fitted."""

    def __init__(self, fitted: MapProblem, scars: Scars):
        vars(self).update(vars(fitted))  # the same data, equation, start and background
        assert self.background is not None
        element = self.equation.element
        sd = self.background.sd
        own = torch.nn.functional.one_hot(scars.owner, len(scars.depth)).to(sd)
        self.basis = torch.cat([self.background.basis, sd.new_ones(self.nodes, 1)], dim=1)  # background and level
        self.depths = torch.cat([own, self.background.basis], dim=1)
        none, one = torch.zeros_like(sd), torch.ones_like(scars.depth)
        self.mean = torch.cat([none, sd.new_tensor([np.log(self.D0)]), DEPTH[0] * one, none])
        self.sd = torch.cat([sd, sd.new_tensor([LEVEL_SD]), DEPTH[1] * one, INSIDE / SPREAD * sd])
        dimension = element.cells.shape[1] - 1
        self.width = WIDTH * float(element.mass.median()) ** (1.0 / dimension) / self.length
        unit = self.length**dimension
        near, near_cells = (torch.exp(-0.5 * (x / BAND) ** 2) for x in (scars.phi, element.to_cells(scars.phi)))
        row, column, value = EikonalDiffusion(element).laplacian_rows(self.length**2)  # round in fibred tissue too
        self._bending = row, column, value * (BEND * (near + FAR * (1.0 - near)) / unit).sqrt()[row]
        self._weight = (DISTANCE * near_cells * element.size / unit).sqrt()

    def step(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) 0 outside, 1 in a scar, and its slope by phi."""
        sharp = 2.2 / self.width
        return 0.5 * (1.0 + torch.erf(sharp * phi)), sharp / np.pi**0.5 * torch.exp(-((sharp * phi) ** 2))

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        n = self.nodes
        k = 2 * n + self.basis.shape[1]
        return theta[:n], self.basis @ theta[2 * n : k] + (self.depths @ theta[k:]) * self.step(theta[n : 2 * n])[0]

    def advance(self, theta: Tensor) -> bool:
        return False

    def terms(self, theta: Tensor) -> dict[str, Rows]:
        n, (T, u) = self.nodes, self.split(theta)
        phi = theta[n : 2 * n]
        none = torch.zeros(0, dtype=torch.long)
        terms = {"data": self._data(theta, T), "equation": self._equation(theta, T, u), "smooth": self._smooth(T)}
        if self.landscape is not None:
            terms["sources"] = self._sources(T)
        terms["few"] = Rows((theta[2 * n :] - self.mean) / self.sd, none, none, self.sd.new_zeros(0), dense=torch.diag(1.0 / self.sd))
        row, column, value = self._bending
        terms["bending"] = Rows(T.new_zeros(n).index_add(0, row, value * phi[column]), row, column + n, value)
        terms["distance"] = self._distance(phi)
        return terms

    def _equation(self, theta: Tensor, T: Tensor, u: Tensor) -> Rows:
        """The equation's rows by T and u, carried on to phi and the few that u is made of."""
        from scipy.sparse import csr_matrix

        n, rows = self.nodes, super()._equation(theta, T, u)
        inside, slope = self.step(theta[n : 2 * n])
        by_few = torch.cat([self.basis, self.depths * inside[:, None]], dim=1)
        by_phi = (self.depths @ theta[2 * n + self.basis.shape[1] :]) * slope
        of_u = rows.column >= n
        node, factor = rows.column[of_u] - n, torch.ones_like(rows.value)
        by_u = csr_matrix((rows.value[of_u].numpy(), (rows.row[of_u].numpy(), node.numpy())), shape=(n, n))
        factor[of_u] = by_phi[node]
        return Rows(rows.residual, rows.row, rows.column, rows.value * factor, rows.exact, torch.from_numpy(by_u @ by_few.numpy()))

    def _distance(self, phi: Tensor) -> Rows:
        e = self.equation.element
        gradient = e.gradient(phi) * self.length
        size = ((gradient**2).sum(dim=1) + 1e-6).sqrt()
        m, corners = e.cells.shape
        slope = torch.einsum("mci,mi->mc", e.gradients, gradient / size[:, None]) * (self.length * self._weight)[:, None]
        row = torch.arange(m)[:, None].expand(-1, corners).reshape(-1)
        return Rows(self._weight * (size - 1.0), row, e.cells.reshape(-1) + self.nodes, slope.reshape(-1))

    def limit(self, theta: Tensor, step: Tensor) -> Tensor:
        n = self.nodes
        return torch.cat([step[:n].clamp(-2.0, 2.0), step[n : 2 * n].clamp(-FARTHEST, FARTHEST), step[2 * n :].clamp(-0.5, 0.5)])


def drawn(problem: MapProblem, theta: Tensor, linear: SparseSolver, steps: int = 6) -> SparseSolution | None:
    """The scars of a map fitted over a background, their borders moved until the times fit best; None where it shows no scar.

    Twice: the second time from the distances to the borders that the first has found. The solution's theta is one of `problem` again.
    """
    scars = find(problem, theta)
    if scars is None:
        return None
    n, k = problem.nodes, len(theta) - 2 * problem.nodes
    moved = torch.cat([theta[:n], scars.phi, theta[2 * n :], theta.new_tensor([scars.level]), scars.depth, theta.new_zeros(k)])
    for last in (False, True):
        lines = BorderProblem(problem, scars)
        solution = SparseGaussNewton(2 * steps if last else steps, relative=1e-3, damping=1e-3).solve(lines, moved, linear)
        if not last:
            phi = signed_distance(problem.equation.element, solution.theta[n : 2 * n], problem.length)
            scars = replace(scars, phi=phi)
            moved = torch.cat([solution.theta[:n], phi, solution.theta[2 * n :]])
    return replace(solution, theta=torch.cat([*lines.split(solution.theta), solution.theta[2 * n : 2 * n + k]]))
