"""Where the data depart from the closed form, and what the equation does in the fit."""

from __future__ import annotations

import numpy as np

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM
from pinn_engine.asl.phantom.make import Phantom

from . import methods, table
from .accuracy import EQUAL, Options
from .scoring import Errors, Estimate, errors
from .table import Row, verdict

SNRS = (100.0, 175.0, 250.0, 500.0, 1000.0)
DISPERSION = 0.3  # s, sd of a gamma kernel
MOST_LOST = 5.0  # % of the median error that the network may lose where the closed form is right
AWAY = 10.0  # model error, in typical signals, at which the equation says nothing


def dispersed_bolus(o: Options) -> list[Row]:
    """The network against the closed form on a dispersed bolus and on the right model, both with the same T1 information."""
    rows = [table.heading(f"Dispersed bolus ({DISPERSION:g} s gamma) and the right model, grey matter; -: better than nlls")]
    for dispersion in (DISPERSION, 0.0):
        for snr in SNRS[1::2] if o.quick else SNRS:
            p = asl.phantom((24, 28, 20) if o.quick else (32, 38, 26), 6.0 if o.quick else 4.5, o.seed, snr=snr, dispersion=dispersion)
            for with_map in (True, False):
                rows += _against_closed_form(p, snr, dispersion, with_map)
    return rows


def _against_closed_form(p: Phantom, snr: float, dispersion: float, with_map: bool) -> list[Row]:
    scan = p.scan(t1_map=with_map)
    plain = _grey(p, methods.ours("nlls", scan))
    rows = []
    for name in ("pinn, features", "pinn, mlp") if with_map else ("pinn, features",):
        e = methods.ours(name, scan)
        own = _grey(p, e)
        change = (own.median / plain.median - 1) * 100
        what = f"{'dispersed' if dispersion else 'right model'}, SNR {snr:g}, {'T1 map' if with_map else 'one T1'}: {name}"
        words = f"median CBF error {own.median:.2f}, nlls {plain.median:.2f} ({change:+.1f} %)"
        words += f"; covers {own.covers:.3f}, nlls {plain.covers:.3f}; {e.note}"
        held = _won(own, plain, change) if dispersion else change <= MOST_LOST
        bar = "beats nlls in error or, at equal error, in coverage" if dispersion else f"loses <= {MOST_LOST:g} %"
        rows.append({table.WHAT: what, table.OTHER: words, table.BAR: bar, table.HELD: verdict(held)})
    return rows


def _won(own: Errors, plain: Errors, change: float) -> bool:
    assert own.covers is not None
    assert plain.covers is not None
    return change < -100 * EQUAL or (change <= 100 * EQUAL and abs(own.covers - 0.95) < abs(plain.covers - 0.95))


def _grey(p: Phantom, e: Estimate) -> Errors:
    return errors(e.cbf, p.cbf, e.cbf_sd, p.tissue == GM)


def equation_away(o: Options) -> list[Row]:
    """The same fit with equation rows that allow an error of ten typical signals: the maps must change."""
    p = asl.phantom((24, 28, 20), 6.0, o.seed)
    scan, grey = p.scan(t1_map=True), p.tissue == GM
    rows = [table.heading("Equation rows taken away")]
    for network in ("features", "mlp"):
        kept = asl.fit(scan, network=network, spatial=False, device="cpu").maps
        away = asl.fit(scan, network=network, model_error=AWAY, spatial=False, device="cpu").maps
        changed = {name: float(np.median(np.abs(away[name].value - kept[name].value)[grey])) for name in ("cbf", "att")}
        errors_cbf = [errors(maps["cbf"].value, p.cbf, maps["cbf"].std, grey).median for maps in (kept, away)]
        rows.append(
            {
                table.WHAT: f"pinn, {network}: model error {AWAY:g}",
                table.OTHER: f"GM: CBF moves by a median of {changed['cbf']:.1f}, ATT by {changed['att']:.3f} s; "
                f"median CBF error {errors_cbf[0]:.1f} with, {errors_cbf[1]:.1f} without",
                table.BAR: "the maps change",
                table.HELD: verdict(changed["cbf"] > 1.0),
            }
        )
    return rows
