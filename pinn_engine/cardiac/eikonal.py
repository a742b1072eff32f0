"""The travelling beat V = U(t - T(x)) turns the Aliev-Panfilov equations into one for the activation time T alone.

With s = t - T the equation of V reads (1 + div(D grad T)) U' = |grad T|_D^2 U'' + f(U, W); the planar beat solves it exactly where

    c0 sqrt(grad T . D grad T) - div(D grad T) = 1,     c0 = sqrt(k / 2) (1 - 2 a)

(eikonal-diffusion: Colli Franzone & Guerri 1993, doi:10.1142/S0218202593000138; here in conservative form, so that jumps of D are right,
with no flux through free edges as the natural condition). D = exp(u) G with a known shape G of the tissue (fibres), u = log D the unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.sparse import Loss, Rows, weighted_rows
from .fem import Elements
from .model import AlievPanfilov

ROUND = 1e-6  # under the root, where c0^2 grad T . D grad T is about 1


@dataclass(frozen=True)
class EikonalDiffusion:
    """c0 sqrt(grad T . D grad T) - div(D grad T) = 1 in weak form on finite elements; `shape` (M, 3, 3) of D, None = isotropic."""

    element: Elements
    shape: Tensor | None = None

    needs = ("T", "u")

    def along(self, vectors: Tensor) -> Tensor:
        """G v in each cell: (M, 3) or (M, C, 3)."""
        if self.shape is None:
            return vectors
        return torch.einsum("mij,m...j->m...i", self.shape, vectors)

    def laplacian_rows(self, D0: float) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of M^-1/2 K, D0 in it: (M^-1/2 K T)^2 sums to the integral of (div(D0 G grad T))^2."""
        e = self.element
        n = e.nodes
        K = torch.einsum("m,mci,mdi->mcd", e.size * D0, e.gradients, self.along(e.gradients))
        i, j = e.pairs
        matrix = torch.sparse_coo_tensor(torch.stack([i, j]), K.reshape(-1), (n, n), check_invariants=False).coalesce()
        row, column = matrix.indices()
        return row, column, matrix.values() / e.mass[row].sqrt()

    def parts(self, T: Tensor, u: Tensor, c0: Tensor | float) -> dict[str, Tensor]:
        """What residual and Jacobian share, by cell."""
        e = self.element
        D = torch.exp(e.to_cells(u))
        flux = self.along(e.gradient(T))  # G grad T
        flow = torch.einsum("mci,mi->mc", e.gradients, flux)  # grad phi_c . G grad T
        squared = c0**2 * D * (e.gradient(T) * flux).sum(dim=1)
        return {"D": D, "flow": flow, "squared": squared, "speed": (squared + ROUND).sqrt()}

    def residual(self, T: Tensor, u: Tensor, c0: Tensor | float) -> Tensor:
        """(N,) c0 sqrt(grad T . D grad T) - div(D grad T) - 1 at the nodes, without dimension (divided by the lumped mass)."""
        e, p = self.element, self.parts(T, u, c0)
        corners = e.cells.shape[1]
        local = (e.size / corners * (p["speed"] - 1.0))[:, None] + (e.size * p["D"])[:, None] * p["flow"]
        return e.size.new_zeros(e.nodes).index_add(0, e.cells.reshape(-1), local.reshape(-1)) / e.mass

    def rows(self, T: Tensor, u: Tensor, c0: Tensor, scale: Tensor, loss: Loss, sd: float, c0_slope: Tensor | None = None) -> Rows:
        """Residual / `sd` under `loss`, each node counting scale^2 times; columns: T (0..N-1), u (N..2N-1) and, where `c0_slope`
        (d c0 / d coordinate) is given, the coordinate that c0 depends on (2N)."""
        e, p = self.element, self.parts(T, u, c0)
        n, corners = e.nodes, e.cells.shape[1]
        share = e.size / corners
        local = (share * (p["speed"] - 1.0))[:, None] + (e.size * p["D"])[:, None] * p["flow"]
        z = e.size.new_zeros(n).index_add(0, e.cells.reshape(-1), local.reshape(-1)) / (e.mass * sd)
        stiff = torch.einsum("mci,mdi->mcd", e.gradients, self.along(e.gradients))
        by_T = (share * c0**2 * p["D"] / p["speed"])[:, None, None] * p["flow"][:, None, :] + (e.size * p["D"])[:, None, None] * stiff
        by_u = (share * 0.5 * p["squared"] / p["speed"])[:, None] + (e.size * p["D"])[:, None] * p["flow"]
        by_u = (by_u / corners)[:, :, None].expand(-1, -1, corners)
        i, j = e.pairs
        row, column = torch.cat([i, i]), torch.cat([j, j + n])
        value = torch.cat([by_T.reshape(-1), by_u.reshape(-1)])
        if c0_slope is not None:
            by_c = (share * p["squared"] / p["speed"] / c0 * c0_slope)[:, None].expand(-1, corners).reshape(-1)
            row, value = torch.cat([row, e.cells.reshape(-1)]), torch.cat([value, by_c])
            column = torch.cat([column, torch.full_like(e.cells.reshape(-1), 2 * n)])
        return weighted_rows(z, row, column, value / (e.mass * sd)[row], loss, scale)


def front_constant(model: AlievPanfilov) -> float:
    """c0 = sqrt(k / 2) (1 - 2 a), TU^-1/2: a planar front travels at c0 sqrt(D)."""
    return float(model.speed(1.0))


def tissue_shape(mesh_fibres: np.ndarray | None, element: Elements, ratio: float | None) -> Tensor | None:
    """G (M, 3, 3): 1 along the fibres and `ratio` across them (None or no fibres: isotropic, None)."""
    from .fem import Diffusion, tensors

    if ratio is None or ratio == 1.0:
        return None
    return tensors(element, Diffusion(1.0, ratio), mesh_fibres)
