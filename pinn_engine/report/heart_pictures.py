"""Pictures of a heart: values on its mesh or rectangle as pixels, and V over time at some places."""

from __future__ import annotations

import numpy as np

from ..cardiac.result import HeartFit
from . import html, pictures, svg
from .html import Markup

SIDES = ("front", "left", "back", "right")  # of the patient, x to the right, y to the front, z up (RAS)
BACKDROP = "#0b0e13"  # pictures.BACKGROUND
FLAT = 0.1  # extent along the normal over the largest, below which a mesh is seen from one side, along its normal
ENOUGH = 25  # samples that a trace shows: the node's own, and those of its neighbours where it has fewer
PLACES, FRAMES = 6, 4


def status_picture(fit: HeartFit) -> Markup:
    """Where each status holds, its number below in its colour."""
    codes = [int(s) for s in np.unique(fit.status) if s]
    colours = pictures.status_colours(codes)
    pixels = picture(fit, fit.status, (0.0, 1.0), colours)
    h, w, _ = pixels.shape
    width = pictures.WIDTH
    height = width * h / w
    body = f'<image x="0" y="0" width="{width:g}" height="{height:.1f}" href="{svg.png_uri(pixels)}"/>'
    body += pictures.legend(colours, height + 12)
    return svg.picture(width, height + 42, body, "Status of the nodes")


def sides_caption(fit: HeartFit) -> str:
    """What the names of the views rest on."""
    mesh = fit.data.whole
    if fit.data.grid is not None or len(viewpoints(mesh.ras_points)) == 1:
        return ""
    known = f"the file says {mesh.space}" if mesh.space else "this is taken for granted, the file does not say it"
    return f"Front, left, back and right are the patient's if x points to the right, y to the front and z up (RAS; {known})."


def coloured(values: np.ndarray, window: tuple[float, float], colormap: str | dict[int, str], inside: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 by a colour map, or by a table of codes; background where not `inside`."""
    if isinstance(colormap, str):
        return pictures.colour(values, window, colormap, inside)
    return pictures.coded(values, colormap, inside)


def map_picture(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str, unit: str, label: str) -> Markup:
    """Nodal values (N,) with their scale."""
    pixels = picture(fit, values, window, colormap)
    h, w, _ = pixels.shape
    width = pictures.WIDTH
    height = width * h / w
    body = f'<image x="0" y="0" width="{width:g}" height="{height:.1f}" href="{svg.png_uri(pixels)}"/>'
    body += pictures._colour_bar(height + 8, window, colormap, unit)
    return svg.picture(width, height + 42, body, f"{label}, shown from {window[0]:g} to {window[1]:g} {unit}")


def picture(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str | dict[int, str]) -> np.ndarray:
    return flat_picture(fit, values, window, colormap) if fit.data.grid is not None else views(fit, values, window, colormap)


def flat_picture(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str | dict[int, str]) -> np.ndarray:
    """The movie's middle plane as pixels, x to the right and y up."""
    assert fit.data.grid is not None
    image = values.reshape(fit.data.grid.shape)[:, :, fit.data.grid.shape[2] // 2].T[::-1]
    factor = max(1, 300 // max(image.shape))
    return np.kron(coloured(image, window, colormap, np.ones(image.shape, bool)), np.ones((factor, factor, 1), np.uint8))


def viewpoints(points: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, right, up) of the sides that a mesh is drawn from: four round it, or, where it is flat, one along its normal."""
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1]  # columns, thinnest first
    extent = np.ptp(centred @ axes, axis=0)
    if extent[0] <= FLAT * extent.max():
        normal = axes[:, 0]
        across, up = (np.eye(3)[k] for k in np.delete(np.arange(3), np.abs(normal).argmax()))
        right = across - (across @ normal) * normal
        right /= np.linalg.norm(right)
        above = up - (up @ normal) * normal - (up @ right) * right
        return [("", right, above / np.linalg.norm(above))]
    turns = np.pi + 0.5 * np.pi * np.arange(len(SIDES))  # seen from the front the patient's right is on the left
    return [(name, np.array([np.cos(t), np.sin(t), 0.0]), np.array([0.0, 0.0, 1.0])) for name, t in zip(SIDES, turns, strict=True)]


def views(fit: HeartFit, values: np.ndarray, window: tuple[float, float], colormap: str | dict[int, str], size: int = 260) -> np.ndarray:
    """The mesh from its sides: triangles drawn far to near in software, no window and no graphics card."""
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
    shown = values[faces].mean(axis=1) if isinstance(colormap, str) else values[faces].max(axis=1)
    colour = coloured(shown, window, colormap, inside).astype(float) / 255.0
    colour[~inside] = 0.35
    sides = viewpoints(points[np.unique(faces)])
    one = len(sides) == 1
    reach = (
        1.03 * np.array([float(np.abs(points @ axis).max()) for axis in sides[0][1:]]) if one else np.full(2, 1.05 * np.abs(points).max())
    )
    tall = 2.0 * size * max(reach[1] / reach[0], 0.25) if one else 2.0 * size
    figure = Figure(figsize=(2 * size / 100, tall / 100), dpi=100, facecolor=BACKDROP)
    for n, (title, right, up) in enumerate(sides):
        toward = np.cross(right, up)
        order = np.argsort(corner.mean(axis=1) @ toward, kind="stable")
        flat = np.stack([corner @ right, corner @ up], axis=-1)
        light = np.ones(len(faces)) if one else 0.55 + 0.45 * np.abs(normal @ toward)
        axis = figure.add_axes((0, 0, 1, 1) if one else (0.5 * (n % 2), 0.5 * (1 - n // 2), 0.5, 0.5))
        shade = np.clip(colour * light[:, None], 0, 1)
        axis.add_collection(PolyCollection(list(flat[order]), facecolors=shade[order], edgecolors=shade[order], linewidths=0.3))
        axis.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
        axis.set_aspect("equal")
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


def snapshots(fit: HeartFit) -> Markup:
    """The fitted V at some times: waves that come back are seen here, and nowhere else."""
    if fit.V is None or fit.data.times is None:
        return Markup("")
    unit, figures = fit.data.unit, []
    for k in frames_shown(fit):
        time = f"{svg.figure(float(unit.from_tu(fit.data.times[k])))} {unit.time}"
        figures.append(html.figure(time, "", "", map_picture(fit, fit.V[:, k], (0.0, 1.0), "magma", "", f"V at {time}")))
    return html.section("V, fitted", html.division("pair", *figures))


def frames_shown(fit: HeartFit) -> np.ndarray:
    """Frames spread over the record, or, where there is one beat, over the front's way and one at the end of the action."""
    assert fit.data.times is not None
    times = np.asarray(fit.data.unit.from_tu(fit.data.times))
    if "LAT" in fit.maps and (fit.status > 0).any():
        LAT = fit.maps["LAT"].value[fit.status > 0]
        asked = [*np.percentile(LAT, [20, 50, 80]), 0.5 * (LAT.max() + times[-1])]
    else:
        asked = list(np.linspace(times[0], times[-1], FRAMES))
    return np.unique([int(np.abs(times - t).argmin()) for t in asked])


def traces(fit: HeartFit) -> Markup:
    """V over time, observed and fitted, at places that were seen most; with few samples a node its neighbours' are shown too."""
    if fit.V is None or fit.data.V is None or fit.data.times is None:
        return Markup("")
    unit = fit.data.unit
    times, LAT = unit.from_tu(fit.data.times), fit.maps["LAT"].value if "LAT" in fit.maps else None
    figures, far = [], 0.0
    for node in trace_nodes(fit, LAT):
        own = np.flatnonzero(np.isfinite(fit.data.V[node]))
        frame = svg.axes((float(times[0]), float(times[-1])), (-0.2, 1.2), (540, 190), (unit.time, "V"))
        curve = svg.path([(frame.x(float(t)), frame.y(float(v))) for t, v in zip(times, np.clip(fit.V[node], -0.2, 1.2), strict=True)])
        at, value, distance = neighbours(fit, node, ENOUGH - len(own), LAT)
        far = max(far, distance)
        inside = (at >= times[0]) & (at <= times[-1])
        dots = [(t, v, 'r="2" fill="#d9772b" opacity="0.35"') for t, v in zip(at[inside], value[inside], strict=True)]
        dots += [(times[k], fit.data.V[node, k], 'r="2.6" fill="#d9772b"') for k in own]
        drawn = "".join(
            f'<circle cx="{frame.x(float(t)):.1f}" cy="{frame.y(float(np.clip(v, -0.2, 1.2))):.1f}" {style}/>' for t, v, style in dots
        )
        line = f'<polyline points="{curve}" fill="none" stroke="{svg.ACCENT}" stroke-width="1.6"/>'
        place = ", ".join(f"{x:.1f}" for x in fit.data.whole.points[node])
        figures.append(html.figure(f"Node {node}", f"({place}) mm", "", svg.picture(540, 190, frame.svg + line + drawn, "V"), dark=False))
    words = "Observed (dots) and fitted (line)."
    if far > 0:
        moved = ", moved in time by the difference in activation" if LAT is not None else ""
        words += f" Pale dots: samples of the nodes round it, at most {svg.figure(far)} mm away{moved}."
    return html.section("Traces", html.paragraph(words, "small"), html.division("pair", *figures))


def trace_nodes(fit: HeartFit, LAT: np.ndarray | None) -> np.ndarray:
    """Nodes among those with the most samples, from early to late (or, without activation times, all over the tissue)."""
    assert fit.data.V is not None
    seen = np.where(fit.status > 0, np.isfinite(fit.data.V).sum(axis=1), 0)
    last = np.sort(seen)[::-1][: max(PLACES, np.count_nonzero(seen) // 50)][-1]
    best = np.flatnonzero(seen >= max(last, 1))  # with all that have as many: the first by number would all stand at one edge
    order = np.sort(best) if LAT is None else best[np.argsort(LAT[best], kind="stable")]
    return order[np.unique(np.linspace(0, len(order) - 1, min(PLACES, len(order))).astype(int))]


def neighbours(fit: HeartFit, node: int, count: int, LAT: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Times and values of about `count` samples at the nodes nearest to `node`, and how far the farthest is (mm)."""
    assert fit.data.V is not None
    assert fit.data.times is not None
    distance = np.linalg.norm(fit.data.whole.points - fit.data.whole.points[node], axis=1)
    distance[node] = np.inf
    seen = np.where(fit.status > 0, np.isfinite(fit.data.V).sum(axis=1), 0)
    order = np.argsort(distance, kind="stable")[: len(distance) - 1]
    near = order[: int(np.searchsorted(np.cumsum(seen[order]), count)) + 1] if count > 0 else order[:0]
    which, frame = np.nonzero(np.isfinite(fit.data.V[near]) & (fit.status[near] > 0)[:, None])
    at = np.asarray(fit.data.unit.from_tu(fit.data.times[frame]), float)
    if LAT is not None:
        at = at - (LAT[near[which]] - LAT[node])
    return at, fit.data.V[near[which], frame], float(distance[near].max()) if len(near) else 0.0
