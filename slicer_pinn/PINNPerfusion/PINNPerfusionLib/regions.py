"""A table of the maps over the segments of a segmentation, or the labels of a label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import slicer
from PINNCommonLib import nodes
from PINNCommonLib.explain import Problem

from .inputs import Image, read_image, segments_on_grid
from .mapspecs import SCALAR

UNFITTED = (0, 6, 7)  # status values of voxels that hold no estimate


def region_table(maps: Mapping[str, object], regions, node=None):
    """One row a region: voxels, share fitted, and of every map mean, standard error, median, quartiles.

    The standard error is sqrt(sum of variances)/n, as if voxels erred independently, and beside it that of voxels that err as one.
    """
    reference = maps["status"]
    grid = read_image(reference, "Status")
    labels, names = _labels(grid, regions)
    status = grid.array[0]
    fitted = ~np.isin(status, UNFITTED)
    columns: dict[str, list[object]] = {"Region": [], "Voxels": [], "Fitted": []}
    units: dict[str, str] = {}
    order = [label for label in sorted(names) if (labels == label).any()]
    if not order:
        raise Problem(f"{regions.GetName()} does not overlap the maps.")
    for label in order:
        inside = labels == label
        columns["Region"].append(names[label])
        columns["Voxels"].append(int(inside.sum()))
        columns["Fitted"].append(float((inside & fitted).sum() / inside.sum()))
    for spec in SCALAR.values():
        if spec.key not in maps or spec.key == "misfit" or maps[spec.key].GetVoxelValueUnits().GetCodeValue() != spec.ucum[0]:
            continue  # relative and absolute CBF share a role; the unit tells which this is
        values = read_image(maps[spec.key], spec.title).array[0]
        std = read_image(maps[f"{spec.key}_std"], spec.title).array[0] if f"{spec.key}_std" in maps else None
        for label in order:
            for statistic, number in _statistics(values, std, (labels == label) & fitted).items():
                column = f"{spec.key.upper()} {statistic}"
                columns.setdefault(column, []).append(number)
                units[column] = spec.unit
    node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    nodes.fill_table(node, columns, units)
    return node


def _statistics(values: np.ndarray, std: np.ndarray | None, used: np.ndarray) -> dict[str, float]:
    inside = values[used].astype(float)
    if not inside.size:
        return dict.fromkeys(("mean", "se", "se together", "median", "q1", "q3"), float("nan"))
    q1, median, q3 = np.percentile(inside, [25, 50, 75])
    errors = np.zeros(1) if std is None else std[used].astype(float)
    return {
        "mean": float(inside.mean()),
        "se": float(np.sqrt((errors**2).sum()) / inside.size),
        "se together": float(errors.mean()),
        "median": float(median),
        "q1": float(q1),
        "q3": float(q3),
    }


def _labels(grid: Image, regions) -> tuple[np.ndarray, dict[int, str]]:
    """(k, j, i) labels on the grid of the maps, and the names of the regions."""
    if regions.IsA("vtkMRMLSegmentationNode"):
        return segments_on_grid(grid, regions)
    volume = read_image(regions, "Regions")
    labels = np.rint(volume.array[0]).astype(int)
    if labels.shape != grid.array.shape[1:] or not np.allclose(volume.matrix, grid.matrix, atol=1e-2):
        raise Problem(f"{regions.GetName()} does not lie on the grid of the maps: import it as a segmentation, or resample it.")
    display = regions.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    found = {int(label) for label in np.unique(labels) if label > 0}
    return labels, {label: (colors.GetColorName(label) if colors is not None else "") or f"label {label}" for label in found}
