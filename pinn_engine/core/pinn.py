"""A physics-informed neural network from its parts: a network, points, equations, conditions, data, unknown parameters.

    heat = Term(points, lambda u, p, t, x: u.t - p["D"] * u.xx)
    problem = Pinn(MLP((2, 20, 20, 1)), {"equation": heat, "data": data}, low, high, Unknowns({"D": Free(0.0, 1.0)}))
    fit = LevenbergMarquardt().solve(problem, problem.start())

It is a `Problem` (Raissi, Perdikaris & Karniadakis 2019, doi:10.1016/j.jcp.2018.10.045): every solver takes it, and its solution has
covariance and identifiability. Derivatives of the network go forward by hand (`core.jets`), and so does the Jacobian by the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import jets
from .calculus import Jet, coordinates
from .fields import MLP
from .problem import Problem, stack
from .skip import SkipMLP
from .unknowns import Unknowns

Inputs = Callable[..., tuple[Any, ...]]  # of the coordinates' jets (t, x_1 ..): what the network is shown
Ansatz = Callable[..., Any]  # of (u, p, t, x_1 ..), all jets but p: the field made of the network's output


@dataclass(frozen=True)
class Term:
    """Rows `row(u, p, t, x_1 ..)` at `points` (N, 1 + d), columns time, then place; minus `target` (N,) where there is one.

    u is a `Jet` (a tuple of them for networks with several outputs), p the parameters by name, t and x_1 .. plain columns (N,). A row
    function may return several rows (a tuple). With `sd` every row counts as one observation of that standard deviation; without, the
    mean square over the points counts, however many there are. `weight` (N,): of each point, e.g. causal.
    """

    points: Tensor
    row: Callable[..., Any]
    target: Tensor | None = None
    sd: float | None = None
    weight: Tensor | None = None

    def take(self, rows: Tensor) -> Term:
        """A share of the points that stands for all of them: where every row counts, each then counts for several."""
        weight = torch.ones_like(self.points[:, 0]) if self.weight is None else self.weight
        each = 1.0 if self.sd is None else len(self.points) / len(rows)
        target = None if self.target is None else self.target[rows]
        return replace(self, points=self.points[rows], target=target, weight=each * weight[rows])

    def scale(self) -> Tensor:
        """(N,) what each row is multiplied by."""
        root = torch.ones_like(self.points[:, 0]) if self.weight is None else self.weight.sqrt()
        return root / self.sd if self.sd is not None else root / len(self.points) ** 0.5


class Pinn(Problem):
    """theta (B, Q + W): the free unknowns, then the weights of one network per problem (B = 1, or an ensemble of starts).

    `low`, `high` (1 + d): the box that is scaled to -1..1 before the network sees it; `inputs` replaces that by features of the
    coordinates; `ansatz` makes the field of the network's output, so that conditions hold exactly. `weights`: of the terms by name.
    """

    def __init__(
        self,
        network: MLP | SkipMLP,
        terms: Mapping[str, Term],
        low: Tensor,
        high: Tensor,
        unknowns: Unknowns | None = None,
        *,
        inputs: Inputs | None = None,
        ansatz: Ansatz | None = None,
        weights: Mapping[str, float | Tensor] | None = None,
    ):
        self.network, self.parts, self.low, self.high = network, dict(terms), low, high
        self.unknowns = unknowns or Unknowns({})
        self.inputs, self.ansatz, self.weights = inputs or normalised(low, high), ansatz, dict(weights or {})
        self.names = self.unknowns.names
        self._shown = {name: self._show(term.points) for name, term in self.parts.items()}

    def but(self, terms: Mapping[str, Term] | None = None, weights: Mapping[str, float | Tensor] | None = None) -> Pinn:
        """The same with some terms or weights replaced: new points, other balance."""
        both = self.parts | dict(terms or {}), dict(self.weights if weights is None else weights)
        return Pinn(self.network, both[0], self.low, self.high, self.unknowns, inputs=self.inputs, ansatz=self.ansatz, weights=both[1])

    def start(self, batch: int = 1, seed: int = 0, *, uniform: bool = False, **values: float) -> Tensor:
        """theta (B, Q + W) float64: Glorot weights (seeded), unknowns at `values` (default: the middle of their range, theta = 0)."""
        weights = self.network.glorot(batch, torch.Generator().manual_seed(seed), uniform=uniform, dtype=torch.float64)
        if not self.unknowns.size:
            return weights
        known = self.unknowns.values(torch.zeros(batch, self.unknowns.size, dtype=torch.float64))
        chosen = {name: torch.full_like(weights[:, 0], value) for name, value in values.items()}
        return torch.cat([self.unknowns.internal(known | chosen), weights], dim=1)

    def minibatch(self, count: int, generator: torch.Generator) -> Pinn:
        """At most `count` points of each term, drawn anew: what a step of `Adam` may see."""
        chosen = {name: torch.randperm(len(term.points), generator=generator)[:count] for name, term in self.parts.items()}
        return self.but({name: term.take(chosen[name]) for name, term in self.parts.items()})

    def field(self, theta: Tensor, points: Tensor, problem: int = 0) -> Any:
        """The field of one problem at points (N, 1 + d): a `Jet`, or a tuple of them."""
        with torch.no_grad():
            out = self._run(theta[problem, self.unknowns.size :], self._show(points)).output
            return self._dress(out, self._parameters(theta[:, : self.unknowns.size], problem), points)

    def rows(self, name: str, theta: Tensor, problem: int = 0, points: Tensor | None = None) -> Tensor:
        """(N,) or (N, k) what one term's function returns, without target and scale, at its points or at others.

        Refinement and causal weights look at it.
        """
        term = self.parts[name]
        at = term.points if points is None else points
        shown = self._shown[name] if points is None else self._show(points)
        with torch.no_grad():
            out = self._run(theta[problem, self.unknowns.size :], shown).output
            found = self._rows(term, out, self._parameters(theta[:, : self.unknowns.size], problem), at)
        return found[0] if len(found) == 1 else torch.stack(found, dim=1)

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        free = theta[:, : self.unknowns.size]
        blocks: dict[str, Tensor] = {}
        for name, term in self.parts.items():
            rows = []
            for b in range(len(theta)):
                out = self._run(theta[b, self.unknowns.size :], self._shown[name]).output
                rows.append(torch.cat(self._scaled(term, out, self._parameters(free, b))))
            blocks[name] = torch.stack(rows)
        return blocks | {"prior": self.unknowns.prior(free)[0]}

    def linearise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        blocks = {name: self.block(name, theta) for name in self.parts}
        prior, slope = self.unknowns.prior(theta[:, : self.unknowns.size])
        slope = torch.cat([slope, slope.new_zeros(*slope.shape[:2], self.network.size)], dim=2)
        rows = {name: row for name, (row, _) in blocks.items()} | {"prior": prior}
        slopes = {name: jacobian for name, (_, jacobian) in blocks.items()} | {"prior": slope}
        return stack(rows, self.weights), stack(slopes, self.weights)

    @torch.no_grad()
    def block(self, name: str, theta: Tensor) -> tuple[Tensor, Tensor]:
        """One term's rows (B, R_k) and Jacobian (B, R_k, Q + W), without the term's weight."""
        size = self.unknowns.size
        found = [self._linear(name, theta[b, size:], theta[:, :size], b) for b in range(len(theta))]
        return torch.stack([row for row, _ in found]), torch.stack([slope for _, slope in found])

    def values(self, theta: Tensor) -> dict[str, Tensor]:
        found = self.unknowns.values(theta[:, : self.unknowns.size])
        return {name: found[name] for name in self.names}

    def slopes(self, theta: Tensor) -> Tensor:
        size = self.unknowns.size
        return torch.cat([self.unknowns.slopes(theta[:, :size]), torch.ones_like(theta[:, size:])], dim=1)

    def at_bound(self, theta: Tensor) -> Tensor:
        return self.unknowns.at_bound(theta[:, : self.unknowns.size])

    def take(self, rows: Tensor) -> Pinn:
        part = self.but()
        part.unknowns = self.unknowns.take(rows)
        part.weights = {name: w[rows] if isinstance(w, Tensor) and w.ndim else w for name, w in self.weights.items()}
        return part

    def _linear(self, name: str, weights: Tensor, free: Tensor, b: int) -> tuple[Tensor, Tensor]:
        """Rows (R,) and Jacobian (R, Q + W): row n depends on the jets at point n alone, so its slopes by them are one backward pass."""
        term, done = self.parts[name], self._run(weights, self._shown[name])

        def rows(out: Tensor, own: Tensor) -> tuple[Tensor, ...]:
            return self._scaled(term, out, self._parameters(free, b, own))

        found, back = torch.func.vjp(lambda out: rows(out, free[b]), done.output)[:2]
        blocks = []
        for k, row in enumerate(found):
            seeds = back(tuple(torch.ones_like(r) if j == k else torch.zeros_like(r) for j, r in enumerate(found)))[0]
            columns = [torch.func.jvp(lambda own, k=k: rows(done.output, own)[k], (free[b],), (unit,))[1] for unit in _units(free[b])]
            blocks.append(torch.cat([torch.stack(columns, dim=1) if columns else row[:, None][:, :0], self._pull(done, seeds)], dim=1))
        return torch.cat(found), torch.cat(blocks)

    def _parameters(self, free: Tensor, b: int, own: Tensor | None = None) -> dict[str, Tensor]:
        """Values of problem b's unknowns, numbers; `own` (Q,) in the place of its row of theta."""
        if own is not None:
            free = torch.cat([free[:b], own[None], free[b + 1 :]])
        return {name: value[b] for name, value in self.unknowns.values(free).items()}

    def _scaled(self, term: Term, out: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found, scale = self._rows(term, out, p, term.points), term.scale()
        return tuple((row if term.target is None else row - term.target) * scale for row in found)

    def _rows(self, term: Term, out: Tensor, p: dict[str, Tensor], points: Tensor) -> tuple[Tensor, ...]:
        found = term.row(self._dress(out, p, points), p, *points.unbind(dim=1))
        return found if isinstance(found, tuple) else (found,)

    def _dress(self, out: Tensor, p: dict[str, Tensor], points: Tensor) -> Any:
        """The field as jets, made of the network's output (C, N, O)."""
        made = tuple(Jet(one) for one in out.unbind(dim=2))
        u = made[0] if len(made) == 1 else made
        return u if self.ansatz is None else self.ansatz(u, p, *coordinates(points))

    def _show(self, points: Tensor) -> Tensor:
        """(C, N, I) what the network is shown at points."""
        shown = torch.stack([jet.channels for jet in self.inputs(*coordinates(points))], dim=2)
        if shown.shape[2] != self.network.layers[0]:
            raise ValueError(f"the network takes {self.network.layers[0]} inputs, there are {shown.shape[2]} features of the coordinates")
        return shown

    def _run(self, weights: Tensor, shown: Tensor) -> jets.Pass:
        return self.network.forward(weights, shown) if isinstance(self.network, SkipMLP) else jets.forward(self.network, weights, shown)

    def _pull(self, done: jets.Pass, seeds: Tensor) -> Tensor:
        return self.network.pull_back(done, seeds) if isinstance(self.network, SkipMLP) else jets.pull_back(self.network, done, seeds)


def _units(vector: Tensor) -> list[Tensor]:
    return list(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))


def normalised(low: Tensor, high: Tensor) -> Inputs:
    """The coordinates scaled to -1..1 over the box."""
    return lambda *at: tuple((2.0 * c - float(a + b)) / float(b - a) for c, a, b in zip(at, low, high, strict=True))


def harmonics(count: int, low: Tensor, high: Tensor, axis: int = 0) -> Inputs:
    """The scaled coordinates, and sin(k pi s), cos(k pi s), k = 1 .. `count`, of one of them: for what is periodic or rises fast."""
    plain = normalised(low, high)

    def features(*at: Jet) -> tuple[Any, ...]:
        scaled = plain(*at)
        waves: list[Any] = [k * torch.pi * scaled[axis] for k in range(1, count + 1)]
        return (*scaled, *(torch.sin(w) for w in waves), *(torch.cos(w) for w in waves))

    return features


def random_fourier(count: int, sd: float | tuple[float, ...], low: Tensor, high: Tensor, seed: int = 0) -> Inputs:
    """sin and cos of `count` random directions, entries N(0, sd^2) of the scaled coordinates, one sd per axis (Tancik et al. 2020)."""
    axes = len(low)
    spread = torch.tensor([sd] * axes if isinstance(sd, int | float) else sd, dtype=torch.float64)
    rates = spread * torch.randn(count, axes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = normalised(low, high)

    def features(*at: Jet) -> tuple[Any, ...]:
        scaled = torch.stack([c.channels for c in plain(*at)])  # (axes, C, N)
        waves: list[Any] = [Jet(w) for w in torch.einsum("ka,acn->kcn", rates.to(scaled), scaled)]
        return (*(torch.sin(w) for w in waves), *(torch.cos(w) for w in waves))

    return features
