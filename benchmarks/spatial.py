"""The joint spatial fit beside simpler methods, on phantoms of seeds that it was not designed on, and on a real scan's halves.

python -m benchmarks.spatial [--seeds 201,202] [--focus-free 211] [--plain 221] [--spacing 4] [--real FOLDER] writes results/spatial.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pinn_engine import asl
from pinn_engine.asl import PerfusionFit, Scan
from pinn_engine.asl.phantom.brain import GM, WM
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.asl.weights import same_delay
from pinn_engine.cli.demo import blurred

from . import methods
from .scoring import Estimate, errors

SHAPES = {3.0: (48, 60, 40), 4.0: (36, 46, 30), 5.0: (28, 36, 23)}
SNR_3MM = 100.0  # M0 / noise of one image: averaged grey-matter SNR about 1 a delay
LEAST_VOXELS = 4
BRIGHT = 0.95
COLUMNS = ("method", "GM CBF median / RMSE", "GM ATT, s", "GM covers CBF / ATT", "WM CBF", "WM ATT", "WM covers", "contrast kept, capped")
HEAD = "| " + " | ".join(COLUMNS) + " |"


Z_BINS = (0.0, 2.5, 3.5, 4.5, 5.5, 7.5, 10.0, np.inf)


def estimates(p: Phantom, only_joint: bool) -> tuple[list[Estimate], PerfusionFit]:
    scan = p.scan()
    begin = time.process_time()
    joint = asl.fit(scan, device="cpu", spatial=True)
    seconds = time.process_time() - begin
    ours = Estimate.of("joint spatial fit, tissue from M0", joint, seconds)
    if only_joint:
        return [ours], joint
    tables = [methods.constant(p), methods.ours("nlls", p.scan(t1_map=True), label="closed form, true T1")]
    tables += [replace(methods.smoothed(p.scan(t1_map=True), mm), name=f"blur {mm:g} mm + closed form, true T1") for mm in (4.0, 6.0, 8.0)]
    tables.append(methods.ours("pinn, features", p.scan(t1_map=True), label="PINN voxelwise, true T1"))
    return [*tables, ours], joint


@dataclass(frozen=True)
class Found:
    """One true focus: radius mm, grey voxels, expected z with its mask and arrival known, share of contrast kept, listed or not."""

    radius: float
    voxels: int
    z: float
    kept: float
    listed: bool


def expected_z(p: Phantom) -> np.ndarray:
    """(X, Y, Z) square root of the information on a voxel's CBF, per mL/100 g/min, its arrival known."""
    a, perfused = p.acquisition, p.mask & (p.cbf > 0)
    cbf, att, t1 = (x[perfused].astype(float)[:, None] for x in (p.cbf, p.att, p.t1_tissue))
    unit = methods.buxton(a.pld + a.label_duration, a.label_duration, cbf, att, t1, a.alpha.number, a.t1_blood.number, a.partition.number)
    noise = 2**0.5 * p.noise_sd * a.partition.number / p.m0[perfused]
    out = np.zeros(p.mask.shape)
    out[perfused] = np.sqrt(np.square(unit / cbf).sum(axis=1)) / noise
    return out


def kept(p: Phantom, cbf: np.ndarray, hit: set[int]) -> list[Found]:
    """Every focus with enough grey matter, its contrast against the truth without the focus."""
    found, root = [], expected_z(p)
    for one in p.lesions:
        whole = p.lesion == one.label
        inside = whole & (p.tissue == GM)
        if inside.sum() >= LEAST_VOXELS:
            without = p.cbf[inside] / (1 + one.contrast)
            share = float((cbf[inside] - without).sum() / (p.cbf[inside] - without).sum())
            change = one.contrast / (1 + one.contrast) * p.cbf[whole]
            z = float(np.sqrt(np.square(change * root[whole]).sum()))
            found.append(Found(one.radius, int(inside.sum()), z, share, one.label in hit))
    return found


def capped(values: Iterable[Found]) -> float:
    return float(np.mean([min(v.kept, 1.0) for v in values] or [np.nan]))


def by_size_and_z(found: list[Found]) -> list[str]:
    lines = ["| foci of radius | n | contrast kept, capped | on the strict list |", "| --- | --- | --- | --- |"]
    for radius in sorted({f.radius for f in found}):
        lines.append(_found_row(f"{radius:g} mm", [f for f in found if f.radius == radius]))
    lines += ["", "| expected z | n | contrast kept, capped | on the strict list |", "| --- | --- | --- | --- |"]
    for low, high in pairwise(Z_BINS):
        inside = [f for f in found if low <= f.z < high]
        if inside:
            lines.append(_found_row(f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}", inside))
    return [*lines, ""]


def _found_row(name: str, found: list[Found]) -> str:
    return f"| {name} | {len(found)} | {capped(found):.2f} | {sum(f.listed for f in found)} |"


def figures(p: Phantom, e: Estimate) -> dict[str, float]:
    out = {}
    for name, tissue in (("gm", GM), ("wm", WM)):
        where = p.mask & (p.tissue == tissue)
        cbf, att = errors(e.cbf, p.cbf, e.cbf_sd, where), errors(e.att, p.att, e.att_sd, where)
        out |= {f"{name}_cbf": cbf.median, f"{name}_rmse": cbf.rmse, f"{name}_att": att.median}
        out |= {f"{name}_covers_cbf": cbf.covers or np.nan, f"{name}_covers_att": att.covers or np.nan}
    return out | {"kept": capped(kept(p, e.cbf, set())) if p.lesions else np.nan}


def row(name: str, many: list[dict[str, float]]) -> str:
    m = {key: float(np.mean([one[key] for one in many])) for key in many[0]}
    cells = [name]
    for tissue in ("gm", "wm"):
        cbf, rmse, att, covers, covers_att = (m[f"{tissue}_{key}"] for key in ("cbf", "rmse", "att", "covers_cbf", "covers_att"))
        cells += [f"{cbf:.2f} / {rmse:.2f}", f"{att:.3f}", f"{covers:.3f} / {covers_att:.3f}"]
    return "| " + " | ".join([*cells, f"{m['kept']:.2f}"]) + " |"


def listed(p: Phantom, fit: PerfusionFit) -> tuple[set[int], int]:
    """Of the strict list: labels of true foci hit, rows away from any focus. A row hits a focus within 3 mm of its ball."""
    _, rows = fit.tables["desc-focus_probseg"]
    hit: set[int] = set()
    false = 0
    for r in rows:
        at = np.array([r["x_mm"], r["y_mm"], r["z_mm"]], float)
        near = [one.label for one in p.lesions if np.linalg.norm(at - one.centre) <= one.radius + 3]
        hit |= set(near)
        false += not near
    return hit, false


def phantoms(seeds: list[int], spacing: float, lesions: bool, steps: bool = True, only_joint: bool = False) -> list[str]:
    table: dict[str, list[dict[str, float]]] = {}
    foci: list[Found] = []
    notes = []
    for seed in seeds:
        snr = SNR_3MM * (spacing / 3.0) ** 1.5  # the same information in a litre of brain at every voxel size
        p = asl.phantom(SHAPES[spacing], spacing, seed, snr=snr, lesions=lesions, territories=steps)
        found, joint = estimates(p, only_joint)
        for e in found:
            table.setdefault(e.name, []).append(figures(p, e))
        hit, false = listed(p, joint)
        foci += kept(p, found[-1].cbf, hit)
        there, voxels = len(p.lesions), int(p.mask.sum())
        notes.append(f"seed {seed}: strict list {len(hit)} of {there} foci, {false} false; {found[-1].seconds:.1f} s CPU for {voxels:,}")
        print(notes[-1], row(found[-1].name, table[found[-1].name][-1:]), flush=True)
    lines = [HEAD, "|" + " --- |" * 8, *(row(name, many) for name, many in table.items()), ""]
    lines += by_size_and_z(foci) if foci else []
    return [*lines, *(f"- {note}" for note in notes), ""]


def halves(folder: Path) -> list[str]:
    """Odd against even repeats: how far the maps differ, and how well each half's fit predicts the *data* of the other.

    The difference per sqrt 2, robust, where the mask's signal is strong (upper half of the joint CBF): blur makes it small. The data of the
    other half, which no blur can flatter: mean square of (fitted - its mean differences) per variance of the noise of these; 1 is perfect.
    """
    path = str(next(folder.rglob("*_asl.nii.gz")))
    scan = asl.read(path, mask=str(next(folder.rglob("*_mask.nii.gz"))))
    strong = asl.fit(scan, spatial=True).maps["cbf"].value
    where = scan.mask & (strong > np.median(strong[scan.mask]))
    plain = asl.fit(scan, spatial=False, method="nlls").maps["cbf"].value
    bright = scan.mask & (plain > np.quantile(plain[scan.mask], BRIGHT))  # vessels, which no model of tissue fits
    pair = [half(scan, k) for k in (0, 1)]
    noise = sum(repeat_variance(one) for one in pair)[..., None] / 2
    closed = {"spatial": False, "method": "nlls"}
    ways = [("closed form", 0.0, closed), ("voxelwise", 0.0, {"spatial": False}), ("joint", 0.0, {"spatial": True})]
    ways += [(f"blur {mm:g} mm + closed form", mm, closed) for mm in (4.0, 6.0, 8.0)]
    fits = {name: [asl.fit(blurred(one, mm) if mm else one, **options) for one in pair] for name, mm, options in ways}
    data = [one.data for one in fits["closed form"]]
    told = "other half's data: all but the brightest 5 %"
    lines = [f"| method | CBF (relative units) | ATT, s | {told} | the brightest 5 % |", "|" + " --- |" * 5]

    def predicts(curves: list[np.ndarray]) -> str:
        off = sum(np.square(curves[k] - data[1 - k]) for k in (0, 1)).mean(axis=-1, keepdims=True) / 2 / noise.clip(1e-12)
        return " | ".join(f"{off[inside].mean():.2f}" for inside in (scan.mask & ~bright & (noise[..., 0] > 0), bright))

    lines.append(f"| constant | – | – | {predicts([one * 0 + one[scan.mask].mean(axis=0) for one in data])} |")
    for name, both in fits.items():
        a, b = (one.maps for one in both)
        repeat = [1.4826 / 2**0.5 * np.median(np.abs((a[m].value - b[m].value)[where])) for m in ("cbf", "att")]
        lines.append(f"| {name} | {repeat[0]:.3f} | {repeat[1]:.3f} | {predicts([one.fitted for one in both])} |")
    return [*lines, ""]


def repeat_variance(scan: Scan) -> np.ndarray:
    """(X, Y, Z) variance of the mean of a delay's repeats, from their scatter; 0 outside the mask."""
    member, d, out = same_delay(scan), scan.difference[scan.mask].astype(float), np.zeros(scan.mask.shape)
    groups = [member == key for key in np.unique(member)]
    out[scan.mask] = np.mean([d[:, one].var(axis=1, ddof=1) / one.sum() for one in groups], axis=0)
    return out


def half(scan: Scan, odd: int) -> Scan:
    """Every second repeat of each delay."""
    a, member = scan.acquisition, same_delay(scan)
    keep = np.zeros(len(member), bool)
    for key in np.unique(member):
        keep[np.flatnonzero(member == key)[odd::2]] = True
    return replace(
        scan, difference=scan.difference[..., keep], acquisition=replace(a, pld=a.pld[keep], label_duration=a.label_duration[keep])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="201,202,203")
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--focus-free", default="", help="seeds of brains without foci")
    parser.add_argument(
        "--plain", default="", help="seeds of brains without foci and without territory steps: a smooth field in each tissue"
    )
    parser.add_argument("--only-joint", action="store_true", help="leave the other methods out")
    parser.add_argument("--real", help="folder of a real scan with repeats and a mask")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "spatial.md"))
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    lines = [f"# Joint spatial fit: {o.spacing:g} mm, 6 delays x 4 pairs, territory steps", ""]
    if o.seeds:
        lines += [
            f"## With foci (±40 %, radii 4 to 14 mm), seeds {o.seeds}",
            "",
            *phantoms(_list(o.seeds), o.spacing, True, only_joint=o.only_joint),
        ]
    if o.focus_free:
        lines += [f"## Without foci, seeds {o.focus_free}", ""]
        lines += phantoms(_list(o.focus_free), o.spacing, False, only_joint=o.only_joint)
    if o.plain:
        lines += [f"## Without foci and steps, seeds {o.plain}", ""]
        lines += phantoms(_list(o.plain), o.spacing, False, steps=False, only_joint=o.only_joint)
    if o.real:
        lines += ["## Real scan, odd against even repeats", "", *halves(Path(o.real))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines.append(f"Peak memory {peak:.2f} GiB, {o.threads} thread(s).")
    Path(o.out).parent.mkdir(exist_ok=True)
    Path(o.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _list(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
