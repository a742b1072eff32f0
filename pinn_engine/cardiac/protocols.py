"""How a wave is started: planar, from a point, paced, S1-S2, re-entry round an axis, break-up.

Lengths scale with the front, sqrt(2 D / k)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from ..errors import InputError
from ..files.mesh import Mesh
from .cycles import cycles
from .model import AlievPanfilov
from .simulate import Start, Stimulus

FAST = 24.0  # TU between two activations of tissue in disorder
IGNITION = 6.0  # radius of a started disc in front scales: above the critical radius (checked in the tests)


def planar(mesh: Mesh, model: AlievPanfilov, D: float, axis: int = 0) -> Start:
    """The exact front, five front scales in from the low end of an axis."""
    x = mesh.points[:, axis] - mesh.points[:, axis].min()
    s = model.front_scale(D)
    return Start(V=1.0 / (1.0 + np.exp(np.clip(x / s - 5.0, -60.0, 60.0))))


def point(mesh: Mesh, model: AlievPanfilov, D: float, where: int | np.ndarray = 0, radius: float | None = None) -> Start:
    """A disc round a node (its number) or place (3,) mm with the front's own edge; it stays on the wall where it starts."""
    centre = int(where) if np.ndim(where) == 0 else int(np.linalg.norm(mesh.points - where, axis=1).argmin())
    s = model.front_scale(D)
    radius = IGNITION * s if radius is None else radius
    straight = np.linalg.norm(mesh.points - mesh.points[centre], axis=1)
    r = np.where(along_mesh(mesh, centre, 2.0 * (radius + 5.0 * s)) < np.inf, straight, np.inf)
    V = 1.0 / (1.0 + np.exp(np.clip((r - radius) / s, -60.0, 60.0)))
    if np.sum(V > 0.5) < 3:
        fix = f"its edges are longer than the front ({4.4 * s:.2g} mm at this D): check D's unit, or take a finer mesh"
        raise InputError(
            mesh.source, "the mesh is too coarse to start a wave at this D", found=f"{np.sum(V > 0.5)} nodes in the start", fix=fix
        )
    return Start(V=V)


def spiral(mesh: Mesh, model: AlievPanfilov, D: float, axes: tuple[int, int] = (0, 1)) -> Start:
    """S1: a planar wave along the first axis. S2: the lower third of the second, when the wave's tail stands at a quarter of the length."""
    first, second = axes
    x, y = mesh.points[:, first], mesh.points[:, second]
    late = duration_of_action(model) + 0.25 * np.ptp(x) / float(model.speed(D))
    s2 = Stimulus(y < y.min() + np.ptp(y) / 3.0, start=late, duration=1.0, strength=0.5)
    return Start(V=planar(mesh, model, D, first).V, stimuli=(s2,))


def reentry(mesh: Mesh, model: AlievPanfilov, axis: int = 2, turns: int = 1) -> Start:
    """A wave that turns round an axis through the mesh's centre: phase = angle (a pair of spirals on a closed surface)."""
    centred = mesh.points - 0.5 * (mesh.points.min(axis=0) + mesh.points.max(axis=0))
    x, y = np.delete(centred, axis, axis=1).T
    return from_phase(model, turns * np.arctan2(y, x))


def break_up(mesh: Mesh, model: AlievPanfilov, wavelength: float, seed: int = 0) -> Start:
    """Many wavelets at once: the phase of a random complex field, whose zeros (about one each half wavelength squared) are spiral tips.

    A start, not an instability: in even tissue this model's single spiral stays whole (no break-up in 600 TU on 39 x 39 mm for 16 sets of
    parameters tried), so disorder is put in at t = 0 and then follows the equations. The state is that of tissue excited every FAST TU:
    from rest, action potentials are so long that all wavelets die within 30 TU. `wavelength` in mm.
    """
    random = np.random.default_rng(seed)
    k = random.normal(size=(16, 3)) * (2.0 * np.pi / wavelength / np.sqrt(3.0))
    weight = random.normal(size=(16, 2)) @ (1.0, 1.0j)
    phase = np.mod(np.angle(np.exp(1j * mesh.points @ k.T) @ weight) / (2.0 * np.pi), 1.0)
    V, W = cycles(model, (FAST,))[0].at(FAST * phase)
    return Start(V=V, W=W)


def paced(
    mesh: Mesh,
    model: AlievPanfilov,
    D: float,
    axis: int = 0,
    *,
    period: float | None = None,
    beats: int = 2,
    at: int | np.ndarray | None = None,
) -> Start:
    """`beats` beats, each `period` TU after the last (None = 1.2 action potential durations): planar, from the low end of an axis, or,
    with `at`, from a disc as of `point`."""
    if at is None:
        first = planar(mesh, model, D, axis).V
        x = mesh.points[:, axis] - mesh.points[:, axis].min()
        where = x < IGNITION * float(model.front_scale(D))
    else:
        first = point(mesh, model, D, at).V
        where = first > 0.5
    step = 1.2 * duration_of_action(model) if period is None else period
    again = tuple(Stimulus(where, start=k * step, duration=1.0, strength=1.0) for k in range(1, beats))
    return Start(V=first, stimuli=again)


def from_phase(model: AlievPanfilov, phase: np.ndarray) -> Start:
    """V and W at a point of one cell's excitation: phase 0 = upstroke, growing to 2 pi at rest (it lies behind where it is larger)."""
    times, V, W = single_cell(model)
    rest = 1.3 * duration_of_action(model)  # some rest between tail and next front
    at = np.mod(phase, 2.0 * np.pi) / (2.0 * np.pi) * rest
    return Start(V=np.interp(at, times, V), W=np.interp(at, times, W))


def single_cell(model: AlievPanfilov, duration: float = 300.0, step: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One cell from V = 1, W = 0 without diffusion: times (T,) TU, V (T,), W (T,)."""
    V, W = np.float64(1.0), np.float64(0.0)
    track = [(V, W)]
    for _ in range(round(duration / step)):
        V_t, W_t = model.rates(V, W)
        V_t, W_t = model.rates(V + 0.5 * step * V_t, W + 0.5 * step * W_t)
        V, W = V + step * V_t, W + step * W_t
        track.append((V, W))
    values = np.array(track, float)
    return np.arange(len(values)) * step, values[:, 0], values[:, 1]


def duration_of_action(model: AlievPanfilov, level: float = 0.1) -> float:
    """Action potential duration of one cell: time above `level`, TU (31.5 for the defaults; 30 behind a planar wave)."""
    times, V, _ = single_cell(model)
    over = np.flatnonzero(V - level < 0.0)
    return float(times[over[0]] if over.size else times[-1])


def along_mesh(mesh: Mesh, node: int, limit: float = np.inf) -> np.ndarray:
    """(N,) distance from one node along edges, mm; inf beyond `limit` or on another piece."""
    first, second = np.triu_indices(mesh.cells.shape[1], 1)
    a, b = mesh.cells[:, first].ravel(), mesh.cells[:, second].ravel()
    ends = np.unique(np.sort(np.stack([a, b], axis=1), axis=1), axis=0)
    length = np.linalg.norm(mesh.points[ends[:, 0]] - mesh.points[ends[:, 1]], axis=1)
    graph = coo_matrix((length, (ends[:, 0], ends[:, 1])), shape=(len(mesh.points),) * 2).tocsr()
    return dijkstra(graph, directed=False, indices=node, limit=limit)
