"""Where the equation is asked to hold: time intervals that end at the data times, and the equation as rows on the values at their edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..core import LinearField, ReducedNetwork, eliminate_output_layer


@dataclass(frozen=True)
class Collocation:
    """M intervals and E edges for G groups of voxels (slices read at different times have different data times).

    One curve a label duration: each starts at 0 with its own edges. `at_data` (K,) is the edge at which data point k lies.
    """

    edges: Tensor  # (G, E) s, float64
    low: Tensor  # (M,) index of each interval's lower edge
    high: Tensor  # (M,)
    tau: Tensor  # (M,) label duration of the curve that the interval belongs to
    at_data: Tensor  # (K,)
    first: Tensor  # (L,) index of each curve's edge at t = 0

    @property
    def widths(self) -> Tensor:
        """(G, M)"""
        return self.edges[:, self.high] - self.edges[:, self.low]

    def equation_rows(self, group: int, loss_rate: float) -> Tensor:
        """(M, E): [S(high) - S(low) + loss_rate * trapezoid(S)] / sqrt(width), for S linear between edges.

        Divided by the root of the width, rows of one standard deviation mean white noise in the equation whatever the spacing.
        """
        width = self.widths[group]
        rows = torch.zeros(len(self.low), self.edges.shape[1], dtype=torch.float64)
        index = torch.arange(len(self.low))
        rows[index, self.high] = (1 + 0.5 * loss_rate * width) / width.sqrt()
        rows[index, self.low] = (-1 + 0.5 * loss_rate * width) / width.sqrt()
        return rows


def collocate(times: Tensor, label_duration: Tensor, delays: Tensor, spacing: float) -> Collocation:
    """Intervals of about `spacing` s between the data times (K,) of each label duration (K,), shifted by each of `delays` (G,).

    Data times are always edges; the number of intervals is the same for every group.
    """
    times, delays = times.double(), delays.double()
    edges, low, high, tau, first = [], [], [], [], []
    at_data = torch.zeros(len(times), dtype=torch.long)
    start = 0
    for duration in label_duration.unique():
        own = (label_duration == duration).nonzero().squeeze(1)
        stops, order = times[own].unique(return_inverse=True)
        previous, count = torch.zeros_like(delays), 0
        columns = [torch.zeros_like(delays)]
        ends = []
        for stop in stops:
            here = stop + delays
            pieces = max(1, int(torch.ceil((here - previous).max() / spacing)))
            columns += [previous + (here - previous) * (i + 1) / pieces for i in range(pieces)]
            count += pieces
            ends.append(count)
            previous = here
        edges.append(torch.stack(columns, dim=1))
        at_data[own] = start + torch.tensor(ends)[order]
        first.append(start)
        low.append(start + torch.arange(count))
        high.append(start + torch.arange(count) + 1)
        tau.append(duration.double().expand(count))
        start += count + 1
    return Collocation(torch.cat(edges, 1), torch.cat(low), torch.cat(high), torch.cat(tau), at_data, torch.tensor(first))


def reduced_network(c: Collocation, group: int, loss_rate: float, repeats: Tensor, train: Tensor | None = None) -> ReducedNetwork:
    """The shared-feature network of one group with its output layer eliminated.

    The network has one hidden layer of rectified units at the edges, S(t) = sum_k c_k relu(t - t_k), so that S(0) = 0 is exact. `train`
    (K, K) is what a Look-Locker readout makes of the curve at the data times.
    """
    at_edges = torch.zeros(c.edges.shape[1], len(c.low), dtype=torch.float64)
    bounds = [*c.first.tolist(), c.edges.shape[1]]
    for k, (begin, end) in enumerate(pairwise(bounds)):
        knots = c.edges[group, begin:end]
        at_edges[begin:end, begin - k : end - k - 1] = LinearField.rectified(knots).features(knots)
    at_data = at_edges[c.at_data] if train is None else train @ at_edges[c.at_data]
    return eliminate_output_layer(at_data, c.equation_rows(group, loss_rate) @ at_edges, repeats)
