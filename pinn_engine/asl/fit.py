"""Fit a perfusion scan: the organ's one entry, `fit(scan, ...) -> PerfusionFit`."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..core import LevenbergMarquardt, Problem, Solution, Status, solve_in_chunks
from ..errors import InputError
from .arterial import ArterialSearch
from .choices import can_be_spatial, perfused, settings_of, spatial_by_default, uses_networks
from .curves import FLOW, WILD, Curves, curves, impossible, weightless
from .levels import LEAST_MODEL_ERROR, measured_noise, model_error_by_evidence
from .maps import ABAT, ABV, ATT, CBF, RELATIVE_CBF, STATUS_MEANING, T1B, VoxelStatus
from .network import VoxelNetworks
from .plan import ATT_PRIOR, FLOW_PRIOR, Plan, Settings
from .plausibility import scaling_cause
from .presets import preset_of, t1b_prior, unknowns
from .problems import FlowProblem
from .result import ParameterMap, PerfusionFit
from .scan import Scan
from .spatial.fit import fit_spatial, tissue_of, with_tissue
from .spatial.outputs import add_spatial
from .spatial.tissue import Tissue, classify
from .subject.fit import fit_subject
from .subject.large import LARGE, fit_large
from .subject.outputs import add_subject, add_t1b
from .weights import equal_weights, report_weights, volume_weights

Progress = Callable[[str, float], None]
Predicted = tuple[Tensor, Tensor]  # see `fitted_curves`

SOLVER = LevenbergMarquardt(steps=40, absolute=1e-5, smallest_step=1e-4)
NETWORK_SOLVER = LevenbergMarquardt(steps=24, absolute=1e-3, smallest_step=1e-4)
CLEARLY_ARTERIAL = 0.003  # blood volume that is worth a count
PRIOR_DOMINATED = 0.9  # posterior sd per prior sd above which the data have said nothing


def fit(
    scan: Scan,
    *,
    preset: str | None = None,
    unknown: Sequence[str] | str | None = None,
    model: str | None = None,
    method: str = "pinn",
    network: str = "features",
    model_error: float | None = None,
    device: str = "auto",
    seed: int = 0,
    spatial: bool | None = None,
    weigh_volumes: bool = True,
    progress: Progress | None = None,
) -> PerfusionFit:
    """Fit CBF and arrival time (ATT) in every voxel of the mask, with standard deviations.

    `unknown`: "cbf" (always), "att" (needs two delays), "t1b" (s, one per voxel, under a prior of sd 0.1 s), "abv"; None = ("cbf", "att").
    `model`: "buxton" (None) or "simplified". `method`: "pinn" weighs the data against the kinetic equation, which may err by
    `model_error` (sd relative to the scan's typical signal; None: by evidence, at least 5 %); "nlls" is the plain closed form without a
    prior on ATT. `network`: "features" (shared features, output layer eliminated) or "mlp" (one network per voxel, all weights trained).
    `device`: "auto" (CUDA where available; the CPU where that fails), "cpu", "cuda[:i]" or "mps".
    `spatial`: fit all voxels together, each tissue smooth in space as far as the data support it (docs/spatial.md); tissue classes, and
    with them T1, come from M0 and the difference signal where no T1 map is given. None: with several delays and at least 1,000 voxels, for
    "pinn" and "features", unless T1 of blood is fitted in every voxel.
    `weigh_volumes`: pairs that differ from the other repeats of their delay (motion, artefacts) count less; clean scans are not affected.
    `preset` "infant" (docs/infant.md): the simplified model, all voxels together, and one T1 of blood for the subject, unless it was given
    when reading; options that are given override the preset's. The equation is then exact unless `model_error` is given.

    Raises InputError for unknown option values and if no voxel can be fitted.

    >>> from pinn_engine import asl
    >>> fit = asl.fit(asl.phantom((12, 14, 8)).scan())
    >>> fit.maps["cbf"].value.shape
    (12, 14, 8)
    """
    if not isinstance(scan, Scan):
        raise TypeError(f"asl.fit takes what asl.read returns, not {type(scan).__name__}: asl.fit(asl.read(path))")
    notes = list(scan.notes)
    chosen = preset_of(preset, scan.source)
    wanted = unknowns(chosen, unknown, scan.acquisition.t1_blood)
    settings = settings_of(scan, wanted, model or chosen.model, method, network, model_error, device, seed, notes)
    joint = {"cbf", "att"} <= set(settings.unknown)
    settings = replace(settings, t1b_prior=t1b_prior(chosen, scan.acquisition.t1_blood), flow_prior=chosen.flow)
    weights = volume_weights(scan) if weigh_volumes else equal_weights(len(scan.acquisition.pld), "switched off")
    c = curves(scan, weights.weight)
    if len(c) == 0:
        found = f"{int(scan.mask.sum())} voxels in the mask, none of them usable"
        raise InputError(scan.source, "no voxel can be fitted", found=found, fix="check the mask, M0 and the image for NaN and zeros")
    if spatial is None:
        spatial = joint if preset is not None else spatial_by_default(settings, scan, len(c))
    subject = preset is not None and joint
    if subject:
        if (mask := scan.acquisition.origins.get("mask")) is not None and mask.value == "made":
            notes.append("The mask was made automatically, as for whole brains; it loses up to half of a small region: give --mask.")
    else:
        spatial = spatial and can_be_spatial(settings, scan, notes) and perfused(c, notes)
    if subject or spatial:
        settings = _off_mps(settings, notes)
    make = _subject if subject else _voxels
    try:
        made = make(scan, c, settings, spatial, list(notes), progress)
    except RuntimeError as failure:
        if device != "auto" or settings.device == "cpu":
            raise
        reason = str(failure).partition("\n")[0]
        notes.append(f"The fit failed on {settings.device} ({reason}), so it was made on the CPU; --device cpu saves the attempt.")
        made = make(scan, c, replace(settings, device="cpu"), spatial, notes, progress)
    return report_weights(made, weights)


def _voxels(scan: Scan, c: Curves, settings: Settings, spatial: bool, notes: list[str], progress: Progress | None) -> PerfusionFit:
    """Every voxel by itself, or all together."""
    wild, measured, tissue = impossible(c) & spatial, c.data, None
    c = _without(c, wild, notes)
    if spatial or scan.tissue is not None:
        scan, c, classes = _classified(scan, c, settings)
        tissue = classes if spatial else None
    plan = Plan(c, scan, settings)
    plan.c = weightless(measured_noise(plan), wild)
    level = 0.0
    if settings.method == "pinn":
        level = max(model_error_by_evidence(plan), LEAST_MODEL_ERROR) if settings.model_error is None else settings.model_error
    if "abv" in settings.unknown and scan.m0 is not None:
        share = (tissue or tissue_of(scan, plan.c)).share
        plan.arterial = ArterialSearch(plan, scan.mask.shape, scan.grid.spacing, share).prior()
    if tissue is None:
        return _result(scan, plan, solve(plan, level, progress), level, notes)
    brain = fit_spatial(plan, scan, tissue, level, (lambda done: progress("fit", done)) if progress else None)
    plan.c = replace(plan.c, data=measured)  # as it was, for who looks at it
    result = add_spatial(_result(scan, plan, brain.solution, level, notes, brain.predicted), plan.c, brain)
    return _with_prior_at(result, plan.c, wild)


def _off_mps(settings: Settings, notes: list[str]) -> Settings:
    """Joint fits need float64 and sparse matrices, which mps does not know: they run on the CPU, and a note says so."""
    if not settings.device.startswith("mps"):
        return settings
    notes.append(f"The joint fit of all voxels runs on the CPU: {settings.device} supports neither float64 nor sparse matrices.")
    return replace(settings, device="cpu")


def _without(c: Curves, wild: np.ndarray, notes: list[str]) -> Curves:
    """Impossible voxels lose their weight, and a note says so."""
    if wild.any():
        notes.append(f"Voxels whose signal is impossible ({WILD:g} times the typical one) have no weight: {int(wild.sum())}.")
    return weightless(c, wild)


def _with_prior_at(result: PerfusionFit, c: Curves, which: np.ndarray) -> PerfusionFit:
    """Status 8 in those voxels (V,)."""
    status = result.status.copy()
    status[tuple(axis[which] for axis in c.voxels)] = VoxelStatus.PRIOR_DOMINATED
    return replace(result, status=status)


def _classified(scan: Scan, c: Curves, settings: Settings) -> tuple[Scan, Curves, Tissue]:
    """`with_tissue`, which needs the noise: without repeats it comes from residuals, of one class for now."""
    return with_tissue(scan, c if c.degrees else measured_noise(Plan(c, scan, settings)))


def _subject(scan: Scan, c: Curves, settings: Settings, spatial: bool, notes: list[str], progress: Progress | None) -> PerfusionFit:
    """Flow, arrival time and, where it is unknown, one T1 of blood for the whole scan."""
    if "abv" in settings.unknown:
        raise InputError(scan.source, "--preset does not fit abv", found=",".join(settings.unknown), fix="leave abv or --preset out")
    if settings.method == "nlls":
        raise InputError(scan.source, "--preset has a method of its own", found="--method nlls", fix="leave --method or --preset out")
    if uses_networks(settings):
        raise InputError(scan.source, "--preset works with --network features", found=settings.network, fix="leave --network out")
    level = (settings.model_error or 0.0) if settings.method == "pinn" else 0.0
    settings = replace(settings, model_error=level)
    told = (lambda done: progress("fit", done)) if progress else None
    tissue, measured, wild = None, c.data, impossible(c)
    c = _without(c, wild, notes)
    if spatial and len(c) > LARGE:
        scan, c, tissue = _classified(scan, c, settings)
    plan = Plan(c, scan, settings)
    plan.c = weightless(measured_noise(plan), wild)
    prior = plan.t1b_prior if "t1b" in settings.unknown else None
    if tissue is not None:
        brain, value = fit_large(plan, scan, tissue, level, prior, told)
        plan.c = replace(plan.c, data=measured)
        result = add_spatial(_result(scan, plan, brain.solution, level, notes, brain.predicted), plan.c, brain)
        return _with_prior_at(add_t1b(result, value, prior), plan.c, wild)
    joint = fit_subject(plan, scan, level, prior, spatial, told)
    plan.c = replace(plan.c, data=measured, noise=joint.noise.astype(np.float32))
    return _with_prior_at(add_subject(_result(scan, plan, joint.solution, level, notes), plan.c, joint), plan.c, wild)


def solve(plan: Plan, model_error: float, progress: Progress | None = None) -> Solution:
    """All voxels in chunks of bounded size, back in the order of `plan.c`."""
    level = model_error * plan.equation_unit
    networks = VoxelNetworks(plan) if uses_networks(plan.s) else None

    def build(rows: Tensor) -> tuple[Problem, Tensor]:
        att, flow = plan.start(rows, plan.tables, level)
        if networks:
            return networks.problem(rows, level, att, flow)
        data, precision = plan.whitened(rows, plan.tables, level)
        unknowns = plan.unknowns(rows)
        values = {"att": att, "t1b": torch.full_like(att, plan.t1b)}
        problem = FlowProblem(plan.prediction(rows), data, precision, unknowns, plan.flow_sd, plan.marginal(rows, precision))
        return problem, unknowns.internal(values)

    report = (lambda done: progress("fit", done)) if progress else None
    solver = NETWORK_SOLVER if networks else SOLVER
    chunks = plan.chunks()
    solution = solve_in_chunks(solver, build, chunks, report)
    return solution.take(torch.argsort(torch.cat(chunks)).to(solution.theta.device))


def fitted_curves(
    plan: Plan, solution: Solution, model_error: float, predicted: Predicted | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fitted data points (V, K), their sd (V, K), both in flow units, and the misfit (V,): rms of the whitened residual.

    And arterial blood volume with its sd (2, V), in flow units; zeros where it was not sought.

    The curve is the network's where there is one: it lies between the closed form and the data, as far as the model error allows.
    `predicted`: rotated data points (V, K) and their slopes by the unknowns (V, K, P), where they are not the plan's own.
    """
    level = model_error * plan.equation_unit
    shape = (len(plan.c), len(plan.c.times))
    fitted, sd, misfit = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
    volume = np.zeros((2, shape[0]), np.float32)
    free = max(len(plan.c.times) - len(solution.names), 1)
    for rows in plan.chunks():
        at = rows.to(solution.theta.device)
        data, precision = plan.whitened(rows, plan.tables, level)
        total, columns = _predicted(plan, solution, rows, at) if predicted is None else (x[rows].to(data) for x in predicted)
        arterial = torch.zeros_like(data)
        if (marginal := plan.marginal(rows, precision)) is not None:
            white, covariance = columns * precision.unsqueeze(2), solution.covariance[at].to(data)
            found = marginal.estimate((data - total) * precision, white, covariance)
            known = torch.maximum(found[1], marginal.sd)  # the prior has seen the voxel's data already: no second gain from them
            volume[:, rows.numpy()] = torch.stack([found[0].clamp_min(0), known]).cpu().numpy()
            arterial = found[0].clamp_min(0).unsqueeze(1) * marginal.column / precision
        residual = data - total - arterial
        noise = torch.as_tensor(plan.c.noise[rows.numpy()]).to(data).unsqueeze(1)
        curve = total + arterial + (1 - (noise * precision) ** 2) * residual
        back = plan.rows_of(rows, plan.tables.inverse).to(data)
        columns = back.transpose(1, 2) @ columns
        spread = ((columns @ solution.covariance[at].to(data)) * columns).sum(dim=2).clamp_min(0).sqrt()
        fitted[rows.numpy()] = (curve.unsqueeze(1) @ back).squeeze(1).cpu().numpy()
        sd[rows.numpy()] = spread.cpu().numpy()
        misfit[rows.numpy()] = ((residual * precision).square().sum(dim=1) / free).sqrt().cpu().numpy()
    return fitted, sd, misfit, volume


def _predicted(plan: Plan, solution: Solution, rows: Tensor, at: Tensor) -> Predicted:
    cbf = solution.values["cbf"][at].unsqueeze(1)
    att = solution.values["att"][at] if "att" in solution.values else torch.full_like(cbf[:, 0], plan.att_fixed)
    t1b = solution.values["t1b"][at] if "t1b" in solution.values else torch.full_like(cbf[:, 0], plan.t1b)
    signal, slopes = plan.prediction(rows)(att.unsqueeze(1), t1b.unsqueeze(1))
    return cbf * signal, torch.stack([signal, *(cbf * slopes[name] for name in solution.names if name != "cbf")], dim=2)


def _result(
    scan: Scan, plan: Plan, solution: Solution, model_error: float, notes: list[str], predicted: Predicted | None = None
) -> PerfusionFit:
    c, s = plan.c, plan.s
    fitted, fitted_sd, misfit, arterial = fitted_curves(plan, solution, model_error, predicted)
    status, maps = np.zeros(scan.mask.shape, np.uint8), {}
    status[scan.mask] = VoxelStatus.NOT_FINITE
    if scan.m0 is not None:
        status[scan.mask & ~(scan.m0 > 0)] = VoxelStatus.NO_M0
    status[c.voxels] = _voxel_status(plan, solution)
    usable = solution.status.cpu().numpy() != Status.NOT_FINITE
    kinds = {"cbf": CBF if scan.m0 is not None else RELATIVE_CBF, "att": ATT, "t1b": T1B}
    widest = {"att": plan.att_max, "t1b": plan.t1b}  # sd of something bounded cannot exceed its range
    for name in solution.names:
        if name == "att" and scan.arrival is not None:
            continue  # one delay says nothing about it: it would be the given map
        value, sd = solution.values[name].cpu().numpy(), solution.std(name).cpu().numpy()
        maps[name] = ParameterMap(kinds[name], *(_volume(scan, c, x, usable) for x in (value, np.minimum(sd, widest.get(name, np.inf)))))
    if plan.arterial is not None:
        count = int((arterial[0] > CLEARLY_ARTERIAL * FLOW).sum())
        notes.append(
            f"Arterial blood volume is above {100 * CLEARLY_ARTERIAL:g} % in {count} voxels; elsewhere its arrival time is the prior's."
        )
        maps["abv"] = ParameterMap(ABV, *(_volume(scan, c, x, usable) for x in arterial / FLOW))
        maps["abat"] = ParameterMap(ABAT, *(_volume(scan, c, x.numpy(), usable) for x in (plan.arterial.abat, plan.arterial.abat_sd)))
    left_out = int(scan.mask.sum()) - len(c)
    if left_out:
        notes.append(f"{left_out} of {int(scan.mask.sum())} mask voxels were left out: their data are not finite or have no usable M0.")
    if scan.t1_tissue is None and s.model == "buxton" and not plan.single:
        notes.append(
            f"Without a T1 map one tissue T1 ({plan.group_t1[0]:.2f} s, grey matter) is used for all voxels: white-matter CBF comes out "
            "about a third too low. Give --t1-map or --tissue, or trust grey matter only."
        )
    if "t1b" in solution.names and float(solution.std("t1b").median()) > PRIOR_DOMINATED * float(plan.t1b_prior.sd):
        notes.append("These delays do not determine T1 of blood: its map and standard deviation are the prior's.")
    if scan.m0 is not None and len(c) and (cause := scaling_cause(_grey_median(scan, c, maps["cbf"].value[c.voxels]))):
        notes.append(cause)
    to_scanner = (1 / c.scale)[:, None]
    return PerfusionFit(
        scan=replace(scan, notes=tuple(notes)),
        maps=maps,
        status=status,
        status_meaning=STATUS_MEANING,
        misfit=_volume(scan, c, misfit, usable),
        pld=c.pld,
        label_duration=c.label_duration,
        repeats=c.repeats,
        data=_volume(scan, c, c.data * to_scanner, usable),
        fitted=_volume(scan, c, fitted * to_scanner, usable),
        fitted_std=_volume(scan, c, fitted_sd * to_scanner, usable),
        convergence=solution.history,
        settings=_told(plan, solution, model_error),
    )


def _grey_median(scan: Scan, c: Curves, cbf: np.ndarray) -> float:
    """Median CBF of grey matter by tissue maps or T1; where neither is known, of the mask's better perfused half."""
    if scan.tissue is not None:
        grey = scan.tissue[c.voxels][:, 0] > 0.5
    elif c.t1_tissue is not None:
        grey = classify(c, None, c.t1_tissue, np.zeros((len(c), 3))).share[:, 0] > 0.5
    else:
        grey = np.abs(cbf) >= np.median(np.abs(cbf))
    return float(np.median(cbf[grey] if grey.any() else cbf))


def _voxel_status(plan: Plan, solution: Solution) -> np.ndarray:
    status = solution.status.cpu().numpy().copy()
    if "att" in solution.names and plan.known_att is None:
        if plan.att_prior is None:  # no better known than by its range alone
            widest, code = plan.att_max / math.sqrt(12), int(Status.UNDETERMINED)
        else:
            widest, code = PRIOR_DOMINATED * float(plan.att_prior.sd), int(VoxelStatus.PRIOR_DOMINATED)
        status[(solution.std("att").cpu().numpy() > widest) & (status == Status.CONVERGED)] = code
    return status


def _volume(scan: Scan, c: Curves, values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(X, Y, Z[, K]) float32 with 0 outside the mask and where nothing was fitted; always finite."""
    volume = np.zeros(scan.mask.shape + values.shape[1:], np.float32)
    kept = np.where(usable.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
    limit = float(np.finfo(np.float32).max)
    volume[c.voxels] = np.clip(np.nan_to_num(kept, nan=0.0, posinf=limit, neginf=-limit), -limit, limit)
    return volume


def _told(plan: Plan, solution: Solution, model_error: float) -> dict[str, object]:
    """How it was made, for sidecars and the report."""
    c, s = plan.c, plan.s
    told: dict[str, object] = {"method": s.method, "model": s.model, "unknown": list(solution.names), "seed": s.seed, "device": s.device}
    if s.method == "pinn":
        mean, sd = ATT_PRIOR[plan.labeling] if plan.known_att is None else ("--att-map", plan.att_prior.sd)  # type: ignore[union-attr]
        told |= {"network": s.network, "model_error": model_error, "model_error_origin": "evidence" if s.model_error is None else "option"}
        told |= {"att_prior_mean": mean, "att_prior_sd": sd} if "att" in solution.names else {}
    told |= {"t1b_prior_sd": float(plan.t1b_prior.sd)} if "t1b" in solution.names else {}
    if plan.arterial is not None:
        told |= {"unknown": [*solution.names, "abv"], "arterial_share": plan.arterial.share}
    told["flow_prior_sd"] = f"{FLOW_PRIOR:g} typical flows of the scan ({plan.flow_sd:.4g})"
    told["noise_sd_median"] = float(np.median(c.noise / c.scale))
    told["noise_origin"] = f"repeats ({c.degrees} degrees of freedom a voxel)" if c.degrees else "residuals of the closed form"
    told["voxels"] = len(c)
    told["pinn_engine"], told["torch"], told["python"] = __version__, torch.__version__, platform.python_version()
    return told
