"""Speed, errors, memory of the perfusion fit beside its peers, as one table.

`python -m benchmarks.asl [--quick] [--peers] [--gpu] [--only SECTION,…] [--seed N]`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import table
from .accuracy import Options, accuracy, beside_peers, noise_free, speed
from .departures import dispersed_bolus, equation_away
from .gpu import gpu
from .machine import description, one_thread
from .memory import memory
from .table import Row
from .tutorial import tutorial

RESULTS = Path(__file__).parent / "results"
SNR, HARD = 250.0, 100.0
SECTIONS: dict[str, Callable[[Options], list[Row]]] = {
    "speed": speed,
    "peers": lambda o: beside_peers(o, SNR) + beside_peers(o, HARD),
    "tutorial": tutorial,
    "memory": lambda o: memory(o.quick, o.seed),
    "noise-free": noise_free,
    "gpu": gpu,
    "dispersed": dispersed_bolus,
    "equation": equation_away,
    "accuracy": lambda o: accuracy(o, SNR) + ([] if o.quick else accuracy(o, HARD)),
}
LEGEND = (
    "Phantom: this package's digital brain with a seed that was not used while the methods were made ({seed}); pCASL, 6 delays x 4 repeats "
    "unless said; true mask, M0, alpha, T1b and lambda given; CBF in mL/100 g/min. 'One T1': grey matter's for all voxels; 'T1 map': the "
    "true one. Median and RMSE are of |error|, bias of error; '95 % covers': share of voxels whose truth lies within 1.96 sd. 'Lesion "
    "contrast kept': shown / true, radius >= 8 mm and <= 5 mm. Speed: the fit of data in memory, CPU time of one thread (on a GPU wall "
    "time); best of 3 after a warm-up in the sections on speed, peers and tutorial, single runs in the others. How the peers' inputs were "
    "corrected is written at the head of benchmarks/peers/run_*.py."
)


def main(arguments: list[str] | None = None) -> int:
    o, names, file = _options(arguments)
    one_thread()
    told = description()
    rows: list[Row] = []
    for name in names:
        start = time.perf_counter()
        rows += SECTIONS[name](o)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    text = "\n\n".join(["# Perfusion fit: benchmark", *told, LEGEND.format(seed=o.seed), table.markdown(rows)]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / file).write_text(text)
    print(text)
    return 0


def _options(arguments: list[str] | None) -> tuple[Options, list[str], str]:
    """Options, sections, and the file for the table: only a full run writes asl.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asl", description="Benchmark of the perfusion fit")
    parser.add_argument("--quick", action="store_true", help="small phantoms, single runs: does it work at all (results/asl-quick.md)")
    parser.add_argument("--peers", action="store_true", help="install the peers into environments of their own where they are missing")
    parser.add_argument("--gpu", action="store_true", help="only the GPU's rows (results/asl-gpu.md)")
    parser.add_argument("--only", metavar="SECTION,…", help=f"of {', '.join(SECTIONS)} (results/asl-part.md)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the phantoms")
    given = parser.parse_args(arguments)
    names = ["gpu"] if given.gpu else given.only.split(",") if given.only else list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    file = "asl-gpu.md" if given.gpu else "asl-part.md" if given.only else "asl-quick.md" if given.quick else "asl.md"
    return Options(given.quick, given.peers, given.seed), names, file


if __name__ == "__main__":
    sys.exit(main())
