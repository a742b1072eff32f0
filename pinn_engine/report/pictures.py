"""Mosaics of axial slices as inline SVG: voxels as they are (no interpolation), true proportions, sides, a scale with its unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..files.grid import Grid
from . import svg
from .html import Markup

BACKGROUND = (11, 14, 19)
WIDTH = 540.0  # SVG units of a mosaic
PALETTE = {1: "#2f8f9d", 2: "#e3b23c", 3: "#d9772b", 4: "#c2475a", 5: "#8b5fbf", 6: "#8d95a1"}  # status codes
SPARE = ("#5b8c5a", "#b08968", "#5c7cba", "#c98bb9")  # for codes beyond those


@dataclass(frozen=True)
class View:
    """Which part of a volume is shown, and how: decided once a scan, so that all its maps line up."""

    flips: np.ndarray  # (3, 2) from voxel axes to right, anterior, superior, as nibabel's orientations
    box: tuple[slice, slice]  # in RAS order
    slices: tuple[int, ...]  # in RAS order, from below
    heights: tuple[float, ...]  # mm, of those slices
    columns: int
    spacing: tuple[float, float]  # mm: right, anterior
    sides_known: bool


def view(mask: np.ndarray, grid: Grid, count: int = 12, columns: int = 4) -> View:
    """Axial slices spread over the mask (X, Y, Z), cropped to it; an empty mask shows the whole grid."""
    from nibabel.orientations import apply_orientation, io_orientation

    flips = io_orientation(grid.affine)
    inside = apply_orientation(mask if mask.any() else np.ones_like(mask), flips)
    area = inside.sum(axis=(0, 1))
    usable = np.flatnonzero(area >= 0.3 * area.max())
    chosen = usable if len(usable) <= count else usable[np.round(np.linspace(0, len(usable) - 1, count)).astype(int)]
    box = tuple(_extent(inside.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    order = [int(np.flatnonzero(flips[:, 0] == a)[0]) for a in range(3)]
    heights = [_height(grid, order[2], int(k) if flips[order[2], 1] > 0 else grid.shape[order[2]] - 1 - int(k)) for k in chosen]
    return View(
        flips,
        (box[0], box[1]),
        tuple(int(k) for k in chosen),
        tuple(heights),
        min(columns, len(chosen)),
        (float(grid.spacing[order[0]]), float(grid.spacing[order[1]])),
        bool(grid.qform_code or grid.sform_code),
    )


def _extent(occupied: np.ndarray) -> slice:
    """The occupied range and one more voxel on each side."""
    at = np.flatnonzero(occupied)
    return slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2)


def _height(grid: Grid, axis: int, index: int) -> float:
    """mm above the origin of the middle of a slice."""
    voxel = (np.array(grid.shape) - 1) / 2
    voxel[axis] = index
    return float(grid.affine[2, :3] @ voxel + grid.affine[2, 3])


def tiles(v: View, volume: np.ndarray) -> np.ndarray:
    """(S, H, W): the slices as shown, anterior up, the patient's right on the left."""
    from nibabel.orientations import apply_orientation

    shown = apply_orientation(volume, v.flips)[v.box[0], v.box[1]][:, :, list(v.slices)]
    return shown.transpose(2, 1, 0)[:, ::-1, ::-1]


def colour(values: np.ndarray, window: tuple[float, float], colormap: str, inside: np.ndarray) -> np.ndarray:
    """(…, 3) uint8; background where not `inside`."""
    from matplotlib import colormaps

    scaled = np.clip((np.nan_to_num(values) - window[0]) / max(window[1] - window[0], 1e-12), 0, 1)
    rgb = (colormaps[colormap](scaled)[..., :3] * 255).round().astype(np.uint8)
    return np.where(inside[..., None], rgb, np.array(BACKGROUND, np.uint8))


def status_colours(codes: list[int]) -> dict[int, str]:
    """A colour for every status code."""
    spare = iter(SPARE * (1 + len(codes) // len(SPARE)))
    return {code: PALETTE[code] if code in PALETTE else next(spare) for code in codes}


def mosaic(v: View, volume: np.ndarray, mask: np.ndarray, window: tuple[float, float], colormap: str, unit: str, title: str) -> Markup:
    """One map with its colour bar, as SVG. `window` is the display range in `unit`."""
    pixels = colour(tiles(v, volume), window, colormap, tiles(v, mask))
    body, height = _tiled(v, pixels)
    body += _colour_bar(height + 12, window, colormap, unit)
    return svg.picture(WIDTH, height + 46, body, f"{title}, axial slices, shown from {window[0]:g} to {window[1]:g} {unit}")


def label_mosaic(v: View, labels: np.ndarray, mask: np.ndarray, colours: dict[int, str], title: str) -> Markup:
    """A map of whole numbers, each in its colour, as SVG with the numbers below."""
    body, height = _tiled(v, coded(tiles(v, labels), colours, tiles(v, mask)))
    return svg.picture(WIDTH, height + 46, body + legend(colours, height + 14), f"{title}, axial slices")


def coded(codes: np.ndarray, colours: dict[int, str], inside: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 of whole numbers, each in its colour; background where not `inside`."""
    lut = np.tile(np.array((90, 90, 90), np.uint8), (256, 1))
    for code, hexa in colours.items():
        lut[code] = [int(hexa[i : i + 2], 16) for i in (1, 3, 5)]
    return np.where(inside[..., None], lut[codes], np.array(BACKGROUND, np.uint8))


def legend(colours: dict[int, str], y: float) -> str:
    """The numbers beside their colours."""
    out = ""
    for i, (code, hexa) in enumerate(colours.items()):
        out += f'<rect x="{16 + 44 * i}" y="{y:.1f}" width="11" height="11" rx="2" fill="{hexa}"/>'
        out += svg.text(32 + 44 * i, y + 10, str(code), fill="#c3cad4")
    return out


def _tiled(v: View, pixels: np.ndarray) -> tuple[str, float]:
    """Tiles (S, H, W, 3) side by side as one image, with slice heights and sides; and the height of it all."""
    count, h, w, _ = pixels.shape
    rows = -(-count // v.columns)
    sheet = np.full((rows * v.columns, h, w, 3), BACKGROUND, np.uint8)
    sheet[:count] = pixels
    sheet = sheet.reshape(rows, v.columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, v.columns * w, 3)
    width = WIDTH / max(v.columns, 2)
    height = width * h * v.spacing[1] / (w * v.spacing[0])
    body = _image(0, 0, v.columns * width, rows * height, sheet)
    for i, z in enumerate(v.heights):
        x, y = (i % v.columns) * width, (i // v.columns) * height
        body += svg.text(x + 4, y + height - 4, f"{z:.0f}".replace("-", "−"), fill="#8b95a5", size=9)
    if v.sides_known:
        body += svg.text(4, 13, "R", fill="#d5dbe3") + svg.text(width - 4, 13, "L", fill="#d5dbe3", anchor="end")
    return body, rows * height


def _image(x: float, y: float, width: float, height: float, pixels: np.ndarray) -> str:
    """Pixels stretched over a box, their edges kept sharp."""
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{svg.png_uri(pixels)}"/>'
    )


def _colour_bar(y: float, window: tuple[float, float], colormap: str, unit: str) -> str:
    """A horizontal scale with round numbers and the unit."""
    from matplotlib import colormaps

    ramp = (colormaps[colormap](np.linspace(0, 1, 256))[None, :, :3] * 255).round().astype(np.uint8)
    left, right = 16.0, WIDTH - 110
    out = _image(left, y, right - left, 9, ramp)
    for value in svg.ticks(*window):
        x = left + (value - window[0]) / max(window[1] - window[0], 1e-12) * (right - left)
        out += svg.line(x, y + 9, x, y + 13, stroke="#8b95a5") + svg.text(x, y + 25, svg.tick_label(value), fill="#c3cad4", anchor="middle")
    return out + svg.text(right + 10, y + 9, unit, fill="#c3cad4")


def locator(
    v: View, volume: np.ndarray, mask: np.ndarray, voxel: tuple[int, int, int], window: tuple[float, float], colormap: str
) -> Markup:
    """The axial slice through a voxel with a cross on it."""
    from nibabel.orientations import apply_orientation

    one = np.zeros(volume.shape, bool)
    one[voxel] = True
    i, j, k = (int(a[0]) for a in np.nonzero(apply_orientation(one, v.flips)))
    here = View(v.flips, v.box, (k,), (0.0,), 1, v.spacing, False)
    pixels = colour(tiles(here, volume), window, colormap, tiles(here, mask))[0]
    h, w, _ = pixels.shape
    width, height = 150.0, 150.0 * h * v.spacing[1] / (w * v.spacing[0])
    x = width - (i - v.box[0].start + 0.5) / w * width
    y = height - (j - v.box[1].start + 0.5) / h * height
    body = _image(0, 0, width, height, pixels)
    for a, b, c, d in ((x, 0, x, y - 7), (x, y + 7, x, height), (0, y, x - 7, y), (x + 7, y, width, y)):
        body += svg.line(a, b, c, d, stroke="#ffffff", width=0.8)
    return svg.picture(width, height, body, f"Where voxel {voxel} lies")


def percentile_window(values: np.ndarray, low: float = 2, high: float = 98, *, from_zero: bool = False) -> tuple[float, float]:
    """A display range from the data, at round numbers; (0, 1) where there are none."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    a, b = (float(x) for x in np.percentile(values, [low, high]))
    a = 0.0 if from_zero else a
    if not b > a:
        return a, a + max(abs(a), 1.0)
    step = 10 ** np.floor(np.log10(b - a)) / 4
    return float(np.floor(a / step) * step), float(np.ceil(b / step) * step)
