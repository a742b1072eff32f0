"""The report of one heart fit: a single HTML file, map views drawn off-screen, the data against the fit, parameters with errors."""

from __future__ import annotations

import io

import numpy as np

from ..cardiac.result import HeartFit, NodeMap, NodeStatus
from . import html, pictures, svg
from .html import Markup

VIEWS = ("front", "left", "back", "right")
MAX_POINTS = 1500
BACKDROP = "#0b0e13"  # pictures.BACKGROUND


def write_report(fit: HeartFit) -> str:
    """The report's HTML."""
    body: list[str] = [
        _head(fit),
        _cards(fit),
        _notes(fit),
        _maps(fit),
        _scatter(fit),
        _traces(fit),
        _parameters(fit),
        _status(fit),
        _settings(fit),
    ]
    body.append("<footer>Made by pinn_engine. For research use only: not a medical device, not for diagnosis or treatment.</footer>")
    return html.page(f"Heart report: {fit.data.prefix}", body)


def _head(fit: HeartFit) -> Markup:
    mesh = fit.data.whole
    kind = "movie" if fit.data.grid is not None else ("surface" if mesh.is_surface else "volume mesh")
    what = "activation times" if fit.observed is not None else "samples of V"
    lead = f"{fit.data.source}: {kind}, {len(mesh.points):,} nodes, {fit.settings.get('observations', 0):,} {what}."
    kicker = html.paragraph("Cardiac electrophysiology", "kicker")
    return Markup(f"<header>\n{kicker}\n<h1>{html.safe(fit.data.prefix)}</h1>\n{html.paragraph(lead, 'lead')}\n</header>")


def _cards(fit: HeartFit) -> Markup:
    good = fit.status == NodeStatus.FITTED
    good = good if good.any() else fit.status > 0
    cards = []
    for key in ("CV", "D"):
        if key in fit.maps and good.any():
            one = fit.maps[key]
            low, middle, high = np.percentile(one.value[good], [5, 50, 95])
            cards.append(_card(one.kind.title, svg.figure(middle), one.unit, f"5–95 %: {svg.figure(low)} to {svg.figure(high)}"))
    for name, p in fit.parameters.items():
        if p.std > 0 and name not in fit.maps:
            cards.append(_card(name, svg.figure(p.value), p.unit, f"± {svg.figure(p.std)}"))
    if fit.residual is not None:
        rms = float(np.sqrt(np.median(fit.residual**2)) * 1.4826)
        cards.append(_card("Misfit of the data", svg.figure(rms), "noise sd", "1 = as the noise predicts"))
    return html.division("cards", *cards)


def _card(name: str, value: str, unit: str, more: str) -> Markup:
    inner = f'<div class="name">{html.safe(name)}</div><div class="value">{value} <span class="unit">{html.safe(unit)}</span></div>'
    return Markup(f'<div class="card">{inner}<div class="more">{html.safe(more)}</div></div>')


def _notes(fit: HeartFit) -> Markup:
    said = [*fit.notes, *fit.data.notes]
    return html.division("notes", Markup("<h2>Please note</h2>"), *(html.paragraph(s) for s in said)) if said else Markup("")


def _maps(fit: HeartFit) -> Markup:
    figures = []
    for one in fit.maps.values():
        inside = (fit.status > 0) & (fit.status != (NodeStatus.COLLISION if one.kind.key == "CV" else -1))
        window = pictures.percentile_window(one.value[inside if inside.any() else fit.status > 0])
        figures.append(html.figure(one.kind.title, one.unit, "", _view(fit, one, one.value, window, one.kind.colormap)))
        spread = pictures.percentile_window(one.std[fit.status > 0], from_zero=True)
        figures.append(html.figure("Standard deviation", one.unit, "", _view(fit, one, one.std, spread, "bone")))
    return html.section("Maps", html.division("pair", *figures))


def _view(fit: HeartFit, one: NodeMap, values: np.ndarray, window: tuple[float, float], colormap: str) -> Markup:
    pixels = flat_picture(fit, values, window, colormap) if fit.data.grid is not None else views(fit, values, window, colormap)
    h, w, _ = pixels.shape
    width = pictures.WIDTH
    height = width * h / w
    body = f'<image x="0" y="0" width="{width:g}" height="{height:.1f}" href="{svg.png_uri(pixels)}"/>'
    body += pictures._colour_bar(height + 8, window, colormap, one.unit)
    return svg.picture(width, height + 42, body, f"{one.kind.title}, shown from {window[0]:g} to {window[1]:g} {one.unit}")


def flat_picture(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str) -> np.ndarray:
    """The movie's middle plane as pixels, x to the right and y up."""
    assert fit.data.grid is not None
    image = values.reshape(fit.data.grid.shape)[:, :, fit.data.grid.shape[2] // 2].T[::-1]
    factor = max(1, 300 // max(image.shape))
    return np.kron(pictures.colour(image, window, colormap, np.ones(image.shape, bool)), np.ones((factor, factor, 1), np.uint8))


def views(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str, size: int = 260) -> np.ndarray:
    """The mesh from four sides, side by side in two rows: triangles drawn far to near in software, no window and no graphics card."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    mesh = fit.data.whole
    faces = mesh.cells if mesh.is_surface else _surface(mesh.cells)
    points = mesh.ras_points - 0.5 * (mesh.ras_points.max(axis=0) + mesh.ras_points.min(axis=0))
    corner = points[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    inside = (fit.status[faces] > 0).all(axis=1)
    colour = pictures.colour(values[faces].mean(axis=1), window, colormap, inside).astype(float) / 255.0
    colour[~inside] = 0.35
    figure = Figure(figsize=(2 * size / 100, 2 * size / 100), dpi=100, facecolor=BACKDROP)
    reach = float(np.abs(points).max()) * 1.05
    for n, title in enumerate(VIEWS):
        angle = 0.5 * np.pi * n
        right = np.array([np.cos(angle), np.sin(angle), 0.0])
        toward = np.array([np.sin(angle), -np.cos(angle), 0.0])
        depth = corner.mean(axis=1) @ toward
        order = np.argsort(depth, kind="stable")
        flat = np.stack([corner @ right, corner[..., 2]], axis=-1)
        light = 0.55 + 0.45 * np.abs(normal @ toward)
        axis = figure.add_axes((0.5 * (n % 2), 0.5 * (1 - n // 2), 0.5, 0.5))
        shade = np.clip(colour * light[:, None], 0, 1)
        axis.add_collection(PolyCollection(list(flat[order]), facecolors=shade[order], edgecolors=shade[order], linewidths=0.3))
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
        axis.axis("off")
        axis.text(0.03, 0.95, title, transform=axis.transAxes, color="#d5dbe3", fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _surface(cells: np.ndarray) -> np.ndarray:
    """Faces that belong to one tetrahedron only."""
    faces = cells[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3)
    _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[first[count == 1]]


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
    picture = svg.picture(540, 320, frame.svg + line + dots, "Activation times, fitted against observed")
    return html.section("Activation times", html.figure("Fitted against observed", unit, words, picture, dark=False))


def _traces(fit: HeartFit) -> Markup:
    """V over time at six places, observed and fitted."""
    if fit.V is None or fit.data.V is None or fit.data.times is None:
        return Markup("")
    times = fit.data.unit.from_tu(fit.data.times)
    seen = np.isfinite(fit.data.V).sum(axis=1)
    order = np.argsort(fit.maps["LAT"].value, kind="stable") if "LAT" in fit.maps else np.arange(len(seen))
    order = order[seen[order] >= max(1, np.percentile(seen, 80))]
    figures = []
    for node in order[np.linspace(0, len(order) - 1, min(6, len(order))).astype(int)]:
        frame = svg.axes((float(times[0]), float(times[-1])), (-0.2, 1.2), (540, 190), (fit.data.unit.time, "V"))
        curve = svg.path([(frame.x(float(t)), frame.y(float(v))) for t, v in zip(times, np.clip(fit.V[node], -0.2, 1.2), strict=True)])
        dots = "".join(
            f'<circle cx="{frame.x(float(t)):.1f}" cy="{frame.y(float(np.clip(v, -0.2, 1.2))):.1f}" r="2.4" fill="#d9772b"/>'
            for t, v in zip(times, fit.data.V[node], strict=True)
            if np.isfinite(v)
        )
        picture = svg.picture(
            540, 190, f'{frame.svg}<polyline points="{curve}" fill="none" stroke="{svg.ACCENT}" stroke-width="1.6"/>{dots}', "V"
        )
        place = ", ".join(f"{x:.1f}" for x in fit.data.whole.points[node])
        figures.append(html.figure(f"Node {node}", f"({place}) mm", "", picture, dark=False))
    return html.section("Traces", html.paragraph("Observed (dots) and fitted (line).", "small"), html.division("pair", *figures))


def _parameters(fit: HeartFit) -> Markup:
    rows = [(name, svg.figure(p.value), svg.figure(p.std) if p.std else "–", p.unit, p.status) for name, p in fit.parameters.items()]
    table = html.table(("Parameter", "Value", "Std", "Unit", "How"), rows, "lrrll")
    pairs = [f"{i}–{j}: {r:+.2f}" for i, row in fit.correlation.items() for j, r in row.items() if i < j]
    words = [html.paragraph(fit.identifiability)] + ([html.paragraph("Correlations: " + "; ".join(pairs), "small")] if pairs else [])
    return html.section("Parameters", table, *words)


def _status(fit: HeartFit) -> Markup:
    total = max(1, len(fit.status))
    rows = [(s.sentence, f"{int((fit.status == s).sum()):,}", svg.percent(float((fit.status == s).sum()) / total)) for s in NodeStatus]
    return html.section("Status of the nodes", html.table(("Meaning", "Nodes", "Share"), rows, "lrr"))


def _settings(fit: HeartFit) -> Markup:
    rows = [(str(key), str(value)) for key, value in fit.settings.items()]
    return html.section("Settings", html.table((), rows, "ll"))


def overview(fit: HeartFit) -> bytes:
    """A PNG of the first map, for quick looks."""
    from matplotlib.image import imsave

    one = next(iter(fit.maps.values()))
    window = pictures.percentile_window(one.value[fit.status > 0])
    draw = flat_picture if fit.data.grid is not None else views
    stream = io.BytesIO()
    imsave(stream, draw(fit, one.value, window, one.kind.colormap), format="png")
    return stream.getvalue()
