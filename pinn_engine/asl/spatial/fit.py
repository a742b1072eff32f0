"""`fit_spatial`: flow and arrival time of the whole brain together, by tissue means, smooth fields and an edge-keeping prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...core import Solution, Status
from ...core.coarse import CoarseSpace, hats
from ...core.roughness import Neighbours, Roughness, grid_neighbours
from ...core.smooth_fit import SmoothFit, SmoothSettings, fit_smooth
from ...core.solution import identifiability
from ..curves import Curves
from ..maps import VoxelStatus
from ..plan import Plan
from ..scan import Scan
from .apart import apart
from .checks import lack_of_fit, silent, widened
from .foci import Foci, FocusSearch
from .model import POOL, PURE, BrainModel
from .noise import noise_excess
from .tissue import T1, Tissue, classify, from_maps

WIDE = 2.0  # times the tissue's typical interval, at least, of one that says nothing
DISAGREES = 2.0  # pooled start and fit this many sd apart are flagged


@dataclass(frozen=True)
class SpatialFit:
    """What the joint fit adds to a `Solution`: who the voxels are, and where the result is not to be trusted."""

    solution: Solution
    tissue: Tissue
    smooth: SmoothFit
    foci: Foci
    disagreement: np.ndarray  # (V,) sd between the arrival time of the pooled start and the fit's, signed
    status: np.ndarray  # (V,) uint8, see maps.VoxelStatus
    flow_unit: np.ndarray  # (V,) flow that a change of 1 in the fields is worth
    noise_excess: float  # of neighbours over independent voxels, see noise.py
    apart: float  # share of voxels with a signal of their own, see apart.py
    predicted: tuple[Tensor, Tensor]  # rotated data points (V, K), slopes (V, K, P) by flow, arrival time and T1 of blood if unknown


def tissue_of(scan: Scan, c: Curves) -> Tissue:
    """By tissue maps, else a T1 map, else M0 and the signal."""
    if scan.tissue is not None:
        return from_maps(scan.tissue[c.voxels], repetition_of_m0(scan))
    position = np.stack(c.voxels, axis=1) * scan.grid.spacing
    return classify(c, None if scan.m0 is None else scan.m0[c.voxels], c.t1_tissue, position, repetition_of_m0(scan))


def with_tissue(scan: Scan, c: Curves) -> tuple[Scan, Curves, Tissue]:
    """The scan with a T1 of tissue in every voxel, by its class; a T1 map that was given stays."""
    tissue = tissue_of(scan, c)
    if scan.t1_tissue is not None or not tissue.known:
        return scan, c, tissue
    t1 = np.full(scan.mask.shape, scan.acquisition.t1_tissue.number, np.float32)
    grey = scan.acquisition.t1_tissue.number
    t1[c.voxels] = tissue.t1(grey)
    return replace(scan, t1_tissue=t1), replace(c, t1_tissue=t1[c.voxels]), replace(tissue, t1_of=(grey, grey * T1[1] / T1[0]))


def fit_spatial(plan: Plan, scan: Scan, tissue: Tissue, level: float, progress: Callable[[float], None] | None = None) -> SpatialFit:
    """All voxels of `plan.c` together; `level` is the model error as for the voxelwise fit."""
    excess = noise_excess(scan, plan.c)
    model = BrainModel(plan, level * plan.equation_unit, tissue, excess)
    graph = graph_of(scan, plan.c, model.device)
    start, pooled_att = pooled_start(model, graph)
    settings = SmoothSettings(seed=plan.s.seed)
    coarse = coarse_space(scan, plan.c, model.device)
    smooth = fit_smooth(model.linearise, graph, model.unit / model.flow, start, settings, coarse, progress, model.recentre)
    search = FocusSearch(model, scan.grid.spacing, smooth, settings)
    smooth, foci = search.search(smooth)
    own = apart(model, smooth.x + smooth.offset)
    smooth = replace(smooth, offset=smooth.offset + model.alike(own.change))
    nothing = silent(model, search.balls, smooth)
    alike = own.covariance + torch.diag_embed(torch.as_tensor(foci.variance, device=model.device).T).permute(1, 2, 0)
    smooth = replace(smooth, variance=widened(smooth, alike, lack_of_fit(model, search.balls, scan.grid.spacing, smooth, nothing)))
    solution = as_solution(model, smooth)
    away = (pooled_att - solution.values["att"]).cpu().numpy()
    disagreement = away / np.maximum(np.hypot(solution.std("att").cpu().numpy(), model.step), 1e-6)
    status, predicted = _status(model, solution, nothing.cpu().numpy()), model.predicted(smooth.x + smooth.offset)
    if progress:
        progress(1.0)
    return SpatialFit(solution, tissue, smooth, foci, disagreement, status, model.flow.cpu().numpy(), excess, own.share, predicted)


def repetition_of_m0(scan: Scan) -> float | None:
    """s; None where it is not known, or the image is relaxed."""
    time = scan.acquisition.origins.get("m0_repetition_time")
    return None if time is None or time.value is None else time.number


def graph_of(scan: Scan, c: Curves, device: torch.device) -> Neighbours:
    used = np.zeros(scan.mask.shape, bool)
    used[c.voxels] = True
    return grid_neighbours(torch.as_tensor(used, device=device), torch.as_tensor(scan.grid.spacing))


def coarse_space(scan: Scan, c: Curves, device: torch.device) -> CoarseSpace:
    position = np.stack(c.voxels, axis=1) * scan.grid.spacing / scan.grid.spacing.min()
    return CoarseSpace(hats(torch.as_tensor(position, device=device)))


def pooled_start(model: BrainModel, graph: Neighbours) -> tuple[Tensor, Tensor]:
    """Tissue means, and fields (2T, V), each from the scores of its own tissue pooled over neighbours; also their arrival time (V,)."""
    model.set_tissue_means()
    shift, cross, total = model.start_scores()
    rough = Roughness(graph, graph.factor.unsqueeze(0))
    fields = []
    for unit in model.unit:
        own = ((unit / model.flow) ** PURE).unsqueeze(1)
        fields.append(model.start(shift, rough.smooth(own * cross, POOL), rough.smooth(own * total, POOL)))
    start = torch.stack(fields, dim=1).flatten(0, 1)
    return start, model.physical(start)[1]


def as_solution(model: BrainModel, smooth: SmoothFit) -> Solution:
    """Flow and arrival time with their covariance, in the form that every fit returns."""
    fields = smooth.x + smooth.offset
    flow, att, both = model.with_own_flow(fields, smooth.variance)
    covariance = both.permute(2, 0, 1).double()
    cost = model.linearise_data(fields)[2]
    finite = torch.isfinite(flow + att + covariance.sum(dim=(1, 2)) + cost)
    status = torch.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE)).to(torch.uint8)
    condition, weakest = identifiability(covariance)
    steps = torch.full((len(flow),), len(smooth.history["cost"]), dtype=torch.int16, device=flow.device)
    values = {"cbf": flow, "att": att}
    return Solution(
        ("cbf", "att"), torch.stack([flow, att], dim=1), values, status, cost, steps, covariance, condition, weakest, smooth.history
    )


def _status(model: BrainModel, solution: Solution, silent: np.ndarray) -> np.ndarray:
    """Prior-dominated: no data around, or the interval of arrival time is as wide as arrival differs in the tissue, and twice as usual."""
    dominated = silent.copy()
    att, sd = solution.values["att"].cpu().numpy(), solution.std("att").cpu().numpy()
    kind = model.tissue.share.argmax(axis=1)
    for k in range(3):
        inside = kind == k
        if inside.any():
            differs = np.var(att[inside])
            spread = np.sqrt(differs + (WIDE * np.median(sd[inside])) ** 2)
            dominated |= inside & (sd > spread)
    status = solution.status.cpu().numpy().copy()
    status[dominated & (status != VoxelStatus.NOT_FINITE)] = VoxelStatus.PRIOR_DOMINATED
    return status
