"""Speed and errors of every method on the digital brain, with noise and without."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM
from pinn_engine.asl.phantom.make import Phantom

from . import methods, peers, table
from .scoring import Errors, Estimate, errors, score
from .table import Row, verdict

TWELVE = tuple(np.arange(1, 13) * 0.25)  # s
SPEED_BARS = {"nlls": 60_000, "pinn, features": 10_000, "pinn, mlp": 1_000}  # voxels/s on one thread
EQUAL = 0.01  # relative: errors closer than this count as equal
NOISE_FREE = (0.01, 0.005)  # median relative CBF error, median ATT error in s
BRAINS = {True: ((24, 28, 20), 6.0), False: ((40, 48, 32), 3.5)}  # by `quick`: shape, voxel size in mm; 6,000 or 31,000 voxels


@dataclass(frozen=True)
class Options:
    quick: bool = False
    install: bool = False  # peers may be installed
    seed: int = 101  # of phantoms that the engine was not designed on

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 3

    def phantom(self, **settings) -> Phantom:
        shape, spacing = BRAINS[self.quick]
        return asl.phantom(shape, spacing, self.seed, **settings)


def speed(o: Options) -> list[Row]:
    """Voxels per second at 6 and 12 delays, with and without a T1 map; `asl.fit` alone, best of 3 after a warm-up."""
    rows = [table.heading("Speed, one thread")]
    methods.warm_up()
    for delays in (6, 12):
        p = o.phantom(plds=TWELVE if delays == 12 else None)
        small = asl.phantom((24, 28, 20), 6.0, o.seed, plds=TWELVE if delays == 12 else None)
        for name, bar in SPEED_BARS.items():
            for with_map in (False, True):
                scan = (small if name == "pinn, mlp" else p).scan(t1_map=with_map)
                e = methods.ours(name, scan, o.repeats)
                rows.append(
                    {
                        table.WHAT: f"{name}: {delays} delays, {'T1 map' if with_map else 'one T1'}",
                        table.SPEED: table.count(e.speed or 0),
                        table.OTHER: f"{e.voxels:,} voxels x {len(scan.acquisition.pld)} differences in {e.seconds:.2f} s",
                        table.BAR: f">= {bar:,}",
                        table.HELD: verdict((e.speed or 0) >= bar),
                    }
                )
    return rows


def accuracy(o: Options, snr: float) -> list[Row]:
    """All voxels of the brain at one noise level."""
    p = o.phantom(snr=snr)
    rows = [table.heading(f"Errors at SNR {snr:g} (mean GM M0 / noise sd of one image), 6 delays x 4 repeats, {p.mask.sum():,} voxels")]
    rows.append(score(p, methods.constant(p)))
    for with_map in (False, True):
        scan, suffix = p.scan(t1_map=with_map), ", T1 map" if with_map else ", one T1"
        for name in methods.METHODS:
            rows.append(score(p, methods.ours(name, scan, label=name + suffix)))
        for fwhm in (4.0, 6.0):
            rows.append(score(p, methods.smoothed(scan, fwhm, suffix)))
    return rows


def beside_peers(o: Options, snr: float) -> list[Row]:
    """A sample of voxels, the same for everyone, since some peers are slow; errors must be no worse than any peer's."""
    p = o.phantom(snr=snr)
    where = sample(p, 300 if o.quick else 2000, o.seed)
    rows = [table.heading(f"Beside the peers: the same {int(where.sum()):,} voxels at SNR {snr:g}")]
    best = methods.ours("pinn, features", p.scan(t1_map=True), o.repeats, "pinn, features, T1 map")
    plain = methods.ours("nlls", p.scan(t1_map=True), o.repeats, "nlls, T1 map")
    without = methods.ours("pinn, features", p.scan(), o.repeats, "pinn, features, one T1")
    rows += [score(p, e, where, lesions=False) for e in (best, without, plain)]
    for e in others(o, p, where):
        if isinstance(e, str):
            rows.append({table.WHAT: e.split(":")[0], table.OTHER: e.split(":", 1)[1].strip()})
            continue
        row = score(p, e, where, lesions=False)
        ok, words = no_worse(p, best if "true model" in e.name else without, e, where)
        row[table.BAR] = "features' GM errors no worse, nlls faster"
        row[table.HELD] = f"{verdict(ok and (plain.speed or 0) > (e.speed or 0))} ({words})"
        rows.append(row)
    return rows


def no_worse(p: Phantom, own: Estimate, peer: Estimate, where: np.ndarray) -> tuple[bool, str]:
    """Whether our GM errors are at most the peer's where both have a value, and in which figure they are not."""
    where = where & (p.tissue == GM) & np.isfinite(peer.cbf)

    def figures(e: Estimate) -> dict[str, float]:
        cbf, att = errors(e.cbf, p.cbf, None, where), errors(e.att, p.att, None, where)
        return {"CBF median": cbf.median, "CBF RMSE": cbf.rmse, "ATT median": att.median}

    mine, theirs = figures(own), figures(peer)
    worse = [name for name in mine if mine[name] > theirs[name] * (1 + EQUAL)]
    ratio = (mine["CBF median"] / theirs["CBF median"] - 1) * 100
    return not worse, f"CBF median {ratio:+.0f} %" + (f"; worse in {', '.join(worse)}" if worse else "")


def noise_free(o: Options) -> list[Row]:
    """Grey matter without noise: what the method itself gets wrong."""
    shape, spacing = (24, 28, 20), 6.0
    p = asl.phantom(shape, spacing, o.seed, snr=None)
    where = sample(p, 300, o.seed)
    rows = [table.heading("Noise-free grey matter")]
    found: list[Estimate | str] = []
    for with_map in (False, True):
        suffix = ", T1 map" if with_map else ", one T1"
        found += [methods.ours(name, p.scan(t1_map=with_map), label=name + suffix) for name in methods.METHODS]
    found += others(o, p, where)
    for e in found:
        if isinstance(e, str):
            rows.append({table.WHAT: e.split(":")[0], table.OTHER: e.split(":", 1)[1].strip()})
            continue
        grey = p.tissue == GM
        cbf, att = errors(e.cbf, p.cbf, e.cbf_sd, grey), errors(e.att, p.att, e.att_sd, grey)
        row = {table.WHAT: e.name, table.OTHER: _noise_free_words(cbf, att)}
        if e.name.split(", one T1")[0].split(", T1 map")[0] in methods.METHODS:
            row[table.BAR] = "<= 1 %, <= 5 ms"
            row[table.HELD] = verdict(cbf.relative <= NOISE_FREE[0] and att.median <= NOISE_FREE[1])
        rows.append(row)
    return rows


def _noise_free_words(cbf: Errors, att: Errors) -> str:
    return f"median relative CBF error {cbf.relative * 100:.2f} %, median ATT error {att.median * 1000:.1f} ms, CBF bias {cbf.bias:+.2f}"


def sample(p: Phantom, number: int, seed: int) -> np.ndarray:
    """(X, Y, Z) bool: some perfused voxels, drawn at random."""
    perfused = np.flatnonzero(p.cbf > 0)
    where = np.zeros(p.mask.shape, bool)
    where.flat[np.random.default_rng(seed).choice(perfused, min(number, len(perfused)), replace=False)] = True
    return where


def others(o: Options, p: Phantom, where: np.ndarray) -> list[Estimate | str]:
    """SciPy and the peers on the voxels `where`; a sentence for one that cannot be run. osipy is fast: it fits all perfused voxels."""
    found: list[Estimate | str] = [methods.scipy_curve_fit(p, where, bounded) for bounded in (False, True)]
    for peer, voxels in ((peers.ASLTK, where), (peers.OSIPY, p.cbf > 0)):
        try:
            found.append(_peer(peer, p, voxels, o.install))
        except peers.CannotRun as reason:
            found.append(f"{peer.name}: not run, {reason}; {peer.quoted}")
    return found


def _peer(peer: peers.Peer, p: Phantom, where: np.ndarray, install: bool) -> Estimate:
    data = methods.for_peers(p, where)
    made = peers.run(peer, data, install)
    failed = int((~np.isfinite(made["cbf"])).sum())
    if failed == len(data["signal"]):
        raise peers.CannotRun("it fitted no voxel")
    images = [methods.image(p, where, made[name]) for name in ("cbf", "att")]
    e = Estimate(f"{peer.name}, inputs corrected", *images, seconds=float(made["seconds"]), voxels=len(data["signal"]))
    return replace(e, note=f"{failed} of {len(data['signal'])} voxels failed" if failed else "")
