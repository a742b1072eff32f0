"""A coarse space for conjugate gradients: few broad functions that take over what neighbour-to-neighbour steps carry too slowly.

Hat functions on a wide grid, one set for each kind of node, since kinds are nearly independent. Added to the block-Jacobi preconditioner
(two-level additive Schwarz) they cut the iterations several times; without them the smoothest modes of the samples do not converge, and
intervals come out too narrow.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

MOST, NODES_EACH = 1200, 30  # broad functions at most, and nodes to each: their dense matrix is the only one here, and stays small
LEAST_PITCH = 3.0  # nodes


def hats(position: np.ndarray, kind: np.ndarray) -> sparse.csr_matrix:
    """(V, J) trilinear hats at nodes `position` (V, 3), in units of the shortest edge, one set a `kind` (V,); J <= MOST."""
    pitch, most = LEAST_PITCH, max(min(MOST, len(kind) // NODES_EACH), 1)
    for _ in range(60):
        made = _hats(position, kind, pitch)
        if made.shape[1] <= most:
            break
        pitch *= max((made.shape[1] / most) ** (1 / 3), 1.05)
    return made


def _hats(position: np.ndarray, kind: np.ndarray, pitch: float) -> sparse.csr_matrix:
    place = (position - position.min(axis=0)) / pitch
    low = np.floor(place).astype(np.int64)
    part = place - low
    size = low.max(axis=0) + 2
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        columns.append(((at[:, 0] * size[1] + at[:, 1]) * size[2] + at[:, 2]) * (int(kind.max()) + 1) + kind)
        values.append(weight)
        rows.append(np.arange(len(place)))
    row, value = np.concatenate(rows), np.concatenate(values)
    _, column = np.unique(np.concatenate(columns), return_inverse=True)
    full = sparse.csr_matrix((value.astype(np.float32), (row, column.reshape(-1))), shape=(len(place), int(column.max()) + 1))
    weighty = np.asarray(full.power(2).sum(axis=0)).ravel() > 1e-3  # functions that no node lies under have no matrix entry
    return full[:, np.flatnonzero(weighty)].tocsr()


class CoarseSpace:
    """P (V, J) and what it makes of R; `correction` is P (P' H P)^-1 P', one field at a time."""

    def __init__(self, basis: sparse.csr_matrix):
        self.basis = basis
        self.down, self.up = _torch(basis.T.tocsr()), _torch(basis)

    def stiffness(self, matrices: list[Tensor]) -> list[Tensor]:
        """(J, J) dense (R P)' (R P) of each field."""
        made = []
        for matrix in matrices:
            r = sparse.csr_matrix(
                (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=tuple(matrix.shape)
            )
            rough = r @ self.basis
            made.append(torch.as_tensor((rough.T @ rough).toarray()))
        return made

    def inverse(self, stiffness: list[Tensor], strength: Tensor, information: Tensor) -> list[Tensor]:
        """(J, J) inverses of P' (A_kk + d_k R_k^2) P."""
        out = []
        for k, stiff in enumerate(stiffness):
            weighted = self.basis.multiply(information[k, k].numpy()[:, None]).tocsr()
            full = (float(strength[k]) * stiff + torch.as_tensor((self.basis.T @ weighted).toarray())).float()
            full.diagonal().add_(1e-5 * full.diagonal().mean() + 1e-12)
            factor, info = torch.linalg.cholesky_ex(full)
            out.append(torch.cholesky_inverse(factor) if int(info) == 0 else torch.zeros_like(full))
        return out

    def correction(self, inverse: list[Tensor], x: Tensor) -> Tensor:
        """(F, V, S)"""
        return torch.stack([self.up @ (inv @ (self.down @ x[k])) for k, inv in enumerate(inverse)])


def _torch(matrix: sparse.csr_matrix) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sparse CSR is announced as beta
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr.astype(np.int64)),
            torch.as_tensor(matrix.indices.astype(np.int64)),
            torch.as_tensor(matrix.data.astype(np.float32)),
            matrix.shape,
        )
