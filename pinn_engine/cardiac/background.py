"""A smooth background under the pieces of a map: u = log D = pieces + background, total variation on the pieces alone.

Total variation by itself makes steps of a background that changes slowly. The sum of both is an infimal convolution (Chambolle & Lions
1997, doi:10.1007/s002110050258). The background is a normal random field with covariance spread^2 exp(-d^2 / (2 reach^2)) away from edges,
spanned by the lowest modes of the tissue's own Laplacian (Solin & Sarkka 2020, doi:10.1007/s11222-019-09886-w), so that it lives on
squares, curved surfaces and volumes, and is longer along fibres. Lengths in l0 = sqrt(D0 / k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.sparse_linear import BorderedNormal, factorise
from .eikonal import EikonalDiffusion

COUNT = 60  # modes: on 8,000 l0^2 of surface they carry waves of 30 l0 and more
LEAST_NODES = 10 * COUNT
SPREAD = 0.25  # sd of the background's log D once it is asked for
REACH = 16.0  # with which the data are asked
SPREADS = (0.01, 0.03, 0.06, 0.1, 0.14, 0.2, 0.28, 0.4)  # the first: none
REACHES = (8.0, 12.0, 16.0, 24.0, 32.0)
SILENT = 1e-6  # sd of a mode that the covariance does not reach


@dataclass(frozen=True)
class Background:
    """basis (N, K) c, c independent with sd (K,)."""

    basis: Tensor
    sd: Tensor
    reach: float


@dataclass(frozen=True)
class Modes:
    """The lowest modes of the tissue: `rate` (K,) eigenvalues of -laplacian in 1 / l0^2, `basis` (N, K) with mean square 1."""

    rate: np.ndarray
    basis: np.ndarray

    def sd(self, spread: float, reach: float) -> np.ndarray:
        """(K,) of the coefficients, spread^2 in all."""
        density = np.exp(-0.5 * self.rate * reach**2)
        return np.maximum(spread * np.sqrt(density / density.sum()), SILENT)

    def background(self, reach: float = REACH, spread: float = SPREAD) -> Background:
        return Background(torch.from_numpy(self.basis), torch.from_numpy(self.sd(spread, reach)), reach)

    def asked_reach(self, normal: BorderedNormal, background: Background, coefficients: np.ndarray) -> float | None:
        """The reach of greatest evidence, given a fit with `background` and its information; None where no background has more.

        The evidence of the coefficients alone, in Laplace's approximation, activation times and pieces eliminated. It chooses no spread:
        pieces that have been fitted leave too little of it.
        """
        own = 1.0 / background.sd.numpy() ** 2
        told, pull = normal.schur - np.diag(own), normal.schur @ coefficients
        tried = {(spread, reach): _evidence(told, pull, self.sd(spread, reach)) for spread in SPREADS for reach in REACHES}
        spread, reach = max(tried, key=lambda both: tried[both])
        return None if spread == SPREADS[0] else reach


def modes(equation: EikonalDiffusion, length: float, count: int = COUNT) -> Modes | None:
    """Of the tissue with no flux through its edges; `length` l0 mm. None for a mesh of too few nodes."""
    from scipy.sparse import csc_matrix, diags, identity
    from scipy.sparse.linalg import LinearOperator, eigsh

    mass = equation.element.mass.numpy()
    n = len(mass)
    if n < LEAST_NODES:
        return None
    row, column, value = (x.numpy() for x in equation.laplacian_rows(length**2))
    half = csc_matrix((value, (row, column)), shape=(n, n)) @ diags(mass**-0.5)  # M^-1/2 K M^-1/2
    matrix = (half + half.T) / 2.0
    below = -0.1 * length**2 / mass.sum() ** (2.0 / (equation.element.cells.shape[1] - 1))
    inverse = LinearOperator((n, n), matvec=factorise(matrix - below * identity(n)).solve)
    rate, vector = eigsh(matrix, count, sigma=below, OPinv=inverse, v0=np.ones(n))
    order = np.argsort(rate)
    basis = vector[:, order] / np.sqrt(mass / mass.sum())[:, None]
    return Modes(np.maximum(rate[order], 0.0), basis)


def _evidence(told: np.ndarray, pull: np.ndarray, sd: np.ndarray) -> float:
    """log of the integral over c of exp(pull c - c told c / 2) N(c; 0, sd^2), but for a constant."""
    scaled = np.eye(len(sd)) + sd[:, None] * told * sd
    sign, log_size = np.linalg.slogdet(scaled)
    if sign <= 0:
        return -np.inf
    return float(0.5 * (sd * pull) @ np.linalg.solve(scaled, sd * pull) - 0.5 * log_size)
