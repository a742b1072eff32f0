"""Nodes that are earlier than all round them, far from where the wave starts: marked, counted, and none where there are none."""

from __future__ import annotations

import numpy as np
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.fem import elements
from pinn_engine.cardiac.nodes import HOLLOW, round_hollows

MESH, _ = shapes.rectangle((8.0, 4.0), 0.2)
X, Y = MESH.points[:, 0], MESH.points[:, 1]
FRONT = 2.0 * X
START = FRONT < 1.0


def found(T: np.ndarray) -> tuple[int, np.ndarray]:
    return round_hollows(elements(MESH), torch.from_numpy(T), START)


def test_a_front_has_none() -> None:
    count, marked = found(FRONT)
    assert count == 0
    assert not marked.any()


def test_a_hollow_is_found_with_its_neighbours() -> None:
    node = int(np.argmin((X - 5.0) ** 2 + (Y - 2.0) ** 2))
    T = FRONT.copy()
    T[node] -= 0.4 + 2.0 * HOLLOW
    count, marked = found(T)
    assert count == 1
    assert marked[node]
    assert 5 <= marked.sum() <= 9
    assert np.hypot(X - X[node], Y - Y[node])[marked].max() < 0.3


def test_a_dip_the_size_of_noise_and_the_start_itself_are_none() -> None:
    T = FRONT.copy()
    T[int(np.argmin((X - 5.0) ** 2 + (Y - 2.0) ** 2))] -= 0.4 + 0.5 * HOLLOW
    T[int(np.argmin(X**2 + (Y - 2.0) ** 2))] -= 3.0 * HOLLOW
    assert found(T)[0] == 0
