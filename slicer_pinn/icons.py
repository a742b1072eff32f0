"""Draw the icons of the extension from our own phantom: `python slicer_pinn/icons.py`, in an environment with pinn_engine."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch

from pinn_engine.asl.phantom import make

HERE = Path(__file__).parent
NIGHT, PAPER = "#14202b", "#f6f3ee"


def faded(name: str) -> ListedColormap:
    """A colour map whose lowest values are transparent."""
    colors = matplotlib.colormaps[name](np.linspace(0.12, 1, 256))
    colors[:8, 3] = np.linspace(0, 1, 8)
    return ListedColormap(colors)


def canvas(width: int, height: int) -> tuple[plt.Figure, plt.Axes]:
    figure = plt.figure(figsize=(width / 64, height / 64), dpi=64)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    axes.set_autoscale_on(False)
    return figure, axes


def tile(axes: plt.Axes, size: int) -> None:
    axes.add_patch(FancyBboxPatch((10, 10), size - 20, size - 20, boxstyle="round,pad=6,rounding_size=16", fc=NIGHT, ec="none"))


def slice_of(cbf: np.ndarray) -> np.ndarray:
    """The middle axial slice, front up."""
    return np.rot90(cbf[:, :, int(cbf.shape[2] * 0.52)])


def curve(axes: plt.Axes, left: float, right: float, bottom: float, top: float) -> None:
    """The signal of one voxel: rises with the label, decays, with dots where it is measured."""
    t = np.linspace(0, 4, 200)
    rise = np.clip(t - 0.9, 0, 1.6)
    signal = rise * np.exp(-np.clip(t - 0.9, 0, None) / 1.3)
    signal /= signal.max()
    x, y = left + (right - left) * t / 4, bottom + (top - bottom) * signal
    axes.fill_between(x, y - 5, y + 5, color=PAPER, alpha=0.28, lw=0, zorder=3)
    axes.plot(x, y, color=PAPER, lw=3.2, solid_capstyle="round", zorder=4)
    dots = np.array([38, 62, 92, 124, 160])
    axes.plot(x[dots], y[dots], "o", color="#ff9e3d", ms=6.5, mec=NIGHT, mew=1, zorder=5)


def main() -> None:
    cbf = slice_of(make((70, 86, 56), 2.0, 3, snr=None, lesions=False).cbf)
    show = {"cmap": faded("inferno"), "vmin": 4, "vmax": 85, "interpolation": "bilinear", "zorder": 2}

    figure, axes = canvas(128, 128)
    tile(axes, 128)
    axes.imshow(cbf, extent=(20, 108, 10, 118), aspect="auto", **show)
    figure.savefig(HERE / "PINNPerfusion" / "Resources" / "Icons" / "PINNPerfusion.png", transparent=True)

    figure, axes = canvas(128, 128)
    tile(axes, 128)
    axes.imshow(cbf, extent=(26, 102, 34, 122), aspect="auto", **show)
    curve(axes, 14, 114, 14, 50)
    figure.savefig(HERE / "PINN.png", transparent=True)

    figure, axes = canvas(260, 280)
    axes.add_patch(plt.Rectangle((0, 0), 260, 280, color=NIGHT))
    axes.imshow(cbf, extent=(30, 230, 26, 272), aspect="auto", **show)
    axes.text(130, 12, "ASL phantom", color=PAPER, ha="center", va="center", fontsize=13)
    figure.savefig(HERE / "PINNPerfusion" / "Resources" / "Icons" / "ASLPhantom.png")


if __name__ == "__main__":
    main()
