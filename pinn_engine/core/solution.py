"""What a solver returns: parameters, one status per problem, covariance, identifiability, history; saved and loaded without code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

import torch
from torch import Tensor

FORMAT = 1
WEAK_DIRECTION = 1e6  # condition number of the scaled information matrix beyond which a combination counts as undetermined


class Status(IntEnum):
    """How one problem ended; `sentence` is what a person reads."""

    CONVERGED = 1
    STEP_LIMIT = 2
    STALLED = 3
    AT_BOUND = 4
    UNDETERMINED = 5
    NOT_FINITE = 6

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The fit converged.",
    Status.STEP_LIMIT: "The fit stopped at the step limit before it converged.",
    Status.STALLED: "No step lowers the misfit any further, yet the fit is not at a minimum.",
    Status.AT_BOUND: "A parameter lies on its bound: the bound gave the answer, not the data.",
    Status.UNDETERMINED: "The data do not determine every parameter.",
    Status.NOT_FINITE: "The data or the model are not finite here; nothing was fitted.",
}


@dataclass(frozen=True)
class Solution:
    """B solved problems. `theta` (B, P) solver coordinates; `values` physical parameters (B,) in the order of `names`.

    Under a `Graph` coupling the covariance leaves out what neighbours add: it is an upper bound.
    """

    names: tuple[str, ...]
    theta: Tensor
    values: dict[str, Tensor]
    status: Tensor  # (B,) uint8, see Status
    cost: Tensor  # (B,) 0.5 |r|^2 at the end
    steps: Tensor  # (B,) steps used
    covariance: Tensor  # (B, Q, Q) of the named parameters, physical units
    condition: Tensor  # (B,) condition number of the scaled information matrix of the named parameters
    weakest: Tensor  # (B, Q) the combination of (scaled) parameters that the data determine least
    history: dict[str, list[float]] = field(default_factory=dict)

    def std(self, name: str) -> Tensor:
        """(B,) standard deviation of a parameter."""
        k = self.names.index(name)
        return self.covariance[:, k, k].clamp_min(0).sqrt()

    @property
    def correlation(self) -> Tensor:
        """(B, Q, Q)"""
        sd = self.covariance.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(self.covariance.dtype).tiny).sqrt()
        return self.covariance / (sd.unsqueeze(1) * sd.unsqueeze(2))

    def verdict(self, b: int = 0) -> str:
        """One sentence on what the data of problem `b` can tell apart."""
        weak = self.weakest[b].abs()
        involved = [name for name, share in zip(self.names, weak.tolist(), strict=True) if share > 0.3]
        if not torch.isfinite(self.condition[b]) or self.condition[b] > WEAK_DIRECTION:
            return f"The data do not determine {' and '.join(involved)}: only another combination of them is fixed."
        worst = self.correlation[b].abs() - torch.eye(len(self.names), dtype=weak.dtype, device=weak.device)
        if float(worst.max()) > 0.95:
            i, j = divmod(int(worst.argmax()), len(self.names))
            r = float(self.correlation[b, i, j])
            return f"{self.names[i]} and {self.names[j]} trade off (correlation {r:+.2f}): trust their combination more than either."
        return "Every parameter is determined by the data."

    def take(self, rows: Tensor) -> Solution:
        """The solution of some problems, or of all in another order."""
        per_problem = ("theta", "status", "cost", "steps", "covariance", "condition", "weakest")
        picked = {name: getattr(self, name)[rows] for name in per_problem}
        return replace(self, values={name: value[rows] for name, value in self.values.items()}, **picked)

    def save(self, path: str | Path) -> None:
        """One file of tensors, numbers and names."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        torch.save({"format": FORMAT, **content, "names": list(self.names)}, path)

    @classmethod
    def load(cls, path: str | Path) -> Solution:
        """Read what `save` wrote; no code in the file is ever run. Raises ValueError for a file of another kind or version."""
        content = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a saved solution of this version")
        return cls(**{**content, "names": tuple(content["names"])})


def uncertainty(jacobian: Tensor, reported: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance (B, Q, Q), condition (B,) and weakest direction (B, Q) of the first Q = `reported` columns of (B, R, P).

    Gauss-Newton information J^T J in float64; further columns are marginalised. Directions without information give a large but finite
    variance (the information is floored at 1e-12 of the largest), never a silent zero.
    """
    if reported == 0:
        batch = len(jacobian)
        nothing = jacobian.new_zeros(batch, 0).double()
        return nothing.unsqueeze(2), jacobian.new_ones(batch).double(), nothing
    information = jacobian.double().transpose(1, 2) @ jacobian.double()
    scale = information.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
    scale = torch.where(scale.isfinite() & (scale < 1e150), scale, 1.0)
    scaled = information * scale.unsqueeze(1) * scale.unsqueeze(2)
    identity = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
    scaled = torch.where(scaled.isfinite().all(dim=(1, 2), keepdim=True), scaled, identity)
    if reported < scaled.shape[1]:
        nuisance = scaled[:, reported:, reported:] + 1e-10 * identity[reported:, reported:]
        cross = scaled[:, :reported, reported:]
        scaled = scaled[:, :reported, :reported] - cross @ torch.linalg.solve(nuisance, cross.transpose(1, 2))
        scale = scale[:, :reported]
    eigenvalue, vector = _eigh(scaled)
    floored = eigenvalue.clamp_min(1e-12)
    covariance = (vector / floored.unsqueeze(1)) @ vector.transpose(1, 2)
    condition = eigenvalue[:, -1].clamp_min(1.0) / floored[:, 0]  # clamped: no information at all is the worst condition, not the best
    return covariance * scale.unsqueeze(1) * scale.unsqueeze(2), condition, vector[:, :, 0]


def identifiability(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Condition (B,) and weakest direction (B, Q) of what is known jointly, from the correlations of a covariance (B, Q, Q)."""
    scale = covariance.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
    correlation = torch.nan_to_num(covariance * scale.unsqueeze(1) * scale.unsqueeze(2))
    eigenvalue, vector = _eigh(correlation)
    return eigenvalue[:, -1] / eigenvalue[:, 0].clamp_min(1e-12), vector[:, :, -1]


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors of symmetric (B, Q, Q); written out for 2 x 2, where a LAPACK call a problem would dominate."""
    if matrix.shape[-1] != 2:
        return torch.linalg.eigh(matrix)
    mean, half = 0.5 * (matrix[:, 0, 0] + matrix[:, 1, 1]), 0.5 * (matrix[:, 0, 0] - matrix[:, 1, 1])
    angle = 0.5 * torch.atan2(matrix[:, 0, 1], half)  # of the larger eigenvalue's vector
    radius = torch.hypot(half, matrix[:, 0, 1])
    c, s = angle.cos(), angle.sin()
    return torch.stack([mean - radius, mean + radius], dim=1), torch.stack([-s, c, c, s], dim=1).reshape(-1, 2, 2)


def merge(parts: list[Solution]) -> Solution:
    """One solution of solved chunks, in order; the history is the mean over chunks weighted by their size."""
    if len(parts) == 1:
        return parts[0]
    sizes = [part.theta.shape[0] for part in parts]
    return Solution(
        names=parts[0].names,
        theta=torch.cat([part.theta for part in parts]),
        values={name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values},
        status=torch.cat([part.status for part in parts]),
        cost=torch.cat([part.cost for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        covariance=torch.cat([part.covariance for part in parts]),
        condition=torch.cat([part.condition for part in parts]),
        weakest=torch.cat([part.weakest for part in parts]),
        history=_mean_history([part.history for part in parts], sizes),
    )


def _mean_history(histories: list[Mapping[str, list[float]]], sizes: list[int]) -> dict[str, list[float]]:
    """A chunk that ended early keeps its last value."""
    merged = {}
    for key in histories[0]:
        length = max(len(h[key]) for h in histories)
        padded = [list(h[key]) + [h[key][-1]] * (length - len(h[key])) for h in histories]
        merged[key] = [sum(row[i] * n for row, n in zip(padded, sizes, strict=True)) / sum(sizes) for i in range(length)]
    return merged
