"""Lumped-mass P1 finite elements on triangles (flat or curved) and tetrahedra: M V_t + K(D) V = M f, no flux through free edges.

K_ij = sum_T |T| grad phi_i . D_T grad phi_j with gradients in the triangle's own plane; M_i = sum_T |T| / corners.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files.mesh import Mesh
from ..files.meshcheck import quality

SLIVER_FLOOR = 1e-2  # a flatter cell is given the area of this quality: it ties its nodes together without ruling the time step


@dataclass(frozen=True)
class Elements:
    """Geometry of N nodes and M cells with C corners: `gradients` (M, C, 3) of the hat functions, 1/mm; `size` (M,) mm^2 or mm^3;
    `points` (N, 3) mm."""

    cells: Tensor
    gradients: Tensor
    size: Tensor
    points: Tensor

    @property
    def nodes(self) -> int:
        return len(self.points)

    @cached_property
    def mass(self) -> Tensor:
        """(N,) lumped mass, mm^2 or mm^3."""
        corners = self.cells.shape[1]
        share = (self.size / corners)[:, None].expand(-1, corners)
        return self.size.new_zeros(self.nodes).index_add(0, self.cells.reshape(-1), share.reshape(-1))

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """(M C C,) every corner of a cell with every corner: the places of a matrix (M, C, C) of cells, flattened."""
        corners = self.cells.shape[1]
        return self.cells[:, :, None].expand(-1, -1, corners).reshape(-1), self.cells[:, None, :].expand(-1, corners, -1).reshape(-1)

    def gradient(self, u: Tensor) -> Tensor:
        """Nodal u (N,) -> its gradient in each cell (M, 3), 1/mm."""
        return torch.einsum("mci,mc->mi", self.gradients, u[self.cells])

    def divergence(self, flux: Tensor) -> Tensor:
        """Cell flux q (M, 3) -> integral of -grad phi_i . q (N,): the weak divergence with no flux through free edges."""
        flow = -torch.einsum("mci,mi,m->mc", self.gradients, flux, self.size)
        return flux.new_zeros(self.nodes).index_add(0, self.cells.reshape(-1), flow.reshape(-1))

    def to_cells(self, nodal: Tensor) -> Tensor:
        """(N,) -> (M,): the mean of the corners."""
        return nodal[self.cells].mean(dim=1)


@dataclass(frozen=True)
class Diffusion:
    """D in mm^2/TU.

    `along` the fibres (and across them where `across` is None): a number, (N,) at nodes, (M,) in cells, or tensors (M, 3, 3).
    `across`: a number, (N,) or (M,). `fibres` (M, 3): default the mesh's; a zero vector means across in every direction.
    D_T = across I + (along - across) f f^T; on a surface f is first laid into the triangle's plane.
    """

    along: object = 0.1
    across: object | None = None
    fibres: object | None = None


def elements(mesh: Mesh, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64) -> Elements:
    """Hat-function gradients and cell sizes of a mesh (computed in float64 whatever `dtype`)."""
    corner = mesh.points[mesh.cells]
    edges = corner[:, 1:] - corner[:, :1]  # (M, C-1, 3)
    metric = edges @ np.swapaxes(edges, 1, 2)
    size = np.sqrt(np.maximum(np.linalg.det(metric), 0.0)) / (2.0 if mesh.is_surface else 6.0)
    good = quality(mesh.points, mesh.cells)
    if not (size > 0).all():
        raise InputError(
            mesh.source,
            "has cells of zero size",
            found=f"{int((size <= 0).sum())}",
            fix="pass the mesh through files.meshcheck.clean first",
        )
    rest = np.linalg.solve(metric, edges)  # gradients of corners 1.. : the dual basis of the edges, in their own plane
    gradients = np.concatenate([-rest.sum(axis=1, keepdims=True), rest], axis=1)
    flat = np.minimum(1.0, good / SLIVER_FLOOR)[:, None]
    gradients, size = gradients * flat[..., None], size / flat[:, 0]
    return Elements(
        torch.as_tensor(mesh.cells, device=device),
        torch.as_tensor(gradients, dtype=dtype, device=device),
        torch.as_tensor(size, dtype=dtype, device=device),
        torch.as_tensor(mesh.points, dtype=dtype, device=device),
    )


def cell_values(element: Elements, values: object, where: str = "D") -> Tensor:
    """A number, nodal (N,) or cell (M,) values -> (M,)."""
    tensor = torch.as_tensor(values, dtype=element.size.dtype, device=element.size.device)
    count = len(element.cells)
    if tensor.ndim == 0 or tensor.shape == (count,):
        tensor = tensor.expand(count)
    elif tensor.shape == (element.nodes,):
        tensor = element.to_cells(tensor)
    else:
        raise InputError(
            where, "does not fit the mesh", found=tuple(tensor.shape), fix=f"give one value, {element.nodes} nodal or {count} cell values"
        )
    if not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
        raise InputError(
            where, "must be finite and not negative everywhere", found=f"{tensor.min().item():.3g} at worst", fix="check the map"
        )
    return tensor


def tensors(element: Elements, diffusion: Diffusion, fibres: np.ndarray | None = None) -> Tensor:
    """D in each cell: (M,) where it is isotropic, else (M, 3, 3), mm^2/TU."""
    dtype, device = element.size.dtype, element.size.device
    along = torch.as_tensor(diffusion.along, dtype=dtype, device=device)
    if along.ndim == 3:
        if along.shape != (len(element.cells), 3, 3):
            raise InputError(
                "D", "does not fit the mesh", found=tuple(along.shape), fix=f"give tensors of shape ({len(element.cells)}, 3, 3)"
            )
        return along
    scalar = cell_values(element, along)
    if diffusion.across is None:
        return scalar
    f = diffusion.fibres if diffusion.fibres is not None else fibres
    if f is None:
        raise InputError("D across fibres", "the mesh has no fibres", fix="give fibres (one vector per cell) or leave the second D out")
    f = torch.as_tensor(f, dtype=dtype, device=device)
    if element.cells.shape[1] == 3:
        f = _in_plane(element, f)
    length = f.norm(dim=1, keepdim=True)
    f = torch.where(length > 1e-8, f / length.clamp(min=1e-8), torch.zeros_like(f))
    across = cell_values(element, diffusion.across)
    return (
        across[:, None, None] * torch.eye(3, dtype=dtype, device=device) + (scalar - across)[:, None, None] * f[:, :, None] * f[:, None, :]
    )


def _in_plane(element: Elements, f: Tensor) -> Tensor:
    """Vectors (M, 3) without their part normal to the triangle; the gradients of two hat functions span its plane."""
    normal = torch.linalg.cross(element.gradients[:, 1], element.gradients[:, 2])
    normal = normal / normal.norm(dim=1, keepdim=True)
    return f - (f * normal).sum(dim=1, keepdim=True) * normal


def local_stiffness(element: Elements, D: Tensor) -> Tensor:
    """(M, C, C) element matrices |T| grad phi_i . D grad phi_j."""
    G = element.gradients
    DG = D[:, None, None] * G if D.ndim == 1 else torch.einsum("mij,mcj->mci", D, G)
    return torch.einsum("m,mci,mdi->mcd", element.size, G, DG)


@dataclass(frozen=True)
class Stiffness:
    """M^-1 K as one sparse matrix, ready for steps; `mass` (N,); `bound`, 1/TU: no eigenvalue is larger (Gershgorin)."""

    matrix: Tensor | tuple[Tensor, Tensor]
    mass: Tensor
    bound: float

    def __call__(self, V: Tensor) -> Tensor:
        """-div(D grad V) at the nodes: (N,) or (N, B) -> the same shape, 1/TU."""
        if isinstance(self.matrix, Tensor):
            return self.matrix @ V
        neighbours, weights = self.matrix
        if V.ndim == 1:
            return (weights * V.index_select(0, neighbours.reshape(-1)).view_as(weights)).sum(0)
        return torch.einsum("kn,knb->nb", weights, V[neighbours])


def stiffness(element: Elements, D: Tensor, form: str = "auto") -> Stiffness:
    """Assemble M^-1 K(D). `form`: "csr" (fast; CUDA, Linux), "gather" (neighbour table: every platform) or "auto"."""
    rows, columns = element.pairs
    values = local_stiffness(element, D).reshape(-1)
    K = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, (element.nodes,) * 2, check_invariants=False).coalesce()
    row_sums = torch.zeros_like(element.mass).index_add(0, K.indices()[0], K.values().abs())
    mass = _tempered(element.mass, row_sums)
    table = torch.sparse_coo_tensor(K.indices(), K.values() / mass[K.indices()[0]], K.shape, is_coalesced=True, check_invariants=False)
    bound = float((row_sums / mass).max())
    if form in ("auto", "csr"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls CSR a beta feature
            matrix = table.to_sparse_csr()
            try:
                matrix @ torch.zeros_like(mass)
                return Stiffness(matrix, mass, bound)
            except RuntimeError:  # torch built without a sparse library (Windows, macOS)
                if form == "csr":
                    raise
    return Stiffness(_neighbour_table(table, element.nodes), mass, bound)


def _tempered(mass: Tensor, row_sums: Tensor) -> Tensor:
    """Mass (N,) with the few nodes among tiny slivers, which alone would rule the time step, made heavier.

    At most 0.2 % of the nodes (or one), and only those with a rate 20 times the median: an even or an evenly graded mesh is left as it is.
    On a clinical atrium (8,786 nodes, edges 0.025-6 mm) 17 nodes gain a few hundredths of a mm^2 each; steps cost a third.
    """
    rate = row_sums / mass
    few = min(max(1, len(rate) // 500), len(rate) - 1)
    limit = max(float(torch.topk(rate, few + 1).values[-1]), 20.0 * float(rate.median()))
    return torch.maximum(mass, row_sums / limit) if limit > 0 else mass


def _neighbour_table(table: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """(K, N) neighbours and weights, padded with weight 0, from a coalesced COO matrix."""
    rows, columns = table.indices()
    count = torch.bincount(rows, minlength=nodes)
    rank = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
    neighbours = rows.new_zeros((int(count.max()), nodes))
    weights = table.values().new_zeros((int(count.max()), nodes))
    neighbours[rank, rows], weights[rank, rows] = columns, table.values()
    return neighbours, weights
