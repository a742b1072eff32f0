"""What enters linearly is solved for, not searched for.

Variable projection (Golub & Pereyra 1973, doi:10.1137/0710036, with Kaufman's Jacobian 1975, doi:10.1007/BF01932995) takes amplitudes such
as CBF out of the search. `eliminate_output_layer` does the same with a whole network: see its text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .linear import solve_spd
from .problem import Problem, stack
from .unknowns import Unknowns


class Separable(Problem):
    """r = target - sum_l c_l basis_l(theta), the amplitudes c (B, L) eliminated; rows are in units of their standard deviation.

    Subclasses give `basis`. Amplitudes are unbounded and signed: noise may make them negative, clipping them would bias their mean.
    """

    def __init__(self, target: Tensor, unknowns: Unknowns, linear: tuple[str, ...]):
        self.target, self.unknowns, self.linear = target, unknowns, linear
        self.names = linear + unknowns.names

    def basis(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, R, L) basis and (B, R, L, P) its derivative by the physical nonlinear unknowns, in the order of `unknowns.names`."""
        raise NotImplementedError

    def amplitudes(self, basis: Tensor) -> Tensor:
        """(B, L) the least-squares amplitudes; 0 where the basis vanishes (nothing arrives: any amplitude fits, none is supported)."""
        return self._project(basis, self.target.unsqueeze(-1)).squeeze(-1)

    def _project(self, basis: Tensor, columns: Tensor) -> Tensor:
        """(B, L, Q) coefficients of the columns (B, R, Q) in the basis."""
        gram = (basis.unsqueeze(-1) * basis.unsqueeze(-2)).sum(dim=1)
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        diagonal += (diagonal <= torch.finfo(basis.dtype).tiny ** 0.5).to(basis.dtype)
        return solve_spd(gram, (basis.unsqueeze(-1) * columns.unsqueeze(-2)).sum(dim=1))

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        basis, _ = self.basis(self.unknowns.values(theta))
        data = self.target - (basis * self.amplitudes(basis).unsqueeze(1)).sum(dim=-1)
        return {"data": data, "prior": self.unknowns.prior(theta)[0]}

    def linearise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        basis, slope = self.basis(self.unknowns.values(theta))
        amplitude = self.amplitudes(basis)
        data = self.target - (basis * amplitude.unsqueeze(1)).sum(dim=-1)
        change = -(slope * amplitude[:, None, :, None]).sum(dim=2) * self.unknowns.slopes(theta).unsqueeze(1)  # (B, R, P)
        change = change - (basis.unsqueeze(-1) * self._project(basis, change).unsqueeze(1)).sum(dim=2)
        prior, prior_slope = self.unknowns.prior(theta)
        rows, columns = {"data": data, "prior": prior}, {"data": change, "prior": prior_slope}
        return stack(rows, self.weights), stack(columns, self.weights)

    def values(self, theta: Tensor) -> dict[str, Tensor]:
        values = self.unknowns.values(theta)
        amplitude = self.amplitudes(self.basis(values)[0])
        return {name: amplitude[:, k] for k, name in enumerate(self.linear)} | {name: values[name] for name in self.unknowns.names}

    def slopes(self, theta: Tensor) -> Tensor:
        return self.unknowns.slopes(theta)

    def at_bound(self, theta: Tensor) -> Tensor:
        return self.unknowns.at_bound(theta)

    def sensitivities(self, theta: Tensor) -> Tensor:
        """(B, R, L + P): amplitudes count as parameters again, so that their uncertainty includes that of the others."""
        basis, slope = self.basis(self.unknowns.values(theta))
        amplitude = self.amplitudes(basis)
        nonlinear = -(slope * amplitude[:, None, :, None]).sum(dim=2)
        prior_slope = self.unknowns.prior(theta)[1] / self.unknowns.slopes(theta).unsqueeze(1)
        prior_rows = torch.cat([prior_slope.new_zeros(*prior_slope.shape[:2], len(self.linear)), prior_slope], dim=2)
        return stack({"data": torch.cat([-basis, nonlinear], dim=2), "prior": prior_rows}, self.weights)


@dataclass(frozen=True)
class ReducedNetwork:
    """A network with linear output layer, seen from the data after that layer has been eliminated.

    The network S(t) = Phi(t) c has data rows (y - Phi c) / s with covariance s^2 diag(1 / weight), and equation rows (Psi c - f b) / q,
    one an interval. Minimising over c leaves N rows: rotate y and the predicted f T b by V^T, divide row n by sqrt(s^2 + q^2 lambda_n).
    """

    propagator: Tensor  # T V: (M, N), supply per interval -> rotated prediction at the data
    rotation: Tensor  # V: (N, N), rotated data = y @ V
    spread: Tensor  # lambda: (N,), variance of row n is s^2 + q^2 lambda_n


def eliminate_output_layer(at_data: Tensor, equation: Tensor, weight: Tensor) -> ReducedNetwork:
    """Eliminate the output layer of a network with K features: `at_data` Phi (N, K), `equation` Psi (K, K), `weight` (N,).

    What remains is generalised least squares whose covariance is noise plus the model error that equation rows of level q allow:
    C = s^2 diag(1 / weight) + q^2 Phi (Psi^T Psi)^-1 Phi^T. V diagonalises both parts at once, so that s and q may differ in every problem
    at no cost. Raises ValueError where there are not as many equation rows as features.
    """
    if equation.shape[0] != equation.shape[1]:
        raise ValueError(f"as many equation rows as features are needed, got {equation.shape[0]} rows and {equation.shape[1]} features")
    at_data, equation, weight = at_data.double(), equation.double(), weight.double()
    transfer = torch.linalg.solve(equation, at_data, left=False)  # Phi Psi^-1, (N, K)
    root = weight.sqrt()
    spread, vectors = torch.linalg.eigh(root[:, None] * (transfer @ transfer.T) * root)
    rotation = root[:, None] * vectors
    return ReducedNetwork(transfer.T @ rotation, rotation, spread.clamp_min(0))
