"""`pinn-engine demo asl`: phantom, fit, report, and a table of errors against the truth and against simpler methods."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cohort.one import Task, run_one
from ..files.output import OutputFolder
from . import heart
from .perfusion import add_fit, add_kind, finish, fit_arguments, model_of, set_threads
from .phantom import shape_of
from .progress import reporter

if TYPE_CHECKING:
    from ..asl.result import PerfusionFit

SPACING, SNR, SEED = 4.0, 400.0, 0
BLUR = 6.0  # mm FWHM


def add(commands) -> None:
    kinds = commands.add_parser("demo", help="phantom, fit, report, errors against the truth").add_subparsers(
        required=True, metavar="asl|cardiac"
    )
    p = add_kind(kinds, "asl", "Fit a digital brain whose perfusion is known, and compare with the truth.")
    p.add_argument("--out", required=True, metavar="DIR")
    add_fit(p)
    p.set_defaults(run=run)
    heart.add_demo(kinds)


def run(call: argparse.Namespace) -> int:
    from .. import asl
    from ..asl.phantom import infant, make, write_bids
    from ..report.overview import overview

    set_threads(call.threads)
    folder = OutputFolder(call.out)
    model = model_of(call)
    labeling = "PASL" if model == "simplified" else "PCASL"  # the simplified model is one of pulsed labelling
    brain = call.preset != "infant"
    phantom = make(shape_of(SPACING), SPACING, SEED, snr=SNR, labeling=labeling) if brain else infant(SEED)  # type: ignore[arg-type]
    paths = write_bids(phantom, folder.path / "phantom")
    truth = {name: str(paths[name]) for name in ("cbf", "att", "tissue", "lesion")}
    read = {"mask": str(paths["mask"]), "t1_map": str(paths["t1"]), "model": model}
    outcome = run_one(Task(str(paths["asl"]), str(folder.path), read, fit_arguments(call), truth, keep=True), reporter(call.progress))
    if outcome.code:
        return finish(outcome)
    scan = outcome.fit.scan
    together = outcome.fit.settings.get("spatial", False)
    pinn = f"pinn ({call.network})"
    name = call.preset or ("nlls" if call.method == "nlls" else pinn) + (", all voxels together" if together else "")
    fits = {name: outcome.fit}
    if together and not call.preset and call.method == "pinn":
        fits[f"{pinn}, voxel by voxel"] = asl.fit(scan, **fit_arguments(call) | {"spatial": False})
    fits |= {
        "closed form": asl.fit(scan, method="nlls", model=model, device=call.device),
        f"closed form after {BLUR:g} mm blur": asl.fit(blurred(scan, BLUR), method="nlls", model=model, device=call.device),
    }
    true = {"cbf": phantom.cbf, "att": phantom.att, "tissue": phantom.tissue, "lesion": phantom.lesion}
    rows = accuracy(fits, true)
    folder.write_tsv("accuracy.tsv", rows)
    folder.write_bytes("overview.png", overview(next(iter(fits.values())), true))
    print(as_text(rows))
    print(outcome.message)
    return 0


def blurred(scan, fwhm: float):
    """The scan with its differences smoothed inside the mask: what a Gaussian filter alone would do."""
    from dataclasses import replace

    from scipy.ndimage import gaussian_filter

    sigma = fwhm / np.sqrt(8 * np.log(2)) / scan.grid.spacing
    weight = gaussian_filter(scan.mask.astype(np.float32), sigma)
    inside = np.where(scan.mask[..., None], scan.difference, 0)
    smooth = np.stack([gaussian_filter(inside[..., n], sigma) for n in range(inside.shape[3])], axis=3)
    return replace(scan, difference=smooth / np.maximum(weight, 1e-3)[..., None])


def accuracy(fits: Mapping[str, PerfusionFit], truth: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row a map, region and method; the constant is the region's true median said everywhere."""
    from ..report.perfusion import demo_table

    rows: list[dict[str, Any]] = []
    for name, fit in fits.items():
        for row in demo_table(fit, truth):
            kept = {"map": row["map"], "region": row["region"], "method": name, "unit": row["unit"]}
            rows.append(kept | {key: row[key] for key in ("median_abs_error", "rmse", "bias", "coverage")})
            if name == [*fits][-1]:
                constant = {
                    "median_abs_error": row["constant_median_abs_error"],
                    "rmse": row["constant_rmse"],
                    "bias": None,
                    "coverage": None,
                }
                rows.append(kept | {"method": "constant (true median)"} | constant)
    order = list(dict.fromkeys((row["map"], row["region"]) for row in rows))
    return sorted(rows, key=lambda row: order.index((row["map"], row["region"])))


def as_text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    lines, last = [], None
    for row in rows:
        if (row["map"], row["region"]) != last:
            last = (row["map"], row["region"])
            lines.append(f"\n{row['map']} ({row['unit']}), {row['region']:<36}{'median |error|':>15}{'RMSE':>9}{'95 % covers':>13}")
        middle, rmse, coverage = (row.get(key) for key in ("median_abs_error", "rmse", "coverage"))
        covers = "" if coverage is None else f"{100 * coverage:.0f} %"
        digits = 1 if row["map"] == "cbf" else 3
        lines.append(f"  {row['method']:<40}{middle:>25.{digits}f}{rmse:>9.{digits}f}{covers:>13}")
    return "\n".join(lines).lstrip("\n") + "\n"
