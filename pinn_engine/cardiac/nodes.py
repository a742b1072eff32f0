"""Maps on the nodes from a fitted T and log D: D, conduction velocity and activation time, their standard deviations, and the status."""

from __future__ import annotations

import numpy as np
import torch

from .fem import Elements
from .lat import MapSolution
from .mapfit import MapProblem
from .model import AlievPanfilov
from .read import HeartData
from .result import CV_MAP, D_MAP, LAT_MAP, NodeMap, NodeStatus

SPEEDS = (0.015, 6.0)  # m/s: a median outside means a mistaken unit (scar 0.05, atrium 0.3-1.2, Purkinje 4)
SPEED_FLOOR = 0.02  # sd of log CV that the noise does not tell: grid and equation (found on one draw of the fibred atrium)
UNKNOWN = float(np.log(SPEEDS[1] / SPEEDS[0])) / (2.0 * 1.645)  # sd of log CV where a wave starts: 90 % is all that hearts have
EARLIEST = 4.0  # patches of tissue that count as the wave's first: one node, or one wrong time, does not
ROUGH = 0.5  # share of the spread of log slowness among the cells round a node that counts as error of CV (the same draw)
CELL = 0.03  # share of the time that a front takes over a cell that is open in T whatever the noise (noise-free squares and spheres)
BLURRED = 0.5  # sd of log D beyond which D counts as undetermined
HOLLOW = 0.5  # TU by which a node far from the start must be earlier than all its neighbours to count as a source of its own
MISFIT = 0.5  # equation residual (1 = all of it) beyond which fronts collide or break through


def node_maps(data: HeartData, solved: MapSolution, model: AlievPanfilov, width: float) -> tuple[dict[str, NodeMap], np.ndarray]:
    """D, CV and LAT with calibrated standard deviations, and the status, on the input's nodes."""
    unit, problem = data.unit, solved.problem
    element = problem.equation.element
    T, u = torch.from_numpy(solved.T), torch.from_numpy(solved.u)
    D = data.back_log(solved.u)
    start = start_region(problem, T)
    missed = slope_misfit(solved, model, start)
    spread_u = np.hypot(width * solved.draws_u.std(axis=1), 2.0 * missed)  # D goes with the square of speed
    speed = apparent_speed(element, T)
    drawn = np.stack([np.log(apparent_speed(element, T + width * torch.from_numpy(d.copy()))) for d in solved.draws_T.T], axis=1)
    noise = 0.5 * (np.percentile(drawn, 84.1, axis=1) - np.percentile(drawn, 15.9, axis=1))
    spread_c = np.sqrt(noise**2 + missed**2 + SPEED_FLOOR**2 + (ROUGH * unevenness(element, T)) ** 2 + (UNKNOWN * start) ** 2)
    misfit = np.abs(problem.equation.residual(T, u, float(model.speed(1.0))).numpy())
    values = {
        "D": (D_MAP, unit.diffusivity, unit.rate_from_tu(D), unit.rate_from_tu(D * data.back(spread_u))),
        "CV": (CV_MAP, unit.speed, unit.rate_from_tu(data.back(speed)), unit.rate_from_tu(data.back(speed * spread_c))),
        "LAT": (LAT_MAP, unit.time, unit.from_tu(data.back(solved.T)), unit.from_tu(data.back(activation_sd(solved, width)))),
    }
    status = np.full(len(T), int(NodeStatus.FITTED), np.uint8)
    status[misfit > MISFIT] = NodeStatus.COLLISION
    status[start] = NodeStatus.START
    status[spread_u > BLURRED] = NodeStatus.UNDETERMINED
    status[round_hollows(element, T, start)[1]] = NodeStatus.COLLISION
    whole = np.where(data.inside, status[np.asarray(abs(data.to_input).argmax(axis=1)).ravel()], int(NodeStatus.OUTSIDE)).astype(np.uint8)
    maps = {key: NodeMap(kind, name, value.astype(np.float32), std.astype(np.float32)) for key, (kind, name, value, std) in values.items()}
    return maps, whole


def activation_sd(solved: MapSolution, width: float) -> np.ndarray:
    """(N,) TU: what the noise tells of T, what the grid leaves open, what the travelling beat misses of V, what lies before the record."""
    problem = solved.problem
    element, noise = problem.equation.element, width * solved.draws_T.std(axis=1)
    size = element.mass.numpy() ** (1.0 / (element.cells.shape[1] - 1))
    grid = CELL * size / float(problem.model.speed(problem.D0))
    if problem.data.time is None:
        return np.hypot(noise, grid)
    unseen = np.maximum(problem.begin - solved.T, 0.0)
    return np.sqrt(noise**2 + grid**2 + solved.facts["T_misfit"] ** 2 + unseen**2)


def slope_misfit(solved: MapSolution, model: AlievPanfilov, start: np.ndarray) -> np.ndarray:
    """(N,) error of log |grad T| from what the travelling beat misses of V: that of T over the time a front takes to cross a patch.

    None where the wave starts: the equation is not asked to hold there, nothing is read from T.
    """
    missed = solved.facts.get("T_misfit")
    if missed is None:
        return np.zeros(len(solved.T))
    crossing = solved.problem.tuning.patch * solved.problem.length / float(model.speed(solved.problem.D0))
    return np.where(start, 0.0, missed / crossing)


def start_region(problem: MapProblem, T: torch.Tensor) -> np.ndarray:
    """(N,) bool: where the equation is not asked to hold, or T is within `start_time` of the earliest EARLIEST patches of tissue.

    A stimulus sets off a piece of tissue at once: no speed can be read there, whatever |grad T| says.
    """
    order = T.argsort()
    first = int(torch.searchsorted(problem.equation.element.mass[order].cumsum(0), EARLIEST * problem.patch))
    begin = max(float(T[order[min(first, len(order) - 1)]]), problem.begin)
    region = (begin + problem.tuning.start_time > T).numpy()
    return region if problem.active is None else region | ~problem.active.numpy()


def round_hollows(element: Elements, T: torch.Tensor, start: np.ndarray) -> tuple[int, np.ndarray]:
    """How many nodes with no start (N,) round them are earlier than all their neighbours by more than HOLLOW; (N,) bool: they and those.

    Either the wave breaks through there, or the fit has left a wrong time behind a ring of D near 0.
    """
    n, (own, other) = element.nodes, element.pairs
    own, other = own[own != other], other[own != other]
    earliest = T.new_full((n,), torch.inf).scatter_reduce(0, own, T[other], "amin")
    started = torch.zeros(n).index_add(0, own, torch.from_numpy(start).float()[other]) > 0
    hollow = (earliest - T > HOLLOW) & (earliest < torch.inf) & ~started
    near = torch.zeros(n).index_add(0, other, hollow[own].float()) > 0
    return int(hollow.sum()), (hollow | near).numpy()


def apparent_speed(element: Elements, T: torch.Tensor) -> np.ndarray:
    """(N,) 1 / |grad T| at the nodes (slowness averaged over the cells round them), at most 200 mm/TU (15 m/s)."""
    slowness = at_nodes(element, element.gradient(T).norm(dim=1))
    return 1.0 / slowness.clamp_min(5e-3).numpy()


def unevenness(element: Elements, T: torch.Tensor) -> np.ndarray:
    """(N,) sd of log |grad T| among the cells round a node: what linear elements leave open about the slope there.

    Fronts that bend or meet, fibres that turn. After Zienkiewicz & Zhu 1987, doi:10.1002/nme.1620240206.
    """
    log = element.gradient(T).norm(dim=1).clamp_min(1e-9).log()
    mean, square = (at_nodes(element, x) for x in (log, log**2))
    return (square - mean**2).clamp_min(0.0).sqrt().numpy()


def at_nodes(element: Elements, cells: torch.Tensor) -> torch.Tensor:
    """(M,) -> (N,): the mean of the cells round a node, by their size."""
    share = (element.size / element.cells.shape[1] * cells)[:, None].expand(-1, element.cells.shape[1])
    return element.size.new_zeros(element.nodes).index_add(0, element.cells.reshape(-1), share.reshape(-1)) / element.mass
