"""Every technique taken away and put back: `python -m benchmarks.techniques [--seeds 3] [--only NAME …]`, a table and a picture.

Writes results/techniques.md and docs/pictures/techniques.png. The cases are in `technique_cases.py`; each is a small problem with a known
answer, and all its variants have the same network, points and steps unless their name says otherwise. Medians over seeds of the starting
weights (and of the noise, where there is any).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from . import machine, technique_cases
from .technique_cases import Errors

ROWS = {  # case: (title, what its numbers are)
    "forward_mode": ("Forward mode", "largest error of u"),
    "inverse_mode": ("Inverse mode", "relative error of D, and the sd it reports"),
    "fixed_weights": ("Loss weights, fixed", "relative error of D"),
    "adaptive_weights": ("Loss weights, adaptive", "rms error of u, Adam"),
    "conditions": ("Soft and hard conditions", "largest error of u: everywhere, and at the ends"),
    "refinement": ("Adaptive collocation", "rms error of a thin front"),
    "fourier": ("Fourier features", "rms error of a signal with a fast wave"),
    "skips": ("Skip connections", "rms error of u, Adam"),
    "normalisation": ("Normalisation", "rms error of u, relative to its unit"),
    "activations": ("tanh and swish", "largest error of u"),
    "schedule": ("Adam with a schedule", "rms error of u, mini-batches"),
    "batches": ("Mini- and full batch", "rms error of u after as many steps"),
    "optimisers": ("Adam, L-BFGS, Levenberg-Marquardt", "rms error of u, soft conditions"),
    "glorot": ("Glorot initialisation", "rms error of u, five hidden layers, Adam"),
    "causality": ("Causal weights", "largest error of u"),
    "windows": ("Time windows", "largest error of u"),
    "unknown_parameters": ("Unknown parameters", "relative errors"),
    "identifiability": ("Identifiability", "condition number of what is known"),
}


def measured(case: Callable[[int], Errors], seeds: int) -> tuple[dict[str, list[float]], float]:
    """Absolute errors by variant, one a seed, and CPU seconds a seed for all variants together."""
    begin = time.process_time()
    found = [case(seed) for seed in range(seeds)]
    return {name: [abs(one[name]) for one in found] for name in found[0]}, (time.process_time() - begin) / seeds


def table(results: dict[str, tuple[dict[str, list[float]], float]], seeds: int) -> str:
    lines = ["# Techniques: each with and without", ""]
    lines += [
        *machine.description(),
        f"Median (smallest to largest) of {seeds} seeds (or as many as the row says); CPU seconds a seed for all variants of a row.",
        "",
    ]
    lines += ["| technique | what is measured | variant: error | CPU s |", "|---|---|---|---|"]
    for name, (errors, seconds) in results.items():
        title, what = ROWS[name]
        count = len(next(iter(errors.values())))
        note = "" if count == seeds else f" ({count} seeds)"
        cells = [f"{v}: **{statistics.median(e):.2g}** ({min(e):.2g} to {max(e):.2g})" for v, e in errors.items()]
        lines.append(f"| {title} | {what} | {'<br>'.join(cells)} | {seconds:.1f}{note} |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, tuple[dict[str, list[float]], float]], path: Path) -> None:
    """One panel a technique: a dot a seed, a bar at the median."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 2
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(10.5, 1.9 * rows), squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    for axis, (name, (errors, _)) in zip(axes.flat, results.items(), strict=False):
        for k, values in enumerate(errors.values()):
            axis.plot(values, [k] * len(values), "o", color="#7a8aa0", markersize=4, alpha=0.7)
            axis.plot(statistics.median(values), k, "|", color="#b4232a", markersize=16, markeredgewidth=2.5)
        axis.set_yticks(range(len(errors)), list(errors), fontsize=9)
        axis.set_ylim(len(errors) - 0.5, -0.5)
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(plt.NullFormatter())
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title(f"{ROWS[name][0]}\n{ROWS[name][1]}", fontsize=9, loc="left")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--only", nargs="*", choices=[*ROWS], help="these rows alone, printed and not written")
    call = p.parse_args()
    results = {}
    for name in call.only or ROWS:
        results[name] = measured(getattr(technique_cases, name), call.seeds)
        print(name, {v: f"{statistics.median(e):.2g}" for v, e in results[name][0].items()}, f"{results[name][1]:.1f} CPU s", flush=True)
    text = table(results, call.seeds)
    if call.only:
        print(text)
        return
    here = Path(__file__).parent
    (here / "results" / "techniques.md").write_text(text, encoding="utf-8")
    picture(results, here.parent / "docs" / "pictures" / "techniques.png")


if __name__ == "__main__":
    main()
