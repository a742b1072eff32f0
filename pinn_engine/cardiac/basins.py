"""Basins of T: tissue that comes before all the tissue round it, though the wave does not start there.

A wave has no source within tissue, but on coarse cells the discrete equation lets one in: a node pulled far below its neighbours gives the
cells round it any slope they lack where the measured times are flat. What flooding from the start would drown (as basins of a landscape are
filled: Barnes, Lehman & Mulla 2014, doi:10.1016/j.cageo.2013.04.024) is such a basin, and a fit lets none arise. Where several measured
times ask for one, a wave breaks through: a start like the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fem import Elements

POINTS = 3  # measured times that make a basin a start
SURE = 2.0  # standard deviations by which each of them is earlier than its rim


@dataclass(frozen=True)
class Basins:
    """Nodes (B,) that are too early, and those (B,) whose T is the level up to which: where a basin would overflow."""

    node: np.ndarray
    saddle: np.ndarray


@dataclass(frozen=True)
class Landscape:
    """The mesh as a graph of N nodes with edges `one`, `two` (E,)."""

    one: np.ndarray
    two: np.ndarray
    nodes: int

    @classmethod
    def of(cls, element: Elements) -> Landscape:
        own, other = (x.numpy() for x in element.pairs)
        one, two = np.unique(np.stack([own, other])[:, own < other], axis=1)
        return cls(one, two, element.nodes)

    def flooded(self, T: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(N,) the node of the latest T on the way from the start that keeps this T earliest; `start` (N,) bool.

        Such ways run along a minimum spanning tree.
        """
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

        n, first = self.nodes, np.flatnonzero(start)
        later = np.maximum(T[self.one], T[self.two]) - T.min() + 1.0  # a weight of 0 would be no edge
        weight = np.concatenate([later, np.full(len(first), 0.5)])  # node n: before the start
        row, column = np.concatenate([self.one, first]), np.concatenate([self.two, np.full(len(first), n)])
        tree = minimum_spanning_tree(csr_matrix((weight, (row, column)), shape=(n + 1, n + 1)))
        order, before = (x.tolist() for x in breadth_first_order(tree, n, directed=False))
        level, saddle = [*T.tolist(), -np.inf], [*range(n + 1)]
        for node in order[1:]:
            if level[before[node]] > level[node]:
                level[node], saddle[node] = level[before[node]], saddle[before[node]]
        return np.array(saddle[:n])

    def basins(self, T: np.ndarray, start: np.ndarray) -> Basins:
        """Those of T (N,) TU; `start` (N,) bool, and the earliest node."""
        start = start.copy()
        start[T.argmin()] = True
        if not (self._lowest(T) & ~start).any():
            return Basins(np.zeros(0, int), np.zeros(0, int))
        saddle = self.flooded(T, start)
        wet = np.flatnonzero(T[saddle] > T)
        return Basins(wet, saddle[wet])

    def starts(self, T: np.ndarray, place: np.ndarray, time: np.ndarray, sd: float, reach: float) -> np.ndarray:
        """(N,) bool, starts beside the earliest: the tissue within `reach` TU of the third measured time of each basin that has so many.

        `T` (N,) a smooth map of the measured times (R,) TU, `place` (R,) their nodes. Basins beside a start that was found so are looked
        for again.
        """
        first = T[self.flooded(T, T.min() >= T)] < T.min() + reach
        starts = np.zeros(self.nodes, bool)
        while True:
            saddle = self.flooded(T, first | starts)
            level = T[saddle]
            early = np.flatnonzero((level > T)[place] & (time < level[place] - SURE * sd))
            early = early[np.lexsort((time[early], saddle[place[early]]))]
            basin = saddle[place[early]]
            rank = np.arange(len(basin)) - np.searchsorted(basin, basin)
            third = early[rank == POINTS - 1]
            told = np.full(self.nodes, -np.inf)
            told[saddle[place[third]]] = time[third]
            fresh = (level > T) & (told[saddle] + reach > T)
            if not fresh.any():
                return starts
            starts |= fresh

    def _lowest(self, T: np.ndarray) -> np.ndarray:
        """(N,) bool: earlier than all neighbours."""
        first = np.full(self.nodes, np.inf)
        np.minimum.at(first, self.one, T[self.two])
        np.minimum.at(first, self.two, T[self.one])
        return first > T
