"""Where the plain model is wrong or volumes are spoilt: arterial blood volume and volume weights, on seeds that neither was made on.

python -m benchmarks.models [--seeds 301,302,303] [--spacing 5] [--only arterial|spoilt] writes benchmarks/results/models.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import shift

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM
from pinn_engine.asl.phantom.make import Phantom
from pinn_engine.asl.weights import volume_weights
from pinn_engine.cli.demo import blurred

from . import methods

SHAPES = {3.0: (48, 60, 40), 4.0: (36, 46, 30), 5.0: (28, 36, 23)}
SNR_3MM = 100.0  # M0 / noise of one image: averaged grey-matter SNR about 1 a delay
ARTERIAL, SOME = 0.02, 0.003  # blood volume in the middle of the vessels; above this a voxel counts as arterial
SPOILT, BACKGROUND = 4, 0.1  # pairs of 24; static signal left by background suppression
KINDS = {
    "moved between control and label, 1 mm": "between",
    "head moved by 6 mm for the pair": "both",
    "labelling failed": "nolabel",
    "noise of the label image x 3.2": "noise",
}
JOINT_TOO = ("between",)
ABV = ("cbf", "att", "abv")
Maps = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # CBF, ATT, sd of CBF


def fits(abv: bool) -> dict[str, Callable[[asl.Scan], Maps]]:
    """Name of each method and what it makes of a scan."""

    def of(**options: object) -> Callable[[asl.Scan], Maps]:
        def run(scan: asl.Scan) -> Maps:
            maps = asl.fit(scan, device="cpu", **options).maps
            return maps["cbf"].value, maps["att"].value, maps["cbf"].std

        return run

    def smooth(mm: float) -> Callable[[asl.Scan], Maps]:
        return lambda scan: of(method="nlls", weigh_volumes=False)(blurred(scan, mm))

    table = {f"blur {mm:g} mm + closed form": smooth(mm) for mm in (4.0, 6.0, 8.0)}
    table |= {"closed form": of(method="nlls", weigh_volumes=False), "PINN": of(weigh_volumes=False, spatial=False)}
    if abv:
        table |= {"PINN, abv": of(unknown=ABV, spatial=False), "joint": of(spatial=True), "joint, abv": of(spatial=True, unknown=ABV)}
    else:
        table |= {"closed form, weights": of(method="nlls"), "PINN, weights": of(spatial=False)}
        table |= {"joint": of(spatial=True, weigh_volumes=False), "joint, weights": of(spatial=True)}
    return table


def snr(spacing: float) -> float:
    return SNR_3MM * (spacing / 3.0) ** 1.5  # the same information in a litre of brain at every voxel size


def figures(maps: Maps, p: Phantom, where: np.ndarray) -> np.ndarray:
    """CBF bias, median |error|, RMSE; ATT bias; share of CBF within 1.96 sd."""
    cbf, att, sd = maps
    e, d = (cbf - p.cbf)[where], (att - p.att)[where]
    covers = np.nan if sd is None else np.mean(np.abs(e) <= 1.96 * sd[where])
    return np.array([e.mean(), np.median(np.abs(e)), np.sqrt(np.mean(e**2)), d.mean(), covers])


def constant(p: Phantom) -> Maps:
    e = methods.constant(p)
    return e.cbf, e.att, None


def arterial(seeds: list[int], spacing: float) -> list[str]:
    lines = []
    for volume in (ARTERIAL, 0.0):
        found: dict[str, list[np.ndarray]] = {}
        counted = []
        for seed in seeds:
            p = asl.phantom(SHAPES[spacing], spacing, seed, snr=snr(spacing), arterial=volume)
            grey = p.tissue == GM
            inside = grey & (p.abv > SOME) if volume else grey
            counted.append(int(inside.sum()))
            print(f"arterial {volume:g}, seed {seed}", file=sys.stderr)
            for name, run in ({"constant": lambda scan, p=p: constant(p)} | fits(abv=True)).items():
                begin = time.process_time()
                maps = run(p.scan())
                seconds = time.process_time() - begin
                row = [*figures(maps, p, inside), *figures(maps, p, grey)[:3], seconds]
                found.setdefault(name, []).append(np.array(row))
        lines += [f"## Arterial blood up to {volume:g}, {sum(counted)} voxels of GM" + (f" with aCBV > {SOME:g}" if volume else ""), ""]
        where = "arterial GM" if volume else "GM"
        lines += [f"| method | {where}: CBF bias / median / RMSE | ATT bias, s | CBF covered | all GM: bias / median / RMSE | CPU s |"]
        lines += ["|" + " --- |" * 6]
        for name, rows in found.items():
            bias, median, rmse, att, covers, gm_bias, gm_median, gm_rmse, seconds = np.mean(rows, axis=0)
            lines.append(
                f"| {name} | {bias:+.2f} / {median:.2f} / {rmse:.2f} | {att:+.3f} | {covers:.3f} "
                f"| {gm_bias:+.2f} / {gm_median:.2f} / {gm_rmse:.2f} | {seconds:.1f} |"
            )
        lines.append("")
    return lines


def spoil(seed: int, spacing: float, kind: str) -> tuple[Phantom, Phantom, np.ndarray]:
    """The clean phantom, the same with some pairs spoilt before noise came on, and which."""
    made = {"shape": SHAPES[spacing], "spacing": spacing, "seed": seed, "background": BACKGROUND}
    clean, still = asl.phantom(snr=snr(spacing), **made), asl.phantom(snr=None, **made)
    control, label = still.control.copy(), still.label.copy()
    noise = [clean.control - still.control, clean.label - still.label]
    rng = np.random.default_rng([seed, 7])
    which = np.sort(rng.choice(control.shape[3], SPOILT, replace=False))
    for k in which:
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way) * spacing
        if kind == "between":
            label[..., k] = shift(label[..., k], way, order=1)
        elif kind == "both":
            control[..., k], label[..., k] = (shift(x[..., k], 6 * way, order=1) for x in (control, label))
        elif kind == "nolabel":
            label[..., k] = control[..., k]
        else:
            noise[1][..., k] += 3 * clean.noise_sd * rng.standard_normal(label.shape[:3])
    return clean, replace(clean, control=control + noise[0], label=label + noise[1]), which


def spoilt(seeds: list[int], spacing: float) -> list[str]:
    found: dict[str, dict[str, list[float]]] = {}
    told = []
    for seed in seeds:
        for k, (title, kind) in enumerate(KINDS.items()):
            clean, bad, which = spoil(seed, spacing, kind)
            grey = clean.tissue == GM
            print(f"spoilt {kind}, seed {seed}", file=sys.stderr)
            w = volume_weights(bad.scan()).weight
            told.append(
                f"seed {seed}, {title}: weights "
                + ", ".join(f"{x:.2f}" for x in w[which])
                + f"; others at least {np.delete(w, which).min():.2f}"
            )
            for name, run in fits(abv=False).items():
                if "joint" in name and kind not in JOINT_TOO:
                    continue  # the slow fit on one kind
                row = found.setdefault(name, {})
                if k == 0:
                    row.setdefault("clean", []).append(figures(run(clean.scan()), clean, grey)[2])
                row.setdefault(title, []).append(figures(run(bad.scan()), clean, grey)[2])
            if k == 0:
                found.setdefault("constant", {}).setdefault("clean", []).append(figures(constant(clean), clean, grey)[2])
    lines = [f"## {SPOILT} of 24 pairs spoilt: RMSE of GM CBF (and per the same method's on the clean scan)", ""]
    lines += ["| method | clean | " + " | ".join(KINDS) + " |", "|" + " --- |" * (2 + len(KINDS))]
    for name, row in found.items():
        base = float(np.mean(row["clean"]))
        cells = [f"{np.mean(row[t]):.2f} ({np.mean(row[t]) / base:.2f})" if t in row else "" for t in KINDS]
        lines.append(f"| {name} | {base:.2f} | " + " | ".join(cells) + " |")
    return [*lines, "", *(f"- {one}" for one in told), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="301,302,303")
    parser.add_argument("--spacing", type=float, default=5.0)
    parser.add_argument("--only", choices=("arterial", "spoilt"))
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "models.md"))
    o = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(part) for part in o.seeds.split(",")]
    lines = [f"# Arterial blood and spoilt volumes: {o.spacing:g} mm, 6 delays x 4 pairs, seeds {o.seeds}, means over seeds", ""]
    for name, section in (("arterial", arterial), ("spoilt", spoilt)):
        if o.only in (None, name):
            lines += section(seeds, o.spacing)
    Path(o.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
