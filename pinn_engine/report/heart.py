"""The report of one heart fit: a single HTML file, map views drawn off-screen, the data against the fit, parameters with errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from ..cardiac.result import HeartFit, NodeMap, NodeStatus, Parameter
from . import html, pictures, svg
from .heart_pictures import map_picture, picture, sides_caption, snapshots, status_picture, traces
from .html import Markup

MAX_POINTS = 1500


def write_report(fit: HeartFit) -> str:
    """The report's HTML."""
    body: list[str] = [
        _head(fit),
        _cards(fit),
        _notes(fit),
        _maps(fit),
        _scatter(fit),
        snapshots(fit),
        traces(fit),
        _parameters(fit),
        _status(fit),
        _settings(fit),
    ]
    body.append("<footer>Made by pinn_engine. For research use only: not a medical device, not for diagnosis or treatment.</footer>")
    return html.page(f"Heart report: {fit.data.prefix}", [Markup(part.replace("mm^2", "mm²")) for part in body])


def _head(fit: HeartFit) -> Markup:
    mesh = fit.data.whole
    kind = "movie" if fit.data.grid is not None else ("surface" if mesh.is_surface else "volume mesh")
    what = "activation times" if fit.observed is not None else "samples of V"
    lead = f"{fit.data.source}: {kind}, {len(mesh.points):,} nodes, {fit.settings.get('observations', 0):,} {what}."
    kicker = html.paragraph("Cardiac electrophysiology", "kicker")
    return Markup(f"<header>\n{kicker}\n<h1>{html.safe(fit.data.prefix)}</h1>\n{html.paragraph(lead, 'lead')}\n</header>")


def _cards(fit: HeartFit) -> Markup:
    good = fit.usable
    cards = []
    for key in ("CV", "D"):
        if key in fit.maps and good.any():
            one = fit.maps[key]
            low, middle, high = np.percentile(one.value[good], [5, 50, 95])
            about = f"± {svg.figure(float(one.std[good][0]))}" if low == high else f"5–95 %: {svg.figure(low)} to {svg.figure(high)}"
            cards.append(_card(one.kind.title, svg.figure(middle), one.unit, about))
    for name, p in fit.parameters.items():
        if p.std > 0 and name not in fit.maps:
            cards.append(_card(name, svg.figure(p.value), p.unit if p.unit != "1" else "", f"± {svg.figure(p.std)}"))
    if fit.residual is not None:
        rms = float(np.sqrt(np.median(fit.residual**2)) * 1.4826)
        cards.append(_card("Misfit of the data", svg.figure(rms), "noise sd", "1 = as the noise predicts"))
    return html.division("cards", *cards)


def _card(name: str, value: str, unit: str, more: str) -> Markup:
    inner = f'<div class="name">{html.safe(name)}</div><div class="value">{value} <span class="unit">{html.safe(unit)}</span></div>'
    return Markup(f'<div class="card">{inner}<div class="more">{html.safe(more)}</div></div>')


def _notes(fit: HeartFit) -> Markup:
    notes = [*fit.notes, *fit.data.notes]
    return html.division("notes", Markup("<h2>Please note</h2>"), *(html.paragraph(sentence(n)) for n in notes)) if notes else Markup("")


def sentence(words: str) -> str:
    """With a capital and a full stop.

    >>> sentence("1 hole: no flux crosses it"), sentence("is it so?"), sentence("the end")
    ('1 hole: no flux crosses it.', 'Is it so?', 'The end.')
    """
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "!")) else ".")


def _maps(fit: HeartFit) -> Markup:
    figures, constants = [], []
    for one in fit.maps.values():
        on = fit.status > 0
        if on.any() and np.ptp(one.value[on]) == 0:
            words = f"{one.kind.title}: {svg.figure(float(one.value[on][0]))} ± {svg.figure(float(one.std[on][0]))} {one.unit}"
            constants.append(html.paragraph(f"{words}, one number for all the tissue{_of(fit, one)}."))
            continue
        inside = on & (fit.status != (NodeStatus.COLLISION if one.kind.key == "CV" else -1))
        window = pictures.percentile_window(one.value[inside if inside.any() else on])
        figures.append(
            html.figure(one.kind.title, one.unit, "", map_picture(fit, one.value, window, one.kind.colormap, one.unit, one.kind.title))
        )
        # of status 1: where a wave starts, that of CV is as wide as hearts are
        spread, title = pictures.percentile_window(one.std[fit.usable], from_zero=True), f"Standard deviation of {one.kind.key}"
        figures.append(html.figure(title, one.unit, "", map_picture(fit, one.std, spread, "bone", one.unit, title)))
    if len(np.unique(fit.status[fit.status > 0])) > 1:
        figures.append(html.figure("Status", "", "What the numbers mean stands in the table below.", status_picture(fit)))
    sides = sides_caption(fit) if figures else ""
    return html.section(
        "Maps", *constants, *([html.paragraph(sides, "small")] if sides else []), *([html.division("pair", *figures)] if figures else [])
    )


def _of(fit: HeartFit, one: NodeMap) -> str:
    return f": that of {fit.settings['CV_of']}" if one.kind.key == "CV" and "CV_of" in fit.settings else ""


def _scatter(fit: HeartFit) -> Markup:
    """Activation times: fitted against observed."""
    if fit.observed is None or fit.predicted is None:
        return Markup("")
    step = -(-len(fit.observed) // MAX_POINTS)
    x, y = fit.observed[::step], fit.predicted[::step]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    unit = fit.data.unit.time
    frame = svg.axes((low, high), (low, high), (540, 320), (f"observed, {unit}", f"fitted, {unit}"))
    dots = "".join(
        f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="2" fill="{svg.ACCENT}" opacity="0.5"/>' for a, b in zip(x, y, strict=True)
    )
    line = svg.line(frame.x(low), frame.y(low), frame.x(high), frame.y(high), stroke=svg.INK)
    off = np.abs(fit.predicted - fit.observed)
    words = (
        f"Median difference {svg.figure(float(np.median(off)))} {unit}, 95th percentile {svg.figure(float(np.percentile(off, 95)))} {unit}."
    )
    chart = svg.picture(540, 320, frame.svg + line + dots, "Activation times, fitted against observed")
    return html.section("Activation times", html.division("pair", html.figure("Fitted against observed", unit, words, chart, dark=False)))


def _parameters(fit: HeartFit) -> Markup:
    maps = any(p.spread for p in fit.parameters.values())
    rows = [_parameter_row(name, p, maps) for name, p in fit.parameters.items()]
    head = ("Parameter", "Value", "Std", *(("16–84 % of the tissue",) if maps else ()), "Unit", "How")
    table = html.table(head, rows, "lrr" + ("r" if maps else "") + "ll")
    pairs = [f"{i}–{j}: {r:+.2f}" for i, row in fit.correlation.items() for j, r in row.items() if i < j]
    words = [html.paragraph(fit.identifiability)]
    if maps:
        words.insert(0, html.paragraph("Of a map: the median and how sure the median is. How D varies within the tissue is the range."))
    if pairs:
        words.append(html.paragraph("Correlations, as the data alone tell them: " + "; ".join(pairs), "small"))
    return html.section("Parameters", table, *words)


def _parameter_row(name: str, p: Parameter, maps: bool) -> tuple[str, ...]:
    spread = "" if p.spread is None else f"{svg.figure(p.spread[0])} to {svg.figure(p.spread[1])}"
    std = svg.figure(p.std) if p.std else "–"
    if p.spread is not None:
        name, std = f"{name}, median", f"{std} (of the median)"
    return (name, svg.figure(p.value), std, *((spread,) if maps else ()), p.unit, p.status)


def _status(fit: HeartFit) -> Markup:
    total = max(1, len(fit.status))
    count = {s: int((fit.status == s).sum()) for s in NodeStatus}
    rows = [(str(int(s)), s.name.lower(), s.sentence, f"{count[s]:,}", svg.percent(count[s] / total)) for s in NodeStatus]
    return html.section("Status of the nodes", html.table(("Status", "Name", "Meaning", "Nodes", "Share"), rows, "lllrr"))


def _settings(fit: HeartFit) -> Markup:
    rows = []
    for key, value in fit.settings.items():
        name = key.replace("_", " ")
        rows.append((name[:1].upper() + name[1:], SPOKEN.get(key, said)(value)))
    return html.section("Settings", html.table((), rows, "ll"))


def _tried(value: dict[str, Any]) -> str:
    """Something that the held-out data were asked about.

    >>> _tried({"taken": False, "score": None}), _tried({"taken": True, "score": 1.02, "reach_mm": 3.1})
    ('no, not tried', 'yes (held-out error 1.02), reach 3.1 mm')
    """
    words = "yes" if value["taken"] else "no"
    words += ", not tried" if value["score"] is None else f" (held-out error {said(value['score'])})"
    return words + (f", reach {said(value['reach_mm'])} mm" if value.get("reach_mm") is not None else "")


def _solver(value: dict[str, Any]) -> str:
    """
    >>> _solver({"status": "The fit converged.", "steps": 4})
    'The fit converged, 4 steps.'
    """
    return f"{str(value['status']).rstrip('.')}, {value['steps']} steps."


def _fibres(ratio: float | None) -> str:
    return "no fibres: D is the same in all directions" if ratio is None else f"{said(ratio)} (fibres of the mesh)"


SPOKEN: dict[str, Callable[[Any], str]] = {
    "steep_places_spared": _tried,
    "smooth_background": _tried,
    "solver": _solver,
    "start": _solver,
    "D_across_over_along": _fibres,
    "prior_scores": lambda scores: ", ".join(f"{said(error)} at {strength}" for strength, error in scores.items()) or "not tried",
}


def said(value: object) -> str:
    """A setting as one reads it: quantities with their unit, lists with commas, tables by name.

    >>> said({"value": 2.0, "unit": "ms", "origin": "given"}), said([0.0, 2.5]), said({"a": 0.01, "k": 8}), said(None), said([])
    ('2 ms (given)', '0, 2.5', 'a 0.01, k 8', 'none', 'none')
    """
    if isinstance(value, dict):
        if "value" in value:
            unit = "" if value.get("unit") in (None, "1") else f" {value['unit']}"
            return said(value["value"]) + unit + (f" ({value['origin']})" if "origin" in value else "")
        return ", ".join(f"{str(key).replace('_', ' ')} {said(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ("; " if any(isinstance(one, dict) for one in value) else ", ").join(said(one) for one in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def overview(fit: HeartFit) -> bytes:
    """A PNG of the first map, for quick looks."""
    from matplotlib.image import imsave

    one = next(iter(fit.maps.values()))
    window = pictures.percentile_window(one.value[fit.status > 0])
    stream = io.BytesIO()
    imsave(stream, picture(fit, one.value, window, one.kind.colormap), format="png")
    return stream.getvalue()
