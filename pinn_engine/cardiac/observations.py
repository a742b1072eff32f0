"""What was measured on a heart mesh: activation times, or V in frames; found by name, invalid values made NaN, absurd ones refused."""

from __future__ import annotations

import re

import numpy as np

from ..errors import InputError
from ..files.mesh import Mesh
from .units import TimeUnit

INVALID = -9999.0  # CARTO writes -10000 where there is no value
LAT_NAMES = ("LAT", "activation_time", "activation_times", "activation", "LAT_ms")
MIN_LATS = 10
MARKS = 5  # nodes of one value far from all others, from which it is no activation time


def activation(mesh: Mesh, name: str | None = None, unit: TimeUnit | None = None) -> np.ndarray:
    """(N,) activation times in TU, NaN = not observed, from point data `name` (default: LAT or another usual name, capitals or not)."""
    unit = unit or TimeUnit("ms")
    taken = activation_name(mesh, name)
    names = (taken or name or LAT_NAMES[0],)
    if taken is None and name is None:
        _no_measured_points(mesh)
    values = mesh.find(names[0])
    if values is None:
        raise InputError(
            mesh.source,
            f"has no point data called {names[0]}",
            found=_listed(mesh),
            fix="name the array that holds the activation times with --array"
            if mesh.point_data
            else "give activation times on the points (openCARP: NAME.LAT.dat beside it; an .stl can hold none, a .vtp or .ply can)",
        )
    if values.ndim != 1:
        raise InputError(
            mesh.source, f"{names[0]} is not one number per node", found=f"shape {values.shape}", fix="give one activation time per node"
        )
    times = values.astype(float)
    times[~np.isfinite(times) | (times <= INVALID)] = np.nan
    seen = int(np.isfinite(times).sum())
    if seen == 0:
        raise InputError(
            mesh.source,
            f"no node has a valid {names[0]}",
            found=f"{len(times)} nodes, all NaN or -10000",
            fix="export the map with its activation times",
        )
    if seen < MIN_LATS:
        raise InputError(
            mesh.source, f"too few nodes have a {names[0]}", found=seen, fix=f"at least {MIN_LATS} are needed, some hundreds for a map"
        )
    if np.nanmax(times) == np.nanmin(times):
        raise InputError(
            mesh.source, f"every {names[0]} is the same", found=f"{np.nanmin(times):g}", fix="is it the activation map that was exported?"
        )
    _no_mark(mesh, names[0], times, unit)
    return unit.to_tu(times)


def activation_name(mesh: Mesh, name: str | None = None) -> str | None:
    """The point data that `activation` takes, as the file spells it."""
    here = {key.lower(): key for key in mesh.point_data}
    return next((here[n.lower()] for n in ((name,) if name else LAT_NAMES) if n.lower() in here), None)


def other_activations(mesh: Mesh, taken: str) -> list[str]:
    """Further point data that by their names are activation times, one number a node."""
    words = ("activation", "lat_", "lat")
    return [k for k, v in mesh.point_data.items() if k != taken and v.ndim == 1 and k.lower().startswith(words)]


def _no_mark(mesh: Mesh, name: str, times: np.ndarray, unit: TimeUnit) -> None:
    """Raises InputError where several nodes hold one and the same value, farther from all others than those from each other: 9999, 0, -1.

    Taken for times such marks make a wave out of the borders of what was not measured.
    """
    seen = times[np.isfinite(times)]
    for mark in (seen.max(), seen.min()):
        rest = seen[seen != mark]
        if len(seen) - len(rest) >= MARKS and len(rest) and np.abs(rest - mark).min() > np.ptp(rest):
            found = f"{mark:g} at {len(seen) - len(rest)} nodes, all others from {rest.min():g} to {rest.max():g} {unit.time}"
            fix = f"give NaN there (values of {INVALID:g} and less count as missing too)"
            raise InputError(mesh.source, f"{name} holds what looks like a mark for missing", found=found, fix=fix)


def _no_measured_points(mesh: Mesh) -> None:
    """Raises InputError where the activation times should stand in the file of the measured points (CARTO), and do not."""
    if mesh.missing:
        fix = "put it there (the measured points and their LAT are in it), or export the map with its LAT colours"
        raise InputError(mesh.source, f"{mesh.missing} was expected beside it and is not there", found=_listed(mesh), fix=fix)
    if (LAT := mesh.field_data.get("measured_LAT")) is not None:
        found = f"{int(np.isfinite(LAT).sum())} of {len(LAT)} measured points, and no LAT on the surface"
        fix = f"at least {MIN_LATS} are needed: give another map of the export"
        raise InputError(mesh.source, "has too few measured activation times", found=found, fix=fix)


def measured(mesh: Mesh, unit: TimeUnit | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions (P, 3) mm and activation times (P,) TU of the points a mapping system measured (CARTO); None: fewer than MIN_LATS."""
    unit = unit or TimeUnit("ms")
    place, LAT = (mesh.field_data.get(f"measured_{name}") for name in ("position", "LAT"))
    if place is None or LAT is None:
        return None
    valid = np.isfinite(LAT) & np.isfinite(place).all(axis=1)
    if valid.sum() < MIN_LATS or np.ptp(LAT[valid]) == 0:
        return None
    return place[valid], unit.to_tu(LAT[valid].astype(float))


def voltage(mesh: Mesh, times: np.ndarray | None = None, unit: TimeUnit | None = None, name: str = "V") -> tuple[np.ndarray, np.ndarray]:
    """V (N, F), NaN = not observed, and the frames' times (F,) in TU.

    V is one array (N, F) or one a frame (V_0, V_1, ... by number). Times (in `unit`): as given, else field data "times".
    """
    unit = unit or TimeUnit("ms")
    V = mesh.find(name)
    if V is None:
        pattern = re.compile(rf"{re.escape(name)}[_ ]?(\d+)$", re.IGNORECASE)
        numbered = sorted((int(m[1]), key) for key in mesh.point_data if (m := pattern.match(key)))
        if not numbered:
            raise InputError(
                mesh.source,
                f"has no point data called {name}",
                found=_listed(mesh),
                fix=f"give {name} as (nodes, frames) or {name}_0, {name}_1 …",
            )
        V = np.stack([mesh.point_data[key] for _, key in numbered], axis=1)
    V = np.where(np.isfinite(V) & (V > INVALID), V, np.nan).astype(float)
    if V.ndim != 2 or V.shape[1] < 2:
        raise InputError(
            mesh.source, f"{name} has one frame only", found=f"shape {V.shape}", fix="give at least two frames, or activation times as LAT"
        )
    if not np.isfinite(V).any():
        raise InputError(mesh.source, f"{name} has no valid value", found="NaN everywhere", fix="export it again")
    if times is None:
        times = next((array for key, array in mesh.field_data.items() if key.lower() in ("times", "time", "timevalue")), None)
    if times is None:
        raise InputError(mesh.source, "the frames have no times", fix="give --times FILE, or field data called times")
    times = np.asarray(times, float).ravel()
    if len(times) != V.shape[1]:
        raise InputError(
            mesh.source, "there are not as many times as frames", found=f"{len(times)} for {V.shape[1]}", fix="give one time per frame"
        )
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise InputError(mesh.source, "the frames' times do not increase", fix="put the frames in order")
    return V, unit.to_tu(times)


def _listed(mesh: Mesh) -> str:
    return ", ".join(mesh.point_data) or "no point data at all"
