"""One picture of a fitted phantom: truth, estimate and standard deviation of every map in a middle slice."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from ..asl.result import PerfusionFit


def overview(fit: PerfusionFit, truth: Mapping[str, np.ndarray]) -> bytes:
    """A PNG; one row a map that has a truth, columns truth, fit, standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in fit.maps if name in truth]
    mask = fit.scan.mask
    z = int(np.argmax(mask.sum(axis=(0, 1))))
    where = np.nonzero(mask[:, :, z])
    crop = tuple(slice(max(w.min() - 1, 0), w.max() + 2) for w in where)
    spacing = fit.scan.grid.spacing
    figure = Figure(figsize=(8.4, 3.1 * len(names)), dpi=120, layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(names), 3))
    for row, name in enumerate(names):
        one = fit.maps[name]
        low, high = one.kind.window or (0.0, float(np.percentile(one.value[mask], 98)))
        panels = [("truth", truth[name], one.kind.colormap, low, high), ("fit", one.value, one.kind.colormap, low, high)]
        widest = float(np.clip(np.percentile(one.std[mask], 98), 0.05 * (high - low), 0.4 * (high - low)))
        panels.append(("standard deviation", one.std, "bone", 0.0, widest))
        for axis, (title, volume, colormap, bottom, top) in zip(axes[row], panels, strict=True):
            shown = np.where(mask[..., z], volume[..., z], np.nan)[crop].T
            picture = axis.imshow(shown, origin="lower", cmap=colormap, vmin=bottom, vmax=top, aspect=spacing[1] / spacing[0])
            axis.set_title(f"{one.kind.symbol}, {title}", fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            bar = figure.colorbar(picture, ax=axis, shrink=0.8)
            bar.ax.tick_params(labelsize=8)
            bar.set_label(one.kind.unit, fontsize=8)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
