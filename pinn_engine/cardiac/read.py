"""What was measured, on which tissue: a movie on a rectangle, or a mesh with activation times or V, made ready for a fit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import mesh as meshes
from ..files.grid import Grid
from ..files.mesh import Mesh
from ..files.meshcheck import Clean, check, clean, components, many
from ..files.movie import Movie, read_movie
from ..files.raster import nearest
from .mapfit import Samples
from .observations import MIN_LATS, activation, activation_name, measured, other_activations, voltage
from .shapes import grid_mesh
from .units import TimeUnit

FIT_NODES = 3000  # a rectangle is fitted on a grid of at most about this many nodes: T and log D are smooth where V is not
MIN_SAMPLES = 200
LEAST_FRAMES = 5
NOT_OF_A_MOVIE = {
    "--times": "its frames follow each other at the header's time step (pixdim[4]): correct that, or give uneven frames as a mesh with V",
    "--array": "leave it out: V is what the movie holds",
}
FAR = 8.0  # mm: a measured point farther from the surface was not taken on it


@dataclass(frozen=True, repr=False)
class HeartData:
    """One heart. `whole`: the input's mesh (for a movie: its voxels' centres); `mesh`: what is fitted (N' nodes).

    `to_input` (N, N') sparse: values on `mesh` -> on the input's nodes, rows of zeros where there is no value (`inside` False).
    `LAT` (N,) TU or `V` (N, F) with `times` (F,) TU on the input's nodes, NaN = not observed. `grid`: a movie's own.
    `points`: measured activation times (P,) TU between the nodes and their places (P, N') sparse, where the file has them: then these are
    the data, not `LAT`. `array`: the name of the point data that were taken.
    """

    whole: Mesh
    mesh: Mesh
    to_input: Any
    inside: np.ndarray
    unit: TimeUnit
    LAT: np.ndarray | None = None
    V: np.ndarray | None = None
    times: np.ndarray | None = None
    grid: Grid | None = None
    source: str = "heart"
    prefix: str = "heart"
    notes: tuple[str, ...] = field(default_factory=tuple)
    points: tuple[np.ndarray, Any] | None = None
    array: str = ""

    def __repr__(self) -> str:
        """One line in place of a thousand of numbers."""
        what = "activation times" if self.LAT is not None else "V"
        return f"<HeartData {self.source}: {what} on {len(self.whole.points):,} nodes, {self.unit.time}>"

    def back(self, values: np.ndarray) -> np.ndarray:
        """(N', ...) -> (N, ...), 0 outside."""
        return self.to_input @ values

    def back_log(self, logs: np.ndarray) -> np.ndarray:
        """The same of exp(logs), as D is interpolated in the equation too: between nodes of .1 and .02 it is .045, not .06."""
        return (np.exp(self.back(logs)).T * self.inside).T

    def samples(self, sd: float) -> Samples:
        """Every observation on tissue that is fitted, placed on the fitted mesh."""
        place = self.to_input.tocsr()
        if self.points is not None:
            values, place = self.points
            nodes, time = np.arange(len(values)), None
        elif self.LAT is not None:
            nodes = np.flatnonzero(np.isfinite(self.LAT) & self.inside)
            values, time = self.LAT[nodes], None
        else:
            assert self.V is not None
            assert self.times is not None
            nodes, frame = np.nonzero(np.isfinite(self.V) & self.inside[:, None])
            values, time = self.V[nodes, frame], torch.from_numpy(self.times[frame])
        picked = place[nodes].tocoo()
        row, column = torch.from_numpy(picked.row.astype(np.int64)), torch.from_numpy(picked.col.astype(np.int64))
        value = torch.from_numpy(np.ascontiguousarray(values, dtype=float))
        return Samples(row, column, torch.from_numpy(picked.data), value, torch.full_like(value, sd), time)


def read(
    path: str | Path,
    *,
    time_unit: str = "ms",
    times: str | Path | None = None,
    array: str | None = None,
    window: tuple[float, float] | None = None,
) -> HeartData:
    """Read a movie (4-D NIfTI) or a mesh with point data LAT or V. `times`: a text file of the frames' times; `array`: the data's name.

    `window`: first and last time, in `time_unit`, of the frames of V that are used.
    """
    data = _read(Path(path), time_unit, times, array)
    return data if window is None else within(data, *window)


def within(data: HeartData, begin: float, end: float) -> HeartData:
    """Its frames from `begin` to `end`, in its own unit of time."""
    if data.V is None or data.times is None:
        raise InputError("--window", "is for records of V", found=f"activation times in {data.source}", fix="leave it out")
    unit = data.unit
    nearly = 0.01 * float(np.median(np.diff(data.times)))  # headers hold the step as float32
    kept = (data.times >= unit.to_tu(begin) - nearly) & (data.times <= unit.to_tu(end) + nearly)
    if kept.sum() < LEAST_FRAMES:
        first, last = (float(unit.from_tu(t)) for t in data.times[[0, -1]])
        fix = f"the record goes from {first:g} to {last:g} {unit.time}, {len(kept)} frames; {LEAST_FRAMES} at least are needed"
        raise InputError("--window", "holds too few frames", found=f"{int(kept.sum())} from {begin:g} to {end:g}", fix=fix)
    return replace(data, V=data.V[:, kept], times=data.times[kept])


def _read(path: Path, time_unit: str, times: str | Path | None, array: str | None) -> HeartData:
    unit = TimeUnit(time_unit)  # type: ignore[arg-type]
    if path.name.lower().endswith((".nii", ".nii.gz")):
        for option, value in (("--times", times), ("--array", array)):
            if value is not None:
                raise InputError(option, "is for meshes, this is a movie", found=path.name, fix=NOT_OF_A_MOVIE[option])
        return from_movie(path, unit)
    mesh = meshes.read(path)
    prefix = path.name.removesuffix(path.suffix)
    given = _times(times) if times is not None else None
    wants_V = (array or "").lower() == "v" or (array is None and given is not None) or (_has_V(mesh) and not _has_LAT(mesh))
    if wants_V:
        V, frames = voltage(mesh, given, unit, array or "V")
        check_voltage(V, mesh.source)
        return replace(from_mesh(mesh, unit, prefix=prefix, V=V, times=frames), array=array or "V")
    if array is None and (found := measured(mesh, unit)) is not None:
        return from_points(mesh, unit, *found, prefix=prefix)
    LAT = activation(mesh, array, unit)
    taken = activation_name(mesh, array) or ""
    data = replace(from_mesh(mesh, unit, prefix=prefix, LAT=LAT), array=taken)
    if array is None and (others := other_activations(mesh, taken)):
        said = f"the activation times are the point data {taken}; there are also {', '.join(others)}: --array takes another"
        data = replace(data, notes=(said, *data.notes))
    return data


def _has_V(mesh: Mesh) -> bool:
    return mesh.find("V") is not None or mesh.find("V_0") is not None or mesh.find("V0") is not None


def _has_LAT(mesh: Mesh) -> bool:
    from .observations import LAT_NAMES

    return any(mesh.find(name) is not None for name in LAT_NAMES)


def from_mesh(
    mesh: Mesh, unit: TimeUnit, *, prefix: str = "heart", LAT: np.ndarray | None = None, V: np.ndarray | None = None, times: Any = None
) -> HeartData:
    """Pieces of the mesh with too few observations are left out, and said so."""
    from scipy.sparse import csr_matrix

    tidy = clean(mesh)
    seen = tidy.forth(LAT if LAT is not None else np.where(np.isfinite(V).any(axis=1), 1.0, np.nan))  # type: ignore[arg-type]
    small, kept = _observed_pieces(tidy, np.isfinite(seen))
    notes = [*check(replace(mesh, point_data={})), *_left_out(kept)]
    place = np.full(len(tidy.mesh.points), -1)
    place[kept] = np.arange(kept.sum())
    node = np.where(tidy.node >= 0, place[tidy.node], -1)
    inside = node >= 0
    to_input = csr_matrix((np.ones(inside.sum()), (np.flatnonzero(inside), node[inside])), shape=(len(node), int(kept.sum())))
    return HeartData(mesh, small, to_input, inside, unit, LAT, V, times, None, mesh.source, prefix, tuple(notes))


def from_points(mesh: Mesh, unit: TimeUnit, position: np.ndarray, LAT: np.ndarray, *, prefix: str = "heart") -> HeartData:
    """Activation times (P,) TU measured at `position` (P, 3) mm, laid on the nearest triangle; the mesh's own LAT is not used."""
    cell, weight, distance = nearest(mesh, position)
    near = distance <= FAR
    on = np.full(len(mesh.points), np.nan)
    on[mesh.cells[cell[near]]] = 0.0  # which pieces of the mesh are observed
    data = from_mesh(mesh, unit, prefix=prefix, LAT=on)
    from scipy.sparse import csr_matrix

    row = np.repeat(np.arange(int(near.sum())), mesh.cells.shape[1])
    place = csr_matrix((weight[near].ravel(), (row, mesh.cells[cell[near]].ravel())), shape=(int(near.sum()), len(mesh.points)))
    place = place @ data.to_input
    kept = np.asarray(place.sum(axis=1)).ravel() > 0.999
    if kept.sum() < MIN_LATS:
        fix = f"at least {MIN_LATS} within {FAR:g} mm of the mesh are needed, some hundreds for a map"
        raise InputError(mesh.source, "too few measured activation times on the mesh", found=int(kept.sum()), fix=fix)
    notes = [f"the {int(kept.sum())} measured points are fitted, not the activation times that the mapping system interpolated on the mesh"]
    lost = len(LAT) - int(kept.sum())
    if lost:
        lie = many(lost, "measured point lies", "measured points lie")
        notes.append(f"{lie} more than {FAR:g} mm from the mesh (or on pieces left out): not used")
    return replace(data, points=(LAT[near][kept], place[kept]), notes=(*data.notes, *notes))


def _observed_pieces(tidy: Clean, seen: np.ndarray) -> tuple[Mesh, np.ndarray]:
    """The part of the mesh that is fitted, and which nodes (N',) bool it keeps."""
    piece = components(tidy.mesh)
    count = np.bincount(piece, weights=seen)
    kept = count[piece] >= MIN_LATS
    if not kept.any():
        fix = f"at least {MIN_LATS} on one connected piece are needed, some hundreds for a map"
        raise InputError(tidy.mesh.source, "too few nodes with an observation on any piece of the mesh", found=int(count.max()), fix=fix)
    if kept.all():
        return tidy.mesh, kept
    place = np.cumsum(kept) - 1
    cells = kept[tidy.mesh.cells].all(axis=1)
    fibres = None if tidy.mesh.fibres is None else tidy.mesh.fibres[cells]
    m = tidy.mesh
    return Mesh(m.points[kept], place[m.cells[cells]], fibres=fibres, space=m.space, source=m.source), kept


def _left_out(kept: np.ndarray) -> list[str]:
    lost = int((~kept).sum())
    stand = many(lost, "node stands", "nodes stand")
    return [f"{stand} on pieces with fewer than {MIN_LATS} observations: nothing is fitted there"] if lost else []


def from_movie(path: Path, unit: TimeUnit) -> HeartData:
    """The movie in a file."""
    prefix = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_movie")
    return movie_data(read_movie(path), unit, path, prefix)


def movie_data(movie: Movie, unit: TimeUnit, path: str | Path = "movie", prefix: str = "heart") -> HeartData:
    """A rectangle or a box: voxels' centres are the tissue; fitted on a coarser grid where the movie is fine. `path` is named in errors."""
    if movie.unit and movie.unit != unit.name:
        raise InputError(path, f"its frames are in {movie.unit}", found=f"--time-unit {unit.name}", fix=f"give --time-unit {movie.unit}")
    shape = movie.grid.shape
    if min(shape[:2]) < 5:
        raise InputError(path, "is too narrow for a wave", found=" x ".join(map(str, shape)), fix="give a plane or a box, x and y first")
    V = movie.V.reshape(-1, movie.V.shape[3]).astype(float)
    V[~np.isfinite(V)] = np.nan
    check_voltage(V, movie.source)
    observed = int(np.isfinite(V).sum())
    if observed < MIN_SAMPLES:
        raise InputError(path, "has too few observed values", found=observed, fix=f"at least {MIN_SAMPLES} are needed, thousands for a map")
    whole, mesh, to_input = grids(shape, movie.grid.spacing)
    inside = np.ones(len(whole.points), bool)
    notes = [] if len(mesh.points) == len(whole.points) else [f"fitted on {len(mesh.points):,} nodes, interpolated to the movie's voxels"]
    times = unit.to_tu(movie.times)
    return HeartData(whole, mesh, to_input, inside, unit, None, V, times, movie.grid, movie.source, prefix, tuple(notes))


def grids(shape: tuple[int, int, int], spacing: np.ndarray, limit: int = FIT_NODES) -> tuple[Mesh, Mesh, Any]:
    """The voxels' mesh, the fit's mesh on the same tissue, and the (tri)linear interpolation from the second to the first."""
    from scipy.sparse import csr_matrix

    thick = 3 if shape[2] > 1 else 2
    factor = max(1.0, (float(np.prod(shape)) / limit) ** (1.0 / thick))
    counts = tuple(max(2, int(np.ceil((n - 1) / factor)) + 1) if axis < thick else 1 for axis, n in enumerate(shape))
    if all(c >= n for c, n in zip(counts, shape, strict=True)):
        counts = shape
    step = np.array([(n - 1) / max(c - 1, 1) if c > 1 else 1.0 for n, c in zip(shape, counts, strict=True)]) * spacing
    whole = replace(grid_mesh(shape, 1.0)[0], source="movie")
    coarse = replace(grid_mesh(counts, 1.0)[0], source="movie")
    index = whole.points * spacing / step
    weights = csr_matrix(np.ones((1, 1)))
    low = np.minimum(np.floor(index + 1e-9).astype(int), np.maximum(np.array(counts) - 2, 0))
    rest = index - low
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2 if thick == 3 else 1):
        at = low + corner
        weight = np.prod(np.where(np.array(corner) == 1, rest, 1.0 - rest)[:, :thick], axis=1)
        use = weight > 1e-9
        rows.append(np.flatnonzero(use))
        columns.append(np.ravel_multi_index(tuple(np.minimum(at[use], np.array(counts) - 1).T), counts))
        values.append(weight[use])
    weights = csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(whole.points), len(coarse.points))
    )
    return replace(whole, points=whole.points * spacing), replace(coarse, points=coarse.points * step), weights


def check_voltage(V: np.ndarray, source: str) -> None:
    """V without unit lies about between 0 and 1."""
    low, high = np.nanpercentile(V, [2, 98])
    if low < -2.0 or high > 3.0 or high - low < 0.05:
        fix = "give V scaled to 0 at rest and 1 at the peak (V = (mV + 80) / 100)"
        raise InputError(source, "V does not look like an action potential", found=f"values from {low:.3g} to {high:.3g}", fix=fix)


def _times(path: str | Path) -> np.ndarray:
    try:
        values = np.loadtxt(path, ndmin=1).ravel()
    except (OSError, ValueError) as fault:
        raise InputError(path, "is not a list of times", found=str(fault)[:80], fix="give one number per line") from None
    return values
