"""The tutorial's set-up, trained voxel by voxel in DeepXDE, beside our fits of the same data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pinn_engine import asl
from pinn_engine.asl import Acquisition, PerfusionFit, Scan
from pinn_engine.asl.acquisition import Sourced
from pinn_engine.asl.phantom.make import head_grid

from . import methods, peers, table
from .accuracy import Options
from .machine import best_of
from .table import Row, verdict

TIMES = np.linspace(0, 3.6, 12)  # s; the first is the initial condition
TAU, T1B, M0 = 0.6, 2.0, 1000.0
FASTER = 10_000


@dataclass(frozen=True)
class Voxels:
    """V voxels of the simplified model: truth and noisy signals (V, 12) in mL/100 g/s times s."""

    cbf: np.ndarray  # mL/100 g/min
    att: np.ndarray  # s
    signal: np.ndarray


def draw(count: int, sd: float, seed: int) -> Voxels:
    """CBF 30-60 mL/100 g/min, arrival 0.15-1.2 s, white noise of `sd` on peaks of about 0.2."""
    rng = np.random.default_rng(seed)
    cbf, att = rng.uniform(0.5, 1.0, count), rng.uniform(0.15, 1.2, count)
    clean = cbf[:, None] * np.clip(TIMES - att[:, None], 0, TAU) * np.exp(-TIMES / T1B)
    return Voxels(60 * cbf, att, clean + sd * rng.standard_normal(clean.shape))


def as_scan(v: Voxels) -> Scan:
    """The same data as a pulsed scan with M0, without the point at t = 0, where our networks are 0 by construction."""
    known = {"alpha": Sourced(1.0, "benchmark"), "t1_blood": Sourced(T1B, "benchmark", "s")}
    known |= {"t1_tissue": Sourced(1.33, "benchmark", "s"), "partition": Sourced(0.9, "benchmark", "mL/g")}
    times = TIMES[1:]
    acquisition = Acquisition("PASL", times, np.full(len(times), TAU), np.zeros(1), 2, **known, origins=dict(known))
    shape = (len(v.cbf), 1, 1)
    difference = (v.signal[:, 1:] * 60 * 2 * M0 / 6000).astype(np.float32).reshape(*shape, -1)
    full = np.ones(shape, bool)
    return Scan(difference, acquisition, full, head_grid(shape, 3.0), "sub-01", "benchmark", m0=np.full(shape, M0, np.float32))


@dataclass(frozen=True)
class Case:
    """Noise sd, whether T1 of blood is fitted too, and how many voxels DeepXDE trains: it takes a quarter of a minute and more for each."""

    sd: float
    t1b_free: bool
    few: int
    many: int = 4000

    @property
    def words(self) -> str:
        return f"noise sd {self.sd:g}, T1b {'free' if self.t1b_free else 'known'}"


def tutorial(o: Options) -> list[Row]:
    """DeepXDE trains the first voxels one after another; ours fit them and many more of the same kind in one batch."""
    rows = [table.heading("The tutorial's set-up (simplified model, 12 times, peaks of about 0.2): its errors and ours on the same voxels")]
    for case in [Case(0.0, True, 1, 500)] if o.quick else [Case(0.0, True, 1), Case(0.02, True, 6), Case(0.02, False, 6)]:
        v = draw(case.many, case.sd, o.seed)
        theirs, row = _deepxde(o, v, case)
        rows.append(row)
        rows += [_ours(o, name, v, case, theirs) for name in methods.METHODS]
    return rows


@dataclass(frozen=True)
class Theirs:
    seconds: float  # a voxel
    error: float  # median CBF error, mL/100 g/min


def _deepxde(o: Options, v: Voxels, case: Case) -> tuple[Theirs | None, Row]:
    what = f"DeepXDE, 10,000 Adam steps a voxel, {case.words}"
    data = {"times": TIMES, "signal": v.signal[: case.few], "tau": np.array(TAU), "t1b": np.array(0.0 if case.t1b_free else T1B)}
    try:
        made = peers.run(peers.DEEPXDE, data, o.install)
    except peers.CannotRun as reason:
        return None, {table.WHAT: what, table.OTHER: f"not run, {reason}; {peers.DEEPXDE.quoted}"}
    seconds = float(np.mean(made["seconds"]))
    words = f"{_errors(v, made['cbf'], made['att'], case.few)}; {seconds:.1f} s a voxel"
    return Theirs(seconds, _error(v, made["cbf"], case.few)), {table.WHAT: what, table.SPEED: f"{1 / seconds:.3f}", table.OTHER: words}


def _ours(o: Options, name: str, v: Voxels, case: Case, theirs: Theirs | None) -> Row:
    unknown = ("cbf", "att", "t1b") if case.t1b_free else ("cbf", "att")

    def fit(scan: Scan) -> PerfusionFit:
        return asl.fit(scan, model="simplified", unknown=unknown, device="cpu", **methods.METHODS[name])

    scan, one = as_scan(v), as_scan(replace(v, cbf=v.cbf[:1], att=v.att[:1], signal=v.signal[:1]))
    took, found = best_of(o.repeats, lambda: fit(scan))
    alone, _ = best_of(o.repeats, lambda: fit(one))
    cbf, att, each = found.maps["cbf"].value.ravel(), found.maps["att"].value.ravel(), took / len(v.cbf)
    words = f"{_errors(v, cbf, att, case.few)}; all {len(v.cbf):,}: {_errors(v, cbf, att)}; a scan of one voxel {alone:.2f} s"
    row = {table.WHAT: f"{name}, {case.words}", table.SPEED: table.count(1 / each), table.OTHER: words}
    if theirs:
        ratio, better = theirs.seconds / each, _error(v, cbf, case.few) < theirs.error
        row[table.BAR] = f">= {FASTER:,} x faster a voxel, lower error"
        row[table.HELD] = f"{verdict(ratio >= FASTER and better)} ({table.count(ratio)} x; one voxel alone {theirs.seconds / alone:,.0f} x)"
    return row


def _error(v: Voxels, cbf: np.ndarray, few: int | None = None) -> float:
    return float(np.median(np.abs(cbf[:few] - v.cbf[:few])))


def _errors(v: Voxels, cbf: np.ndarray, att: np.ndarray, few: int | None = None) -> str:
    relative = np.median(np.abs(cbf[:few] / v.cbf[:few] - 1)) * 100
    count = "" if few is None else f"{few} voxel{'s' if few > 1 else ''}: "
    return f"{count}median CBF error {relative:.2f} %, ATT {np.median(np.abs(att[:few] - v.att[:few])) * 1000:.0f} ms"
