"""Small pieces of SVG and PNG: pixels as data URIs, axes, numbers as a reader expects them. Same input, same text."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .html import Markup

INK, MUTED, RULE, ACCENT = "#1b2430", "#667080", "#dfe3e8", "#0c7489"


def png_uri(pixels: np.ndarray) -> str:
    """(H, W, 3 or 4) uint8 as a PNG data URI."""
    height, width, depth = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * depth)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[depth], 0, 0, 0)
    body = b"".join(_chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(width: float, height: float, content: str, label: str) -> Markup:
    """A whole inline SVG that scales with its column; `label` is read aloud by screen readers."""
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{content}</svg>"
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", fill: str = MUTED, size: float = 11, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size:g}"{extra}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = RULE, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width:g}"/>'


def path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def figure(value: float) -> str:
    """Three significant figures, thousands apart, a true minus sign.

    >>> [figure(x) for x in (0, 0.0853, 0.9996, 1.118, 52.31, 187.4, 12345.6, -3.14)]
    ['0', '0.085', '1.00', '1.12', '52.3', '187', '12,346', '−3.14']
    """
    if not math.isfinite(value):
        return "n/a"
    size = abs(float(f"{value:.3g}"))
    if 0 < size < 1e-3:
        digits = f"{value:.1e}"
    else:
        digits = f"{value:,.{0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return digits.replace("-", "−")


def plus_minus(value: float, spread: float) -> str:
    """A value and its standard deviation with the same number of decimals.

    >>> plus_minus(52.31, 4.02), plus_minus(1.034, 0.08), plus_minus(0.004, 0.2)
    ('52.3 ± 4.0', '1.03 ± 0.08', '0.00 ± 0.20')
    """
    size = max(abs(value), abs(spread))
    places = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{places}f} ± {spread:,.{places}f}".replace("-", "−")


def percent(share: float) -> str:
    """
    >>> [percent(x) for x in (0, 0.0004, 0.0312, 0.914, 0.9996, 1)]
    ['0 %', '< 0.1 %', '3.1 %', '91.4 %', '> 99.9 %', '100 %']
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers within [low, high].

    >>> ticks(0, 100), ticks(0.25, 2.5, 4)
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.5, 1.0, 1.5, 2.0, 2.5])
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    return f"{value:g}".replace("-", "−")


@dataclass(frozen=True)
class Axes:
    """A drawn frame: `svg` (axes, grid, labels) and where data go, in SVG units."""

    svg: str
    x: Callable[[float], float]
    y: Callable[[float], float]


def axes(
    x_range: tuple[float, float], y_range: tuple[float, float], size: tuple[float, float], labels: tuple[str, str], *, log: bool = False
) -> Axes:
    """Axes for a chart of `size` (width, height); `log` draws y on a decimal logarithm."""
    (width, height), left, right, top, bottom = size, 52.0, 10.0, 22.0, 34.0
    scale: Callable[[float], float] = math.log10 if log else float
    (x0, x1), (y0, y1) = x_range, (scale(y_range[0]), scale(y_range[1]))
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)

    def fx(v: float) -> float:
        return left + (v - x0) / (x1 - x0) * (width - left - right)

    def fy(v: float) -> float:
        return height - bottom - (scale(v) - y0) / (y1 - y0) * (height - top - bottom)

    marks = [10.0**k for k in range(math.ceil(y0), math.floor(y1) + 1)] if log else ticks(y0, y1, 4)
    out = []
    for v in marks:
        out += [line(left, fy(v), width - right, fy(v)), text(left - 7, fy(v) + 3.5, tick_label(v), anchor="end")]
    for v in ticks(x0, x1, 6):
        out += [
            line(fx(v), height - bottom, fx(v), height - bottom + 4, stroke=MUTED),
            text(fx(v), height - bottom + 16, tick_label(v), anchor="middle"),
        ]
    out.append(line(left, height - bottom, width - right, height - bottom, stroke=MUTED))
    out += [text(width - right, height - 3, labels[0], anchor="end"), text(0, 11, labels[1])]
    return Axes("".join(out), fx, fy)
