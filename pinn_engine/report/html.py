"""HTML in the few shapes that reports are made of. Whatever comes from outside is escaped here; only `Markup` passes as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from .style import CSS


class Markup(str):
    """Text that is HTML already."""


def safe(content: str) -> str:
    return content if isinstance(content, Markup) else escape(content, quote=True)


def prose(content: str) -> str:
    """Text whose command-line options are not broken after their dashes.

    >>> prose("give --m0 & more")
    'give <span class="nowrap">--m0</span> &amp; more'
    """
    if isinstance(content, Markup):
        return content
    return re.sub(r"--[a-z][\w-]*", r'<span class="nowrap">\g<0></span>', safe(content))


def page(title: str, body: Sequence[str]) -> str:
    """A whole document that refers to nothing outside itself."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *body: str) -> Markup:
    return Markup(f"<section>\n<h2>{safe(title)}</h2>\n" + "\n".join(safe(part) for part in body) + "\n</section>")


def paragraph(content: str, kind: str = "") -> Markup:
    return Markup(f'<p class="{kind}">{prose(content)}</p>' if kind else f"<p>{prose(content)}</p>")


def division(kind: str, *body: str) -> Markup:
    return Markup(f'<div class="{kind}">' + "\n".join(safe(part) for part in body) + "</div>")


def figure(title: str, unit: str, caption: str, picture: Markup, *, dark: bool = True) -> Markup:
    """A picture under its title and one line that explains it."""
    box = division("dark", picture) if dark else picture
    head = f"<h3>{safe(title)} <span>{safe(unit)}</span></h3>" if title else ""
    line = f'<p class="small">{safe(caption)}</p>' if caption else ""
    return Markup(f"<figure>\n<figcaption>{head}{line}</figcaption>\n{box}\n</figure>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str, faint: Sequence[bool] = (), compact: bool = False) -> Markup:
    """A table whose first column names its rows; `align` has l or r per column. `faint` rows are greyed; `compact` = as wide as needed."""
    kind = {"l": "", "r": ' class="num"'}
    out = ['<table class="compact">' if compact else "<table>"]
    if head:
        cells = "".join(f'<th scope="col"{kind[a]}>{safe(h)}</th>' for h, a in zip(head, align, strict=True))
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for i, row in enumerate(rows):
        cells = "".join(f"<td{kind[a]}>{prose(c)}</td>" for c, a in zip(row[1:], align[1:], strict=True))
        out.append(f'<tr{" class=faint" if i < len(faint) and faint[i] else ""}><th scope="row">{safe(row[0])}</th>{cells}</tr>')
    return Markup("\n".join([*out, "</tbody>", "</table>"]))
