"""Write a heart fit: the mesh with its maps, volumes on a voxel grid, parameters."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import load
from ..files.grid import Grid
from ..files.mesh import Mesh
from ..files.movie import write_movie
from ..files.output import OutputFolder
from ..files.raster import check_overlap, grid_around, rasterise
from ..files.vtkmesh import encode
from .read import HeartData
from .result import HeartFit, NodeStatus

DEFAULT_SPACING = 1.0  # mm, of a mesh's volumes

OUTSIDE = 0.01  # of the nodes off the reference image, from which it is told


def save(fit: HeartFit, folder: OutputFolder, *, reference: str | None = None, spacing: float | None = None) -> list[Path]:
    """Everything but the report. Same fit, same bytes; what an earlier fit of this name left in the folder is removed first."""
    prefix = fit.data.prefix
    written: list[Path] = []
    for name in every_name(prefix):
        folder.remove(name)
    if fit.data.grid is None or fit.data.grid.shape[2] == 1:
        written.append(write_mesh(fit, folder))
    written += _volumes(fit, folder, reference, spacing)
    if fit.V is not None and fit.data.grid is not None and fit.data.times is not None:
        times, unit = np.asarray(fit.data.unit.from_tu(fit.data.times)), fit.data.unit.name
        step, start = float(np.diff(times).mean()), float(times[0])
        for name, movie in (("V", fit.V), ("W", fit.W)):
            if movie is not None:
                path = folder.path / f"{prefix}_desc-fit_{name}.nii.gz"
                frames = movie.reshape(*fit.data.grid.shape, -1)
                write_movie(path, frames, fit.data.grid, step, unit, start=start, Quantity=f"{name}, fitted, without unit")
                written.append(path)
    written.append(folder.write_json(f"{prefix}_parameters.json", parameters(fit)))
    return written


def every_name(prefix: str) -> list[str]:
    """All files that some fit may write: maps, movies, mesh, status, numbers, report."""
    volumes = [f"{kind}{key}" for key in ("D", "CV", "LAT") for kind in ("", "desc-std_")] + ["desc-fit_V", "desc-fit_W"]
    names = [f"{volume}{suffix}" for volume in volumes for suffix in (".nii.gz", ".json")]
    names += ["desc-status_dseg.nii.gz", "desc-status_dseg.tsv", "cardiac.vtp", "cardiac.vtu", "parameters.json", "report.html"]
    return [f"{prefix}_{name}" for name in names]


def check_volumes(data: HeartData, reference: str | None = None, spacing: float | None = None) -> tuple[str, ...]:
    """What the volumes of a mesh will lack, a sentence; InputError, before a fit is spent on it, where they could not be written."""
    if not (reference or spacing is not None):
        return ()
    if data.grid is not None:
        option = "--reference" if reference else "--spacing"
        raise InputError(option, "is for meshes: a movie's maps lie on the movie's own grid", found=data.source, fix="leave it out")
    outside = 1 - check_overlap(data.whole, _target(data, reference, spacing))
    if outside < OUTSIDE:
        return ()
    return (f"{100 * outside:.0f} % of the nodes lie outside the reference image: its volumes lack them, the mesh file has all",)


def write_mesh(fit: HeartFit, folder: OutputFolder) -> Path:
    """PREFIX_cardiac.vtp or .vtu: the input's nodes and cells in the input's order."""
    mesh = fit.data.whole
    suffix = ".vtp" if mesh.is_surface else ".vtu"
    arrays: dict[str, np.ndarray] = {}
    for key, one in fit.maps.items():
        arrays[key], arrays[f"{key}_std"] = one.value, one.std
    arrays["status"] = fit.status.astype(np.uint8)
    fields: dict[str, np.ndarray] = {}
    if fit.V is not None and fit.data.times is not None:
        arrays["V"] = fit.V.astype(np.float32)
        if fit.W is not None:
            arrays["W"] = fit.W.astype(np.float32)
        fields["times"] = fit.data.unit.from_tu(fit.data.times)
    out = Mesh(mesh.points, mesh.cells, arrays, {}, fields, mesh.fibres, mesh.space, mesh.source)
    name = f"{fit.data.prefix}_cardiac{suffix}"
    return folder.write_bytes(name, encode(out, name))


def _volumes(fit: HeartFit, folder: OutputFolder, reference: str | None, spacing: float | None) -> list[Path]:
    """A rectangle: on the movie's own grid. A mesh: on the reference image, or every `spacing` mm round it."""
    prefix, grid, written = fit.data.prefix, fit.data.grid, []
    shell: dict[str, Any] = {}
    if grid is None:
        target = _target(fit.data, reference, spacing)
        if fit.data.whole.is_surface:
            shell = {"ShellThickness": 2.0 * float(target.spacing.max()), "ShellThicknessUnit": "mm"}
    for key, one in fit.maps.items():
        for name, values in ((key, one.value), (f"desc-std_{key}", one.std)):
            data = values.reshape(grid.shape) if grid is not None else _raster(fit, values, target)
            on = grid if grid is not None else target
            written.append(folder.write_volume(f"{prefix}_{name}.nii.gz", data, on, description=f"pinn_engine {name}"))
            about = one.kind.title + (": standard deviation of the estimate" if name != key else "")
            about_file = {"Description": about, "Units": one.unit, "Space": "RAS+", **shell} | provenance(fit)
            written.append(folder.write_json(f"{prefix}_{name}.json", about_file))
    labels = fit.status.reshape(grid.shape) if grid is not None else _status_labels(fit, target)
    written.append(folder.write_volume(f"{prefix}_desc-status_dseg.nii.gz", labels, grid or target, labels=True))
    rows = [{"index": int(s), "name": s.name.lower(), "meaning": s.sentence} for s in NodeStatus]
    written.append(folder.write_tsv(f"{prefix}_desc-status_dseg.tsv", rows))
    return written


def _target(data: HeartData, reference: str | None, spacing: float | None) -> Grid:
    if reference:
        return load.read_grid(reference, what="reference image")
    return grid_around(data.whole, DEFAULT_SPACING if spacing is None else spacing, 2.0)


def _raster(fit: HeartFit, values: np.ndarray, grid: Grid) -> np.ndarray:
    shown = np.where(fit.status != NodeStatus.OUTSIDE, values, np.nan)
    return rasterise(replace(fit.data.whole, point_data={}), shown, grid)[0]


def _status_labels(fit: HeartFit, grid: Grid) -> np.ndarray:
    """(X, Y, Z) uint8: the status that weighs most in a voxel's cell."""
    mesh = replace(fit.data.whole, point_data={})
    codes = [s for s in NodeStatus if s and (fit.status == s).any()]
    shares = [rasterise(mesh, np.where(fit.status == NodeStatus.OUTSIDE, np.nan, fit.status == s), grid) for s in codes]
    largest = np.argmax(np.stack([share for share, _ in shares]), axis=0)
    return np.where(shares[0][1], np.array(codes, np.uint8)[largest], np.uint8(NodeStatus.OUTSIDE))


def provenance(fit: HeartFit) -> dict[str, Any]:
    return {"Sources": [fit.data.source], "Fit": fit.settings, "Version": __version__, "Notes": [*fit.data.notes, *fit.notes]}


def parameters(fit: HeartFit) -> dict[str, Any]:
    """The content of PREFIX_parameters.json."""
    status = {str(int(s)): {"meaning": s.sentence, "nodes": int((fit.status == s).sum())} for s in NodeStatus}
    return {
        "parameters": {name: {k: v for k, v in asdict(p).items() if v is not None} for name, p in fit.parameters.items()},
        "correlation": fit.correlation,
        "identifiability": fit.identifiability,
        "status": status,
        "time_unit": fit.data.unit.time,
        "convergence": fit.convergence,
        **provenance(fit),
    }


def quality(fit: HeartFit) -> dict[str, Any]:
    """One row of figures to compare hearts by: over the nodes that the report's and `parameters.json`'s median is taken over."""
    inside = fit.status != NodeStatus.OUTSIDE
    good = fit.usable
    row: dict[str, Any] = {"prefix": fit.data.prefix, "nodes": int(inside.sum()), "share_fitted": float(np.mean(fit.status[inside] == 1))}
    for key in ("D", "CV"):
        if key in fit.maps:
            low, middle, high = np.percentile(fit.maps[key].value[good], [5, 50, 95])
            row |= {f"{key}_median": float(middle), f"{key}_p05": float(low), f"{key}_p95": float(high), f"{key}_unit": fit.maps[key].unit}
    return row | {f"{name}_value": p.value for name, p in fit.parameters.items() if p.std > 0}
