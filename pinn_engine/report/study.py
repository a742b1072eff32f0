"""The page of a study: what failed, one row a subject with its report, the most unusual first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import quote

import numpy as np

from . import html, svg
from .html import Markup

SHOWN = {  # figure: (title, unit)
    "gm_cbf_mean": ("GM CBF", "mL/100 g/min"),
    "wm_cbf_mean": ("WM CBF", "mL/100 g/min"),
    "gm_att_mean": ("GM arrival", "s"),
    "cbf_median": ("Median CBF", "mL/100 g/min"),
    "att_median": ("Median arrival", "s"),
    "cbf_std_median": ("Median sd of CBF", "mL/100 g/min"),
    "relative_gm_cbf_mean": ("GM perfusion, no M0", "relative"),
    "relative_cbf_median": ("Median perfusion, no M0", "relative"),
    "misfit_median": ("Misfit", "1 = as expected"),
    "share_converged": ("Converged", "share"),
    "CV_median": ("Median CV", ""),
    "D_median": ("Median D", ""),
    "share_fitted": ("Fitted", "share"),
}
BETTER = {  # a median over both tissues is neither's: left out where GM is known
    "cbf_median": "gm_cbf_mean",
    "relative_cbf_median": "relative_gm_cbf_mean",
    "att_median": "gm_att_mean",
}
FILES = {  # end of a file's name: what it holds
    "desc-qualitycontrol_cbf.tsv": "all figures, one row a subject",
    "desc-qualitycontrol_cardiac.tsv": "all figures, one row a heart",
    "desc-plausibility_cbf.tsv": "checks, one row a subject and figure",
    "desc-weights_asl.tsv": "weights, one row a subject and pair of images",
    "desc-roi_cbf.tsv": "regions, one row a subject and region",
    "CITATION.md": "words for a methods section",
}
UNUSUAL = 3.5  # robust standard deviations (Iglewicz & Hoaglin 1993)


class Subject(Protocol):
    """What the page needs of a subject's result."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def cautions(self) -> Sequence[str]: ...
    @property
    def summary(self) -> Mapping[str, object]: ...


def write_index(title: str, subjects: Sequence[Subject], reports: Mapping[str, str], files: Sequence[str] = ()) -> str:
    """The HTML. `reports`: identifier -> path of its report, relative to the page; `files`: tables of the study, as linked below."""
    done = [one for one in subjects if one.state == "done"]
    failed = [one for one in subjects if one.state != "done"]
    figures = [name for name in SHOWN if any(_number(one, name) is not None and _number(one, BETTER.get(name, "")) is None for one in done)]
    scores = {name: unusual([_number(one, name) for one in done]) for name in figures}
    worst = [max((scores[name][i] for name in figures), default=0.0) for i in range(len(done))]
    order = sorted(range(len(done)), key=lambda i: (not done[i].cautions, -round(worst[i], 6), done[i].id))
    cards = [_card("Subjects", str(len(subjects)), ""), _card("Done", str(len(done)), ""), _card("Failed", str(len(failed)), "")]
    doubtful = [one for one in done if one.cautions]
    cards.append(_card("With cautions", str(len(doubtful)), ""))
    flagged = sum(score > UNUSUAL for score in worst)
    cards.append(_card("Unusual", str(flagged), f"beyond {UNUSUAL} robust sd"))
    body = [
        Markup(f"<header>\n{html.paragraph('Study', 'kicker')}\n<h1>{html.safe(title)}</h1>\n</header>"),
        html.division("cards counts", *cards),
        _failures(failed),
        _cautions(doubtful),
        _strips(done, figures, scores),
        _table(done, figures, scores, order, reports),
        _files(files),
        Markup("<footer>Made by pinn_engine. For research use only: not a medical device, not for diagnosis or treatment.</footer>"),
    ]
    return html.page(f"Study: {title}, {len(subjects)} subjects", body)


def unusual(values: Sequence[float | None]) -> list[float]:
    """How far each value is from the others' median, in robust standard deviations; 0 where it is missing or all are alike.

    >>> [round(x, 1) for x in unusual([50.0, 52.0, 51.0, 49.0, 90.0])]
    [0.7, 0.7, 0.0, 1.3, 26.3]
    """
    known = np.array([value for value in values if value is not None])
    if known.size < 5:
        return [0.0] * len(values)
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle))
    return [0.0 if value is None or spread == 0 else float(abs(value - middle) / spread) for value in values]


def _card(name: str, value: str, more: str) -> Markup:
    return html.division("card", html.division("name", name), html.division("value", value), html.division("more", more))


def _failures(failed: Sequence[Subject]) -> Markup:
    if not failed:
        return Markup()
    return html.section("Failed", html.table(("Subject", "Why"), [(one.id, one.message) for one in failed], "ll"))


def _cautions(doubtful: Sequence[Subject]) -> Markup:
    if not doubtful:
        return Markup()
    rows = [(one.id if at == 0 else "", caution) for one in doubtful for at, caution in enumerate(one.cautions)]
    return html.section("Read before use", html.table(("Subject", "What calls for care"), rows, "ll"))


def _strips(done: Sequence[Subject], figures: Sequence[str], scores: Mapping[str, Sequence[float]]) -> Markup:
    """Each figure's values on a line of its own, unusual ones named."""
    if len(done) < 5:
        return Markup()
    strips = [html.figure(*_shown(name, done), "", _strip(done, name, scores[name]), dark=False) for name in figures]
    return html.section(
        "All subjects at a glance", html.paragraph("A dot a subject; unusual ones are named.", "small"), html.division("picks", *strips)
    )


def _strip(done: Sequence[Subject], name: str, scores: Sequence[float], width: float = 520, height: float = 64) -> Markup:
    values = [_number(one, name) for one in done]
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    room = (high - low) or abs(high) or 1.0
    low, high = low - 0.06 * room, high + 0.06 * room
    parts = [svg.line(0, 34, width, 34)]
    last = -1e9
    for i, value in sorted(enumerate(values), key=lambda pair: (pair[1] is None, pair[1])):
        if value is None:
            continue
        x = (value - low) / (high - low) * width
        far = scores[i] > UNUSUAL
        parts.append(
            f'<circle cx="{x:.1f}" cy="34" r="{5 if far else 3.5:g}" fill="{"#c25b00" if far else svg.ACCENT}" fill-opacity="0.65"/>'
        )
        if far and x - last > 70:
            anchor = "end" if x > width - 60 else "start" if x < 60 else "middle"
            parts.append(svg.text(x, 20, done[i].id, anchor=anchor, fill="#9a5b00", size=12))
            last = x
    parts += [svg.text(0, 58, svg.figure(min(known)), size=12), svg.text(width, 58, svg.figure(max(known)), anchor="end", size=12)]
    return svg.picture(width, height, "".join(parts), f"{SHOWN[name][0]} of {len(known)} subjects")


def _table(
    done: Sequence[Subject],
    figures: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    order: Sequence[int],
    reports: Mapping[str, str],
) -> Markup:
    if not done:
        return Markup()
    shown = (_shown(name, done) for name in figures)
    head = ("Subject", *(Markup(f'{html.safe(title)}<br><span class="unit">{html.safe(unit)}</span>') for title, unit in shown))
    rows = []
    for i in order:
        report = reports.get(done[i].id)
        name = html.safe(done[i].id)
        first = Markup(f'<a href="{quote(report)}">{name}</a>') if report else name
        rows.append([first, *(_cell(_number(done[i], figure), scores[figure][i]) for figure in figures)])
    return html.section(
        "Subjects, those with cautions first, then the most unusual"
        if any(one.cautions for one in done)
        else "Subjects, the most unusual first",
        html.table(head, rows, "l" + "r" * len(figures)),
    )


def _files(files: Sequence[str]) -> Markup:
    if not files:
        return Markup()
    rows = [(Markup(f'<a href="{quote(file)}">{html.safe(file)}</a>'), _about(file)) for file in files]
    return html.section("Tables and words for a paper", html.table((), rows, "ll", compact=True))


def _about(file: str) -> str:
    return next((words for end, words in FILES.items() if file.endswith(end)), "all subjects' rows, each with its subject")


def _cell(value: float | None, score: float) -> str:
    text = "n/a" if value is None else svg.figure(value)
    return Markup(f"<strong>{text}</strong> ▲") if score > UNUSUAL else text


def _shown(name: str, done: Sequence[Subject]) -> tuple[str, str]:
    """Title and unit of a figure; a heart's unit of time is its subjects' own."""
    title, unit = SHOWN[name]
    own = {str(one.summary.get(f"{name.removesuffix('_median')}_unit", "")) for one in done}
    return title, unit or ", ".join(sorted(own - {""}))


def _number(one: Subject, name: str) -> float | None:
    """A figure of a subject; perfusion without M0 has figures of its own, for its unit is nobody else's."""
    figure = name.removeprefix("relative_")
    if "cbf" in figure and (figure != name) != (one.summary.get("cbf_unit") == "arbitrary"):
        return None
    value = one.summary.get(figure)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None
