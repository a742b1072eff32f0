"""One subject's T1 of blood fitted jointly with CBF and arrival time, beside simpler methods, on SUPINN-style infants of unseen seeds.

python -m benchmarks.infant [--seeds 500-511] [--noise 0.02,0.05,0.1] writes benchmarks/results/infant.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pinn_engine import asl
from pinn_engine.asl import PerfusionFit, Scan
from pinn_engine.asl.phantom import Phantom, infant
from pinn_engine.asl.phantom.infant import FIELDS, SECONDS
from pinn_engine.cli.demo import blurred

GUESS = 1.85  # s, T1 of blood where a method must be told and nobody knows it
PROFILE = np.arange(1.0, 3.0, 0.02)  # s
COLUMNS = ("method", "CBF MAE (bias)", "AT MAE", "T1b |error|", "T1b covers", "covers CBF / AT", "lesion CBF / AT kept", "CPU s")


@dataclass(frozen=True)
class Found:
    """Maps (V,) in mL/100 g/s and s, with sd where the method has one; T1b with its 95 % interval."""

    name: str
    cbf: np.ndarray
    att: np.ndarray
    cbf_sd: np.ndarray | None = None
    att_sd: np.ndarray | None = None
    t1b: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float | None = None


def of(name: str, fit: PerfusionFit, seconds: float | None = None) -> Found:
    m, maps = fit.scan.mask, fit.maps
    low, high = fit.settings.get("t1b_interval_95", (None, None))  # type: ignore[misc]
    return Found(
        name,
        maps["cbf"].value[m] / SECONDS,
        maps["att"].value[m],
        maps["cbf"].std[m] / SECONDS,
        maps["att"].std[m],
        float(maps["t1b"].value[m][0]) if low is not None else None,
        None if low is None else (low, high),
        seconds,
    )


def told(scan: Scan, t1b: float) -> Scan:
    """The scan as if T1 of blood were known to be this."""
    known = asl.acquisition.Sourced(t1b, "option --t1b", "s")
    return replace(scan, acquisition=replace(scan.acquisition, t1_blood=known))


def profiled(scan: Scan) -> float:
    """One T1 of blood by the profile likelihood of the closed form, every voxel by itself."""
    a = scan.acquisition
    y = scan.difference[scan.mask].astype(float)
    att = np.arange(0, 3.3, 0.02)
    cost = []
    for t1b in PROFILE:
        curve = np.clip(a.pld - att[:, None], 0, a.label_duration) * np.exp(-a.pld / t1b)
        gain = np.clip(y @ curve.T, 0, None) ** 2 / np.maximum((curve**2).sum(axis=1), 1e-12)
        cost.append(-gain.max(axis=1).sum())
    return float(PROFILE[int(np.argmin(cost))])


def found(p: Phantom) -> list[Found]:
    scan, m = p.scan(), p.mask
    true = p.acquisition.t1_blood.number
    constant = np.ones(int(m.sum()))
    out = [Found("constant (true means)", p.cbf[m].mean() / SECONDS * constant, p.att[m].mean() * constant, t1b=GUESS)]
    closed = {"method": "nlls", "model": "simplified"}
    out.append(of("closed form, voxelwise, true T1b", asl.fit(told(scan, true), **closed)))
    shared = profiled(scan)
    out.append(replace(of("closed form, voxelwise, one T1b by profile", asl.fit(told(scan, shared), **closed)), t1b=shared))
    for mm in (4.0, 6.0, 8.0):
        out.append(of(f"blur {mm:g} mm + closed form, true T1b", asl.fit(told(blurred(scan, mm), true), **closed)))
    for name, options, s in (
        ("--preset infant, T1b unknown", {}, scan),
        ("--preset infant --no-spatial", {"spatial": False}, scan),
        ("--preset infant, true T1b given", {}, told(scan, true)),
    ):
        begin = time.process_time()
        fit = asl.fit(s, preset="infant", **options)
        out.append(of(name, fit, time.process_time() - begin))
    return out


def figures(p: Phantom, f: Found) -> dict[str, float]:
    m, true = p.mask, p.acquisition.t1_blood.number
    cbf, att = p.cbf[m] / SECONDS, p.att[m]
    row = {"cbf": np.abs(f.cbf - cbf).mean(), "bias": (f.cbf - cbf).mean(), "att": np.abs(f.att - att).mean()}
    row["t1b"] = np.nan if f.t1b is None else 100 * abs(f.t1b / true - 1)
    row["t1b_covers"] = np.nan if f.interval is None else float(f.interval[0] <= true <= f.interval[1])
    row["cbf_covers"] = np.nan if f.cbf_sd is None else np.mean(np.abs(f.cbf - cbf) <= 1.96 * f.cbf_sd)
    row["att_covers"] = np.nan if f.att_sd is None else np.mean(np.abs(f.att - att) <= 1.96 * f.att_sd)
    row["seconds"] = np.nan if f.seconds is None else f.seconds
    inside = p.lesion[m] > 0
    if p.lesions:
        lesion = p.lesions[0]
        flow, arrival = cbf[inside] / (1 + lesion.contrast), att[inside] - lesion.delay
        row["kept_cbf"] = float((f.cbf[inside] - flow).sum() / (cbf[inside] - flow).sum())
        row["kept_att"] = float((f.att[inside] - arrival).sum() / (lesion.delay * inside.sum()))
    return {key: float(value) for key, value in row.items()}


def table(noise: float, seeds: list[int], lesion: bool) -> list[str]:
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        p = infant(seed, noise, fields=FIELDS[seed % len(FIELDS)], lesion=lesion)
        for f in found(p):
            rows.setdefault(f.name, []).append(figures(p, f))
    lines = [f"## Noise sd {noise:g}{'' if lesion else ', no lesion'} ({len(seeds)} subjects)", "", "| " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * len(COLUMNS))
    for name, many in rows.items():
        m = {key: float(np.mean([one[key] for one in many])) for key in many[0]}
        worst = max(one["t1b"] for one in many)
        cells = [name, f"{m['cbf']:.4f} ({m['bias']:+.3f})", f"{m['att']:.4f}", f"{m['t1b']:.2f} % (worst {worst:.1f})"]
        cells += [f"{m['t1b_covers']:.2f}", f"{m['cbf_covers']:.3f} / {m['att_covers']:.3f}"]
        cells += [f"{m['kept_cbf']:.2f} / {m['kept_att']:.2f}" if "kept_cbf" in m else "-", f"{m['seconds']:.1f}"]
        lines.append("| " + " | ".join(cells).replace("nan % (worst nan)", "-").replace("nan / nan", "-").replace("nan", "-") + " |")
    return [*lines, ""]


def seeds_of(text: str) -> list[int]:
    """`500-511` or `500,503`."""
    if "-" in text:
        first, last = map(int, text.split("-"))
        return list(range(first, last + 1))
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="500-511")
    parser.add_argument("--noise", default="0,0.01,0.02,0.05,0.1,0.2,0.3,0.5")
    parser.add_argument("--no-lesions", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "infant.md"))
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    lines: list[str] = []
    for noise in (float(part) for part in o.noise.split(",")):
        lines += table(noise, seeds_of(o.seeds), not o.no_lesions)
        print("\n".join(lines[-14:]), flush=True)
        Path(o.out).write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
