"""What the joint fit of a subject adds to the maps: its T1 of blood with interval, where the place says nothing, how it was made."""

from __future__ import annotations

from dataclasses import replace

from ...core import Gaussian
from ..curves import Curves
from ..maps import VoxelStatus
from ..result import PerfusionFit
from .evidence import SubjectValue
from .fit import SubjectFit

UNUSUAL = 2.0  # prior sd from its mean beyond which T1 of blood is questioned


def add_subject(fit: PerfusionFit, c: Curves, joint: SubjectFit) -> PerfusionFit:
    """`fit` with the status, settings and notes of the joint fit."""
    status = fit.status.copy()
    codes = joint.solution.status.cpu().numpy().copy()
    codes[joint.silent & (codes != VoxelStatus.NOT_FINITE)] = VoxelStatus.PRIOR_DOMINATED
    status[c.voxels] = codes
    scales = joint.prior.scales.exp().tolist()
    learnt = {
        name: {"sd_smooth": round(s * unit, 4), "range_voxels": round(reach, 2), "sd_rough": round(r * unit, 4)}
        for name, (s, reach, r), unit in zip(("cbf", "att"), scales, (joint.flow, 1.0), strict=True)
    }
    settings = fit.settings | {"spatial": joint.prior.spatial, "learnt_prior": learnt, "tiles": joint.tiles}
    settings |= {"mean_cbf_prior": joint.expected}
    settings |= {"noise_origin": fit.settings["noise_origin"] if c.degrees else "learnt with the joint fit, one for all voxels"}
    fit = add_t1b(replace(fit, status=status, settings=settings), joint.t1b, joint.t1b_prior)
    notes = list(fit.scan.notes)
    share = float(joint.silent.mean())
    if share > 0.5:
        notes.append(
            f"In {100 * share:.0f} % of the voxels arrival time is known no better than it differs over the region (status 8): "
            f"there the maps show little more than the region's mean. Trust regional averages only."
        )
    return replace(fit, scan=replace(fit.scan, notes=tuple(notes)))


def add_t1b(fit: PerfusionFit, value: SubjectValue, prior: Gaussian | None) -> PerfusionFit:
    """`fit` with what is known of T1 of the subject's blood in its settings and first among its notes; nothing where it was given."""
    settings = fit.settings | {"joint": "subject"}
    if fit.settings["method"] == "pinn" and not fit.settings["model_error"]:
        settings |= {"model_error_origin": "preset: the equation is exact"}
    if prior is None:
        return replace(fit, settings=settings)
    interval = [round(value.low, 4), round(value.high, 4)]
    settings |= {"t1b": round(value.mean, 4), "t1b_std": round(value.sd, 4), "t1b_interval_95": interval}
    settings |= {"t1b_prior_mean": float(prior.mean), "t1b_prior_sd": float(prior.sd)}
    digits = 2 if value.sd > 0.005 else 3
    low, middle, high = (f"{x:.{digits}f}" for x in (value.low, value.mean, value.high))
    note = (
        f"T1 of this subject's arterial blood: {middle} s, 95 % interval {low} to {high} s, one value for all voxels (expected "
        f"beforehand: {float(prior.mean):.2f} ± {float(prior.sd):.2f} s). The standard deviations of the maps contain its uncertainty."
    )
    notes = [note]
    away = (value.mean - float(prior.mean)) / float(prior.sd)
    if abs(away) > UNUSUAL:
        notes.append(
            f"Doubtful: this T1 of blood lies {abs(away):.1f} sd {'above' if away > 0 else 'below'} what was expected. The kinetic model "
            f"({fit.settings['model']}) may not describe these data, or the subject is not an infant; then CBF is wrong too. Give --t1b, "
            "or leave --preset out."
        )
    return replace(fit, settings=settings, scan=replace(fit.scan, notes=(*notes, *fit.scan.notes)))
