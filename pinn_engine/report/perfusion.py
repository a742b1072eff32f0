"""The report of one perfusion fit: a single HTML file without scripts or outside resources, the same bytes for the same fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..asl.quality import cautions, quality
from ..asl.result import ParameterMap, PerfusionFit
from . import curves, html, pictures, regions
from .html import Markup
from .svg import figure, percent, plus_minus
from .truth import demo_table
from .words import as_text, constant_name, labeling, method, shortened

__all__ = ["demo_table", "write_report"]

STD_COLOURS = "bone"
MISFIT_WINDOW = (0.0, 3.0)


def write_report(fit: PerfusionFit, truth: Mapping[str, np.ndarray] | None = None) -> str:
    """The report's HTML. `truth` (maps of a phantom, see `demo_table`) adds a table of errors."""
    view = pictures.view(fit.scan.mask, fit.scan.grid)
    body = [
        _head(fit),
        _cards(fit),
        _notes(fit),
        _truth(demo_table(fit, truth) if truth else []),
        _maps(fit, view),
        regions.tissue_section(fit),
        regions.region_section(fit),
        _quality(fit, view),
        _curves(fit, view),
        _acquisition(fit),
        _convergence(fit),
        html.section("Method", *(html.paragraph(p) for p in method(fit)), *regions.methods(fit)),
        _settings(fit),
        "<footer>Made by pinn_engine. For research use only: not a medical device, not for diagnosis or treatment.</footer>",
    ]
    return html.page(f"Perfusion report: {fit.scan.prefix}", body)


def _head(fit: PerfusionFit) -> Markup:
    scan = fit.scan
    size, spacing = ("\u00a0×\u00a0".join(f"{x:.3g}" for x in values) for values in (scan.grid.shape, scan.grid.spacing))
    lead = (
        f"{scan.source}. {labeling(fit)}: {_count(len(scan.acquisition.pld), 'difference image')} at {_count(len(fit.pld), 'delay')}, "
        f"{size} voxels of {spacing}\u00a0mm, {scan.mask.sum():,} in the mask."
    )
    kicker = html.paragraph("Perfusion by arterial spin labelling", "kicker")
    return Markup(f"<header>\n{kicker}\n<h1>{html.safe(scan.prefix)}</h1>\n{html.paragraph(lead, 'lead')}\n</header>")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _cards(fit: PerfusionFit) -> Markup:
    """The numbers to see first."""
    usable, mask, figures = fit.usable, fit.scan.mask, quality(fit)
    cards = []
    for name, one in fit.maps.items():
        if name in ("abv", "abat"):
            continue  # few voxels have arteries: a median over the brain says nothing
        short = {"cbf": "CBF" if one.kind.shown_unit else "relative perfusion", "att": "arrival time"}.get(name, one.kind.title)
        if usable.any():
            low, middle, high = (figure(float(x)) for x in np.percentile(one.value[usable], [25, 50, 75]))
            interval = fit.settings.get("t1b_interval_95") if name == "t1b" else None
            if isinstance(interval, list):  # one value for all voxels
                cards.append(_card(short, middle, one.kind.shown_unit, f"95 % interval {figure(interval[0])} to {figure(interval[1])}"))
            elif isinstance(grey := figures.get(f"gm_{name}_mean"), float):  # a median over both tissues is neither's
                more = f"white matter {figure(float(str(figures[f'wm_{name}_mean'])))}"
                cards.append(_card(f"Mean {short}, grey matter", figure(grey), one.kind.shown_unit, more))
            else:
                cards.append(_card(f"Median {short}", middle, one.kind.shown_unit, f"middle half {low} to {high}"))
        else:
            cards.append(_card(f"Median {short}", "none", "", "no voxel could be fitted"))
    converged, inside = int(np.sum(mask & (fit.status == 1))), int(mask.sum())
    cards.append(_card("Converged", percent(converged / max(inside, 1)), "", f"{converged:,} of {inside:,} voxels"))
    notes = len(fit.scan.notes) + len(cautions(fit))
    cards.append(_card("Notes", str(notes), "", "read below" if notes else "nothing to report"))
    return html.division("cards", *cards)


def _card(name: str, value: str, unit: str, more: str) -> Markup:
    number = Markup(f'{html.safe(value)} <span class="unit">{html.safe(unit)}</span>')
    return html.division("card", html.division("name", name), html.division("value", number), html.division("more", more))


def _notes(fit: PerfusionFit) -> Markup:
    sentences = [*cautions(fit), *fit.scan.notes]
    return html.division("notes", Markup("<h2>Notes</h2>"), *(html.paragraph(s) for s in sentences)) if sentences else Markup()


def _truth(rows: Sequence[Mapping[str, object]]) -> Markup:
    if not rows:
        return Markup()
    body = []
    for i, row in enumerate(rows):
        first = i == 0 or row["map"] != rows[i - 1]["map"]
        places = 3 if row["unit"] == "s" else 2
        numbers = (float(str(row[k])) for k in ("median_abs_error", "constant_median_abs_error", "rmse", "constant_rmse", "bias"))
        cells = [f"{x:.{places}f}".replace("-", "−") for x in numbers]
        name = f"{row['title']}, {row['unit']}" if first else ""
        body.append([name, str(row["region"]), f"{row['voxels']:,}", *cells, percent(float(str(row["coverage"])))])
    head = ("", "Where", "Voxels", "Median |error|", "of a constant", "RMSE", "of a constant", "Bias", "In 95 % interval")
    intro = (
        "This scan is simulated, so the right answer is known. Errors are counted over every voxel of the mask, failed ones too. "
        "“A constant” says the true median of that tissue everywhere: what errs as much has not seen where perfusion differs."
    )
    return html.section("Against the truth", html.paragraph(intro, "small"), html.table(head, body, "llrrrrrrr"))


def _maps(fit: PerfusionFit, view: pictures.View) -> Markup:
    sides = "the patient’s right is on the left of each slice" if view.sides_known else "the header does not say which side is left"
    intro = f"Axial slices from below upwards; {sides}. Small numbers are heights in mm. Voxels are shown as they are, without smoothing."
    usable = fit.usable
    return html.section("Maps", html.paragraph(intro, "small"), *(_map_pair(view, one, usable) for one in fit.maps.values()))


def _map_pair(view: pictures.View, one: ParameterMap, usable: np.ndarray) -> Markup:
    """A map and, beside it, its standard deviation."""
    kind = one.kind
    window = kind.window or pictures.percentile_window(one.value[usable], from_zero=True)
    spread = pictures.percentile_window(one.std[usable], high=95, from_zero=True)
    unit = kind.shown_unit or "relative"
    shown = ((kind.title, one.value, window, kind.colormap), (f"Standard deviation of {kind.symbol}", one.std, spread, STD_COLOURS))
    return html.division(
        "pair",
        *(
            html.figure(title, kind.shown_unit, _range(values[usable], w), pictures.mosaic(view, values, usable, w, colours, unit, title))
            for title, values, w, colours in shown
        ),
    )


def _range(values: np.ndarray, window: tuple[float, float]) -> str:
    """What the data span, and what the picture's scale leaves out."""
    if not values.size:
        return "No voxel has a value."
    low, high = (figure(float(x)) for x in np.percentile(values, [5, 95]))
    outside = float(np.mean((values < window[0]) | (values > window[1])))
    return f"90 % of voxels lie between {low} and {high}" + (f"; {percent(outside)} lie beyond the scale." if outside else ".")


def _quality(fit: PerfusionFit, view: pictures.View) -> Markup:
    """Status and misfit, as maps and counted."""
    usable, mask = fit.usable, fit.scan.mask
    counts = np.bincount(fit.status[mask], minlength=256)
    codes = sorted({*np.flatnonzero(counts).tolist(), *(code for code in fit.status_meaning if code != 0)})
    colours = pictures.status_colours(codes)
    rows = []
    for code in codes:
        meaning = fit.status_meaning.get(code, "No meaning was recorded for this value.")
        name = Markup(f'<span class="swatch" style="background:{colours[code]}"></span>{html.safe(meaning)}')
        rows.append([name, str(code), f"{counts[code]:,}", percent(counts[code] / max(counts.sum(), 1))])
    middle = (
        f"Median {figure(float(np.median(fit.misfit[usable])))}; 1 = as the noise predicts." if usable.any() else "No voxel has a value."
    )
    return html.section(
        "How well the fit went",
        html.division(
            "pair",
            html.figure("Status", "", "Colours as in the table.", pictures.label_mosaic(view, fit.status, mask, colours, "Status")),
            html.figure("Misfit", "", middle, pictures.mosaic(view, fit.misfit, usable, MISFIT_WINDOW, "cividis", "× noise", "Misfit")),
        ),
        html.table(("Status", "Value in the map", "Voxels", "Share of mask"), rows, "lrrr", [counts[code] == 0 for code in codes]),
    )


def _curves(fit: PerfusionFit, view: pictures.View) -> Markup:
    picks = curves.pick(fit)
    if not picks:
        return html.section("Fitted curves", html.paragraph("No voxel could be fitted, so there is no curve to show."))
    bars = curves.data_sd(fit, picks[0].voxel) is not None
    intro = "Voxels chosen by rule, not by eye. Straight lines join the fitted values at the measured delays."
    if bars:
        intro += " Error bars are one standard deviation of the mean, from the scatter of the voxel’s repeats."
    late = float(np.max(fit.scan.acquisition.slice_delay, initial=0.0))
    if late > 0:
        intro += f" Times are those of the first slice; the last one is read {late:.2f} s later."
    return html.section(
        "Fitted curves",
        html.paragraph(intro, "small"),
        html.paragraph(curves.key(bars), "small"),
        html.division("picks", *(_pick(fit, view, one) for one in picks)),
    )


def _pick(fit: PerfusionFit, view: pictures.View, one: curves.Pick) -> Markup:
    """One voxel: where it lies, its curve, its numbers."""
    cbf, usable = fit.maps["cbf"], fit.usable
    window = cbf.kind.window or pictures.percentile_window(cbf.value[usable], from_zero=True)
    numbers = [
        f"{m.kind.symbol} {plus_minus(m.value[one.voxel], m.std[one.voxel])} {m.kind.shown_unit}".rstrip() for m in fit.maps.values()
    ]
    numbers.append(f"misfit {figure(fit.misfit[one.voxel])}")
    status = fit.status_meaning.get(int(fit.status[one.voxel]), "")
    where = pictures.locator(view, cbf.value, usable, one.voxel, window, cbf.kind.colormap)
    return html.division(
        "pick",
        Markup(f"<h3>{html.safe(one.title)} <span>voxel {', '.join(map(str, one.voxel))}</span></h3>"),
        html.paragraph(f"{one.why}. {status}", "small"),
        html.division("both", html.division("dark", where), curves.curve(fit, one.voxel, one.title)),
        html.paragraph("; ".join(numbers), "small numbers"),
    )


def _acquisition(fit: PerfusionFit) -> Markup:
    pulsed = fit.scan.acquisition.labeling == "PASL"
    names = ("Inversion time, s", "Bolus duration, s") if pulsed else ("Post-labelling delay, s", "Label duration, s")
    tables = []
    for start in range(0, len(fit.pld), 12):  # at most twelve delays side by side
        values = [v[start : start + 12] for v in (fit.pld, fit.label_duration, fit.repeats)]
        rows = [[name, *(f"{float(x):g}" for x in v)] for name, v in zip((*names, "Repeats averaged"), values, strict=True)]
        tables.append(html.table((), rows, "l" + "r" * len(values[0]), compact=True))
    rows = [
        [constant_name(key), shortened(as_text(s.value)), Markup(f'<span class="nowrap">{html.safe(s.unit)}</span>'), s.origin]
        for key, s in fit.scan.acquisition.origins.items()
    ]
    constants = html.table(("Quantity", "Value", "Unit", "Origin"), rows, "llll")
    return Markup(html.section("What was acquired", *tables) + "\n" + html.section("Constants and their origin", constants))


def _convergence(fit: PerfusionFit) -> Markup:
    known = (("cost", "mean cost of a voxel", False), ("active", "voxels still being improved (%)", True))
    charts = [
        curves.convergence(fit.convergence[key], label, share=share) for key, label, share in known if len(fit.convergence.get(key, ())) > 1
    ]
    return html.section("Convergence", html.division("pair", *charts)) if charts else Markup()


def _settings(fit: PerfusionFit) -> Markup:
    rows = _flat(fit.settings)
    return html.section("Settings and versions", html.table((), rows, "ll")) if rows else Markup()


def _flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, text), in their own order."""
    out: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("_", " ") if not prefix else f"{prefix}{key}"
        out += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, as_text(value))]
    return out
