"""This package and what its users would take instead, on the same data, in one go: `python -m benchmarks.compare`.

`python -m benchmarks.compare [--only asl,cardiac] [--quick] [--environments DIR] [--readme README.md] [--seed N]`

Every method runs in a process of its own on one thread, peers in Python environments of their own, which are made where they are missing
(with pip and git). What could not be run is named with the reason. One page comes out: results/compare.md (compare-quick.md, -part.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import compare_heart, compare_perfusion
from .machine import description, one_thread
from .side_by_side import Section

RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- figures of benchmarks/results/compare.md -->", "<!-- end of figures -->"
PARTS: dict[str, tuple[Callable[[bool, int], Section | list[Section]], ...]] = {
    "asl": (
        lambda quick, seed: compare_perfusion.brain(quick, 101 + seed, 250.0),
        lambda quick, seed: [] if quick else compare_perfusion.brain(quick, 101 + seed, 100.0, short=False),
        lambda quick, seed: compare_perfusion.tutorial(quick, 101 + seed),
    ),
    "cardiac": (compare_heart.numbers, compare_heart.maps, compare_heart.simulation),
}
NOT_RUN = {
    "SUPINN": "its data are private MATLAB files and its code stops after the first voxel; measured before: 104–154 CPU s a voxel",
    "oxford_asl / BASIL": "needs FSL, whose licence is not commercial; vaby is its authors' own rewriting of the same method",
    "ASLPrep, ExploreASL": "pipelines of many programs (30 GB; MATLAB); ASLPrep's multi-delay fit, measured before: CBF −35 %, no noise",
    "openCARP": "academic licence, not packaged",
    "FiberNet, EP-PINNs": "no licence that allows it (AGPL, none)",
}
LEGEND = (
    "Phantoms with seeds that were not looked at while the methods were made; true mask, M0, alpha, lambda and T1 of blood given to "
    "everybody, one T1 of tissue (grey matter's) unless said. Errors: |estimate − truth| over the same voxels for all methods. Times: CPU "
    "seconds of one thread for the work itself on data in memory, imports and files not counted (Python's own start is in the memory); "
    "'times ours' is that time over the time of the row in which it is 1. Peak memory is of the method's whole process. How the peers' "
    "inputs were corrected, without which they would look worse than they are, stands at the head of benchmarks/peers/run_*.py."
)


def main(arguments: list[str] | None = None) -> int:
    call = _call(arguments)
    if call.environments:
        os.environ["PEER_CACHE"] = str(Path(call.environments).resolve())
    one_thread()
    told, begin = description(), time.perf_counter()
    sections: list[Section] = []
    for part in call.only:
        for make in PARTS[part]:
            made = make(call.quick, call.seed)
            made = made if isinstance(made, list) else [made]
            sections += made
            for section in made:
                print(f"{time.perf_counter() - begin:.0f} s: {section.title}", file=sys.stderr)
    text = report(sections, told)
    name = "compare-quick.md" if call.quick else "compare-part.md" if len(call.only) < len(PARTS) else "compare.md"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text, encoding="utf-8")
    if call.readme:
        page = Path(call.readme)
        page.write_text(with_figures(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(text)
    return 0


def report(sections: list[Section], told: list[str]) -> str:
    """The page: the README's rows first, then every method, then what was not run."""
    lines = ["# Side by side", "", "`python -m benchmarks.compare`", "", *(f"{line}\n" for line in told), LEGEND, "", BEGIN]
    for rows in filter(None, (section.headlines() for section in sections)):
        lines += ["", *rows]
    lines += ["", END]
    for section in sections:
        lines += ["", f"## {section.title}", "", *section.table()]
    lines += ["", "## Not run", "", *(f"- {name}: {why}." for name, why in NOT_RUN.items())]
    return "\n".join(lines) + "\n"


def figures(text: str) -> str | None:
    """What stands between the marks of a page, or None where it has none."""
    if BEGIN not in text or END not in text:
        return None
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def with_figures(page: str, text: str) -> str:
    """`page` with the figures of `text` between its marks; ValueError where it has none."""
    shown, measured = figures(page), figures(text)
    if shown is None or measured is None:
        raise ValueError(f"no place for the figures: the page needs the lines {BEGIN} and {END}")
    before, after = page.split(BEGIN, 1)[0], page.split(END, 1)[1]
    return f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}"


def _call(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), metavar="LIST", help=f"of {', '.join(PARTS)} (results/compare-part.md)")
    parser.add_argument("--quick", action="store_true", help="small phantoms, fewer rows (results/compare-quick.md)")
    parser.add_argument("--environments", metavar="DIR", help="where the peers' environments are (default: $PEER_CACHE, else temporary)")
    parser.add_argument("--readme", metavar="FILE", help="put the figures between the marks of this page as well")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms")
    call = parser.parse_args(arguments)
    call.only = call.only.split(",")
    if unknown := [part for part in call.only if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return call


if __name__ == "__main__":
    sys.exit(main())
