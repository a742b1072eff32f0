"""The fits on a GPU, where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from pinn_engine import asl

from . import table
from .accuracy import TWELVE, Options
from .methods import METHODS
from .table import Row, verdict

TOGETHER = "all voxels together"
FITS = METHODS | {TOGETHER: {"spatial": True}}
BARS = {"pinn, features": 2.0, "pinn, mlp": 20.0, TOGETHER: 45.0}  # s; together as for half as many on two cores
HEAD = ((62, 76, 52), 2.38)  # about 100,000 voxels


def gpu(o: Options) -> list[Row]:
    rows = [table.heading("GPU, 100,000 voxels x 12 delays")]
    if not torch.cuda.is_available():
        return [*rows, *({table.WHAT: name, table.OTHER: "no GPU at hand", table.BAR: f"<= {bar:g} s"} for name, bar in BARS.items())]
    shape, spacing = HEAD
    scan = asl.phantom(shape, spacing, o.seed, plds=TWELVE, repeats=1).scan()
    small = asl.phantom((12, 14, 8), seed=100, plds=TWELVE).scan()
    for name, bar in BARS.items():
        asl.fit(small, device="cuda", **FITS[name])

        def work(name=name):
            asl.fit(scan, device="cuda", **FITS[name])
            torch.cuda.synchronize()

        seconds = min(_wall(work) for _ in range(3))
        voxels = int(scan.mask.sum())
        other = f"{voxels:,} voxels in {seconds:.2f} s, peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of GPU memory"
        row = {table.WHAT: name, table.SPEED: table.count(voxels / seconds), table.OTHER: other, table.BAR: f"<= {bar:g} s"}
        rows.append(row | {table.HELD: verdict(seconds * 100_000 / voxels <= bar)})
    return rows


def _wall(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
