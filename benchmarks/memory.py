"""Peak memory of a process that loads a scan and fits it: `python -m benchmarks.memory make|fit ...` is what the parent starts."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import table
from .peers.told import peak
from .table import Row, verdict

MOST = 4.0  # GiB
HEADS = {50_000: ((48, 60, 40), 3.0), 1_000_000: ((124, 152, 98), 1.1)}  # voxels, about: shape, voxel size in mm


def memory(quick: bool, seed: int) -> list[Row]:
    """Fits of two sizes; the scan is made by another process, so that the phantom's own memory does not count."""
    rows = [table.heading("Memory of the whole process (Python, torch, the scan of 24 differences, the fit), one thread")]
    with tempfile.TemporaryDirectory() as folder:
        for voxels, (shape, spacing) in HEADS.items():
            if quick and voxels > 50_000:
                continue
            scan = str(Path(folder, f"{voxels}.pickle"))
            _start("make", scan, *map(str, shape), str(spacing), str(seed))
            for name in ("nlls", "pinn, features", "pinn, mlp")[: 3 if voxels <= 50_000 else 2]:
                told = json.loads(_start("fit", scan, name))
                rows.append(
                    {
                        table.WHAT: f"{name}, {told['voxels']:,} voxels",
                        table.SPEED: table.count(told["voxels"] / told["seconds"]),
                        table.OTHER: f"peak {told['peak']:.2f} GiB, {told['before']:.2f} before the fit; fit {told['seconds']:.1f} s",
                        table.BAR: f"<= {MOST:g} GiB",
                        table.HELD: verdict(told["peak"] <= MOST),
                    }
                )
            Path(scan).unlink()
    return rows


def _start(*words: str) -> str:
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    return subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True).stdout


def make(path: str, x: str, y: str, z: str, spacing: str, seed: str) -> None:
    from pinn_engine import asl

    scan = asl.phantom((int(x), int(y), int(z)), float(spacing), int(seed)).scan()
    with open(path, "wb") as file:
        pickle.dump(scan, file, protocol=5)


def fit(path: str, name: str) -> None:
    from pinn_engine import asl

    from .machine import one_thread
    from .methods import METHODS

    one_thread()
    with open(path, "rb") as file:
        scan = pickle.load(file)
    before, start = peak(), time.process_time()
    asl.fit(scan, device="cpu", **METHODS[name])
    told = {"voxels": int(scan.mask.sum()), "seconds": time.process_time() - start, "before": before, "peak": peak()}
    print(json.dumps(told))


if __name__ == "__main__":
    {"make": make, "fit": fit}[sys.argv[1]](*sys.argv[2:])
