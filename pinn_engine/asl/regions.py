"""Regions that a user gives as a label image, and the mean, spread and standard error of every map in each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..files import bids
from ..files import load as images
from ..files.grid import Grid

if TYPE_CHECKING:
    from .result import ParameterMap, PerfusionFit

GREY, WHITE, FLUID = 1, 2, 3
MOST = 2000  # regions; the largest atlases in use have about 1000
TISSUES = {  # names of labels that are a tissue class, letters only
    GREY: {"gm", "greymatter", "graymatter", "leftcerebralcortex", "rightcerebralcortex"},
    WHITE: {"wm", "whitematter", "leftcerebralwhitematter", "rightcerebralwhitematter"},
    FLUID: {"csf", "cerebrospinalfluid"},
}


@dataclass(frozen=True)
class Regions:
    """`labels` (X, Y, Z) int64, 0 = no region; the `names` of those that have one; `source` the file's name."""

    labels: np.ndarray
    names: dict[int, str]
    source: str

    def name(self, label: int) -> str:
        return self.names.get(label, f"label {label}")

    def tissue(self) -> np.ndarray | None:
        """(X, Y, Z) uint8 GREY, WHITE or FLUID where the names say so; None where no grey or no white matter is named."""
        out = np.zeros(self.labels.shape, np.uint8)
        for label, name in self.names.items():
            for kind, known in TISSUES.items():
                if re.sub(r"[^a-z]", "", name.lower()) in known:
                    out[self.labels == label] = kind
        return out if (out == GREY).any() and (out == WHITE).any() else None


def read_regions(path: str | PathLike[str], grid: Grid, names: str | PathLike[str] | None = None) -> Regions:
    """A label image on the series' grid; names from `names` (a table), or from the .tsv of the same name beside it where there is one."""
    data, found = images.read(path, ndim=(3,), what="label image")
    if not grid.matches(found):
        wanted = " x ".join(map(str, grid.shape))
        problem = f"the label image must be on the grid of the ASL series ({wanted})"
        raise InputError(path, problem, found=grid.difference(found), fix="resample it, nearest neighbour")
    if not np.isfinite(data).all() or np.any(data != np.round(data)) or data.min() < 0 or data.max() >= 2**24:
        wrong = data[~(np.isfinite(data) & (data >= 0) & (data == np.round(data)) & (data < 2**24))]
        raise InputError(path, "labels must be whole numbers from 0 up", found=f"{wrong.flat[0]:g}", fix="give a label image, not a map")
    count = len(np.unique(data)) - 1
    if count > MOST:
        raise InputError(path, "a label image has regions", found=f"{count} different values", fix="give a label image, not a picture")
    beside = Path(path).with_name(bids.stem(path) + ".tsv")
    table = names if names is not None else beside if beside.is_file() else None
    return Regions(data.astype(np.int64), {} if table is None else read_names(table), Path(path).name)


def read_names(path: str | PathLike[str]) -> dict[int, str]:
    """Label names from a BIDS table (columns index and name) or a colour table (`index name R G B A`, as FreeSurfer writes)."""
    lines = [line for line in bids.read_text(path).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    head = [cell.strip().lower() for cell in lines[0].split("\t")] if lines else []
    fix = "give a table with columns index and name, or a colour table: index name R G B A"
    rows: list[tuple[str, str]] = []
    if "index" in head and "name" in head:
        cells = [line.split("\t") for line in lines[1:]]
        rows = [(row[head.index("index")], row[head.index("name")]) for row in cells if len(row) >= len(head)]
    else:
        rows = [(words[0], words[1]) for line in lines if len(words := line.split()) >= 2]
    if not rows or not all(re.fullmatch(r"\s*\d+\s*", index) for index, _ in rows):
        raise InputError(path, "no label names can be read from it", found=(lines[0][:60] if lines else "an empty file"), fix=fix)
    return {int(index): " ".join(name.split()) for index, name in rows}


def region_table(fit: PerfusionFit) -> tuple[tuple[str, ...], list[dict[str, object]]]:
    """Columns and one row a region: fitted voxels, their share of the region, and of each map mean, median, sd and standard error.

    The standard error is that of the mean if voxels erred independently, sqrt(sum of std^2) / n; `…_se_together` if they erred together,
    the mean std: the truth lies between, and neither knows of errors of the constants.
    """
    regions = fit.scan.regions
    measures = [f"{name}_{what}" for name in fit.maps for what in ("mean", "median", "sd", "se", "se_together")]
    columns = ("index", "name", "voxels", "share_fitted", *measures)
    if regions is None:
        return columns, []
    fitted = fit.scan.mask & (fit.maps["cbf"].std > 0)
    rows = []
    for label in np.unique(regions.labels[regions.labels > 0]).tolist():
        inside = regions.labels == label
        used = inside & fitted
        row: dict[str, object] = {"index": label, "name": regions.name(label), "voxels": int(used.sum())}
        row["share_fitted"] = float(used.sum() / inside.sum())
        for name, one in fit.maps.items():
            row |= {f"{name}_{what}": value for what, value in summary(one, used).items()}
        rows.append(row)
    return columns, rows


def summary(one: ParameterMap, used: np.ndarray) -> dict[str, float | None]:
    """Mean, median, sd and standard errors of a map over the voxels `used`; None where there are none."""
    value, std = (array[used].astype(float) for array in (one.value, one.std))
    if not value.size:
        return dict.fromkeys(("mean", "median", "sd", "se", "se_together"))
    return {
        "mean": float(value.mean()),
        "median": float(np.median(value)),
        "sd": float(value.std(ddof=1)) if value.size > 1 else None,
        "se": float(np.sqrt(np.sum(std**2)) / value.size),
        "se_together": float(std.mean()),
    }
