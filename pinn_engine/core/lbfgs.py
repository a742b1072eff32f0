"""L-BFGS on the same 0.5 |r|^2: the last stage that most PINNs have after Adam (Liu & Nocedal 1989, doi:10.1007/BF01589116)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .couplings import Coupling, Independent
from .problem import Problem
from .solution import Solution
from .solvers import judged


@dataclass(frozen=True)
class LBFGS:
    """At most `steps` iterations a problem, `memory` pairs, line search after the strong Wolfe conditions.

    Problems are searched one after another, for a line search has one length; they must be independent. The status says whether the end
    is a minimum, as for `Adam`: torch's own search ends without a reason, also where its line search failed.
    """

    steps: int = 200
    memory: int = 30
    relative: float = 1e-3

    def solve(self, problem: Problem, theta: Tensor, coupling: Coupling | None = None) -> Solution:
        """As `LevenbergMarquardt.solve`. Raises ValueError for coupled problems."""
        if not isinstance(coupling or Independent(), Independent):
            raise ValueError("L-BFGS searches each problem alone; coupled problems are for LevenbergMarquardt or Adam")
        ends, taken, history = [], list[int](), list[list[float]]()
        for b in range(len(theta)):
            row = torch.tensor([b], device=theta.device)
            end, count, costs = self._search(problem.take(row), theta[row])
            ends.append(end)
            taken.append(count)
            history.append(costs)
        longest = max(len(costs) for costs in history)
        mean = [sum(costs[min(i, len(costs) - 1)] for costs in history) / len(history) for i in range(longest)]
        told = {"cost": mean, "active": [1.0] * longest}
        steps = torch.tensor(taken, dtype=torch.int16, device=theta.device)
        return judged(problem, torch.cat(ends), Independent(), self.relative, steps, told)

    def _search(self, problem: Problem, start: Tensor) -> tuple[Tensor, int, list[float]]:
        x = start.detach().clone().requires_grad_(True)
        search = torch.optim.LBFGS(
            [x], max_iter=self.steps, history_size=self.memory, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-15
        )
        costs: list[float] = []

        def cost() -> Tensor:
            search.zero_grad()
            total = 0.5 * (problem.residual(x) ** 2).sum()
            total.backward()
            costs.append(float(total.detach()))
            return total

        search.step(cost)
        taken = int(search.state[x]["n_iter"])
        best = x.detach() if bool(x.isfinite().all()) else start
        return best, taken, [min(costs[: i + 1]) for i in range(0, len(costs), max(1, len(costs) // 50))]
