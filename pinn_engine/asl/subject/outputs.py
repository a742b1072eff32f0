"""What the joint fit of a subject adds to the maps: its T1 of blood with interval, where the place says nothing, how it was made."""

from __future__ import annotations

from dataclasses import replace

from ..curves import Curves
from ..maps import VoxelStatus
from ..result import PerfusionFit
from .fit import SubjectFit


def add_subject(fit: PerfusionFit, c: Curves, joint: SubjectFit) -> PerfusionFit:
    """`fit` with the status, settings and notes of the joint fit."""
    status = fit.status.copy()
    codes = joint.solution.status.numpy().copy()
    codes[joint.silent & (codes != VoxelStatus.NOT_FINITE)] = VoxelStatus.PRIOR_DOMINATED
    status[c.voxels] = codes
    scales = joint.prior.scales.exp().tolist()
    learnt = {
        name: {"sd_smooth": round(s * unit, 4), "range_voxels": round(reach, 2), "sd_rough": round(r * unit, 4)}
        for name, (s, reach, r), unit in zip(("cbf", "att"), scales, (joint.flow, 1.0), strict=True)
    }
    settings = fit.settings | {"joint": "subject", "spatial": joint.prior.spatial, "learnt_prior": learnt, "tiles": joint.tiles}
    if fit.settings["method"] == "pinn" and not fit.settings["model_error"]:
        settings |= {"model_error_origin": "preset: the equation is exact"}
    settings |= {"noise_origin": fit.settings["noise_origin"] if c.degrees else "learnt with the joint fit, one for all voxels"}
    notes = list(fit.scan.notes)
    if joint.t1b_prior is not None:
        value, prior = joint.t1b, joint.t1b_prior
        interval = [round(value.low, 4), round(value.high, 4)]
        settings |= {"t1b": round(value.mean, 4), "t1b_std": round(value.sd, 4), "t1b_interval_95": interval}
        settings |= {"t1b_prior_mean": float(prior.mean), "t1b_prior_sd": float(prior.sd)}
        digits = 2 if value.sd > 0.005 else 3
        low, middle, high = (f"{x:.{digits}f}" for x in (value.low, value.mean, value.high))
        notes.append(
            f"T1 of this subject's arterial blood: {middle} s, 95 % interval {low} to {high} s, one value for all voxels (expected "
            f"beforehand: {float(prior.mean):.2f} ± {float(prior.sd):.2f} s). The standard deviations of the maps contain its uncertainty."
        )
    share = float(joint.silent.mean())
    if share > 0.5:
        notes.append(
            f"In {100 * share:.0f} % of the voxels arrival time is known no better than it differs over the region (status 8): "
            f"there the maps show little more than the region's mean. Trust regional averages only."
        )
    return replace(fit, status=status, settings=settings, scan=replace(fit.scan, notes=tuple(notes)))
