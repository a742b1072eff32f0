"""Fitted curves at voxels that show the range of a fit, and how the solver converged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..asl.result import PerfusionFit
from . import svg
from .html import Markup


@dataclass(frozen=True)
class Pick:
    """A voxel and why it is shown."""

    title: str
    why: str
    voxel: tuple[int, int, int]


def pick(fit: PerfusionFit) -> list[Pick]:
    """Up to four voxels by fixed rules; the same fit always gives the same ones."""
    usable = fit.usable
    good = usable & (fit.status == 1)
    good = good if good.any() else usable
    if not usable.any():
        return []
    cbf = fit.maps["cbf"].value
    high, middle, low = np.percentile(cbf[good], [95, 50, 10])
    found = [Pick("High perfusion", "CBF at the 95th percentile", _nearest(cbf, high, good))]
    if "att" in fit.maps:
        att = fit.maps["att"].value
        perfused = good & (cbf >= middle)
        found.append(
            Pick(
                "Late arrival",
                "ATT at the 95th percentile where CBF is above its median",
                _nearest(att, np.percentile(att[perfused], 95), perfused),
            )
        )
    else:
        found.append(Pick("Typical perfusion", "CBF at the median", _nearest(cbf, middle, good)))
    found.append(Pick("Low perfusion", "CBF at the 10th percentile", _nearest(cbf, low, good)))
    found.append(Pick("Worst misfit", "The largest misfit of all", _nearest(fit.misfit, np.inf, usable)))
    return found


def _nearest(values: np.ndarray, target: float, among: np.ndarray) -> tuple[int, int, int]:
    """The first voxel (C order) whose value is nearest to `target`; the largest value for an infinite target."""
    distance = -values if np.isinf(target) else np.abs(values - target)
    i, j, k = np.unravel_index(int(np.argmin(np.where(among, distance, np.inf))), values.shape)
    return int(i), int(j), int(k)


def data_sd(fit: PerfusionFit, voxel: tuple[int, int, int]) -> np.ndarray | None:
    """(K,) sd of each averaged point, from the scatter of this voxel's repeats pooled over delays; None without repeats."""
    acquisition = fit.scan.acquisition
    series = np.asarray(fit.scan.difference[voxel], float)
    total, freedom = 0.0, 0
    for pld, duration in zip(fit.pld, fit.label_duration, strict=True):
        same = np.isclose(acquisition.pld, pld) & np.isclose(acquisition.label_duration, duration) & np.isfinite(series)
        if same.sum() > 1:
            total += float(np.sum((series[same] - series[same].mean()) ** 2))
            freedom += int(same.sum()) - 1
    return np.sqrt(total / freedom / np.maximum(fit.repeats, 1)) if freedom else None


def time_axis(fit: PerfusionFit) -> tuple[np.ndarray, str]:
    """(K,) and its name: the delay, or the time since labelling began where label durations differ."""
    if fit.scan.acquisition.labeling == "PASL":
        return np.asarray(fit.pld, float), "inversion time (s)"
    if np.ptp(fit.label_duration) > 1e-6:
        return np.asarray(fit.pld + fit.label_duration, float), "time since labelling began (s)"
    return np.asarray(fit.pld, float), "post-labelling delay (s)"


def key(bars: bool) -> Markup:
    """What the marks of `curve` mean."""
    dot = f'<circle cx="13" cy="6" r="3.2" fill="{svg.INK}"/>'
    marks = (
        (dot + (svg.line(13, 0, 13, 12, stroke=svg.INK) if bars else ""), "data" if bars else "data (no repeats, so no error bars)"),
        (svg.line(0, 6, 26, 6, stroke=svg.ACCENT, width=2), "fit"),
        (f'<rect width="26" height="12" fill="{svg.ACCENT}" fill-opacity="0.16"/>', "95 % band of the fitted curve"),
    )
    return Markup("".join(f'<span class="key"><svg viewBox="0 0 26 12" aria-hidden="true">{m}</svg>{name}</span>' for m, name in marks))


def curve(fit: PerfusionFit, voxel: tuple[int, int, int], title: str) -> Markup:
    """Data with error bars, the fit at the measured delays and its 95 % band, as SVG."""
    x, label = time_axis(fit)
    order = np.argsort(x, kind="stable")
    x, data, fitted, spread = (np.asarray(a, float)[order] for a in (x, fit.data[voxel], fit.fitted[voxel], fit.fitted_std[voxel]))
    sd = data_sd(fit, voxel)
    bar = np.zeros_like(x) if sd is None else sd[order]
    edges = np.concatenate([data - bar, data + bar, fitted - 1.96 * spread, fitted + 1.96 * spread, [0.0]])
    low, high = float(np.nanmin(edges)), float(np.nanmax(edges))
    room = 0.04 * ((high - low) or 1.0)
    margin = 0.06 * (float(np.ptp(x)) or 1.0)
    frame = svg.axes(
        (float(x[0]) - margin, float(x[-1]) + margin),
        (low - room if low < 0 else 0.0, high + room),
        (380, 210),
        (label, "difference (scanner units)"),
    )
    band = [(frame.x(a), frame.y(b)) for a, b in zip(x, fitted + 1.96 * spread, strict=True)]
    band += [(frame.x(a), frame.y(b)) for a, b in zip(x[::-1], (fitted - 1.96 * spread)[::-1], strict=True)]
    out = [frame.svg, f'<polygon points="{svg.path(band)}" fill="{svg.ACCENT}" fill-opacity="0.16"/>']
    points = svg.path([(frame.x(a), frame.y(b)) for a, b in zip(x, fitted, strict=True)])
    out.append(f'<polyline points="{points}" fill="none" stroke="{svg.ACCENT}" stroke-width="2" stroke-linejoin="round"/>')
    for a, b, c in zip(x, data, bar, strict=True):
        if np.isfinite(b):
            if c > 0:
                out.append(svg.line(frame.x(a), frame.y(b - c), frame.x(a), frame.y(b + c), stroke=svg.INK, width=1.1))
            out.append(f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="3.2" fill="{svg.INK}"/>')
    return svg.picture(380, 210, "".join(out), f"{title}: measured and fitted difference against {label}")


def convergence(values: list[float], label: str, *, share: bool = False) -> Markup:
    """One number per solver step, as SVG; logarithmic where it spans more than a factor of 20."""
    y = np.asarray(values, float) * (100 if share else 1)
    y = np.where(np.isfinite(y), y, 0.0)
    log = bool(not share and y.min() > 0 and y.max() / y.min() > 20)
    bottom, top = (
        (float(y.min()) * 0.9, float(y.max()) * 1.1) if log else (min(0.0, float(y.min())), 100.0 if share else float(y.max()) * 1.05)
    )
    frame = svg.axes((0, max(len(y) - 1, 1)), (bottom, top if top > bottom else bottom + 1), (540, 190), ("step", label), log=log)
    points = svg.path([(frame.x(i), frame.y(float(v))) for i, v in enumerate(y)])
    body = f'{frame.svg}<polyline points="{points}" fill="none" stroke="{svg.ACCENT}" stroke-width="2" stroke-linejoin="round"/>'
    return svg.picture(540, 190, body, f"{label} per step")
