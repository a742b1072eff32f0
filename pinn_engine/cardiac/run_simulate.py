"""`pinn-engine cardiac simulate`: a mesh or a rectangle in; movie, activation times and the truth out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import __version__
from ..device import resolve_device
from ..errors import InputError, check_seed
from ..files import mesh as meshes
from ..files.grid import Grid
from ..files.mesh import Mesh
from ..files.meshcheck import Clean, check, clean
from ..files.movie import write_movie
from ..files.output import OutputFolder
from ..files.vtkmesh import write
from . import phantom, protocols, shapes
from .fem import Diffusion
from .model import AlievPanfilov, parse_parameters
from .simulate import MAX_STEP, Simulation, Start, simulate
from .units import TimeUnit

Protocol = Literal["planar", "point", "paced", "spiral", "reentry", "breakup"]
DEFAULT_D = {True: 0.1, False: 15.6}  # mm^2/TU: on a rectangle the published phantom's, on a heart what makes 0.6 m/s
FRAME_STEP = {"ms": 10.0, "tu": 1.0}
BEATS = 2


def simulate_to(
    out: str | Path,
    mesh_file: str | Path | None = None,
    *,
    rectangle: tuple[float, ...] | None = None,
    spacing: float = 0.1,
    duration: float,
    time_unit: Literal["ms", "tu"] = "ms",
    D: float | None = None,
    across: float | None = None,
    tissue: Literal["even", "scar", "hard"] = "even",
    parameters: tuple[str, ...] = (),
    protocol: Protocol = "planar",
    at: tuple[float, float, float] | None = None,
    period: float | None = None,
    beats: int = BEATS,
    frame_step: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Path]:
    """Run the model and write simulation_movie.nii.gz (rectangle) or simulation.vtu (mesh), simulation_LAT.*, simulation_truth.json.

    `duration`, `frame_step` (default 10 ms or 1 TU), `period`, `D` and `across` (mm^2 per unit) in `time_unit`; `at`: mm, where a point
    wave or paced beats start; `period` (default 1.2 action potentials) and `beats`: of paced tissue.
    Returns the files by what they hold. What is odd about a mesh stands in the truth's "notes"; in LAT volumes 0 also means "never".
    """
    if (mesh_file is None) == (rectangle is None):
        raise InputError("cardiac simulate", "give either a mesh or --rectangle", found="both" if rectangle else "neither")
    device = resolve_device(device, "cardiac simulate")
    check_seed("cardiac simulate", seed)
    if at is not None and not (len(at) == 3 and np.isfinite(at).all()):
        raise InputError("--at", "is not a place", found=",".join(f"{x:g}" for x in at), fix="give x,y,z in mm")
    unit = TimeUnit(time_unit)
    model = parse_parameters(parameters)
    tidy, grid, notes = _tissue(mesh_file, rectangle, spacing)
    level = DEFAULT_D[rectangle is not None] if D is None else float(unit.rate_to_tu(D))
    if not 0 < level < np.inf:
        raise InputError("--D", "must be positive", found=D, fix=f"give it in {unit.diffusivity}")
    if across is not None and not 0 < across < np.inf:
        raise InputError("--across", "must be positive", found=across, fix=f"give it in {unit.diffusivity}")
    nodal = _map(tissue, tidy.mesh, level, rectangle)
    diffusion = Diffusion(nodal, None if across is None else nodal * (float(unit.rate_to_tu(across)) / level))
    step = None if period is None else float(unit.to_tu(period))
    start = _start(protocol, tidy.mesh, model, level, at, seed, step, beats)
    start = replace(start, W=np.maximum(start.W, model.rest))
    frame = float(unit.to_tu(FRAME_STEP[unit.name] if frame_step is None else frame_step))
    sim = simulate(tidy.mesh, diffusion, start, duration=float(unit.to_tu(duration)), model=model, frame_step=frame, device=device)
    _went_somewhere(tidy.mesh, sim, protocol)
    out = Path(out)
    files = _write_grid(out, sim, nodal, grid, unit) if grid else _write_mesh(out, sim, nodal, meshes.read(mesh_file), tidy, unit)  # type: ignore[arg-type]
    files["truth"] = out / "simulation_truth.json"
    facts = {"D": _quantity(unit.rate_from_tu(level), unit.diffusivity), "tissue": tissue, "protocol": protocol, "seed": seed}
    if across is not None:
        facts["D_across"] = _quantity(across, unit.diffusivity)
    facts["speed"] = _quantity(unit.rate_from_tu(float(model.speed(level))), unit.speed)
    _write_truth(files["truth"], facts, model, sim, unit, tidy.mesh, notes)
    return files


def _tissue(mesh_file: str | Path | None, size: tuple[float, ...] | None, spacing: float) -> tuple[Clean, Grid | None, list[str]]:
    if size is not None:
        mesh, grid = shapes.rectangle(size, spacing)
        return Clean(mesh, np.arange(len(mesh.points)), np.arange(len(mesh.cells))), grid, []
    mesh = meshes.read(mesh_file)  # type: ignore[arg-type]
    return clean(mesh), None, check(mesh)


def _map(tissue: str, mesh: Mesh, level: float, size: tuple[float, ...] | None) -> np.ndarray:
    """Nodal D (N,), mm^2/TU."""
    if tissue == "even":
        return np.full(len(mesh.points), level)
    if size is None:
        raise InputError(
            "--tissue", "scars are laid on rectangles only", found=tissue, fix="give --rectangle, or D as a map in your own script"
        )
    shortest = min(size[:2])
    if tissue == "scar":
        centre = (size[0] / 2, size[1] / 2, size[2] / 2 if len(size) > 2 else 0.0)
        return phantom.scar_map(centre, 0.18 * shortest, level, 0.2 * level)(mesh.points)
    if tissue == "hard":
        return phantom.hard_map(shortest, level)(mesh.points)
    raise InputError("--tissue", "no such tissue", found=tissue, fix="even, scar or hard")


def _start(
    protocol: str,
    mesh: Mesh,
    model: AlievPanfilov,
    D: float,
    at: tuple[float, float, float] | None,
    seed: int,
    period: float | None,
    beats: int,
) -> Start:
    where = None if at is None else np.asarray(at, float)
    if protocol != "paced" and (period is not None or beats != BEATS):
        fix = "add --protocol paced, or leave them out"
        raise InputError("--period, --beats", "are of paced tissue", found=f"--protocol {protocol}", fix=fix)
    if (period is not None and not period > 0) or beats < 1:
        found = f"{beats} beats" if beats < 1 else "a period of 0 or less"
        raise InputError("--period, --beats", "cannot be paced so", found=found, fix="give a time above 0 and at least one beat")
    if protocol == "point":
        return protocols.point(mesh, model, D, 0 if where is None else where)
    if protocol == "breakup":
        return protocols.break_up(mesh, model, 0.5 * float(model.speed(D)) * protocols.duration_of_action(model), seed)
    if protocol == "planar":
        return protocols.planar(mesh, model, D)
    if protocol == "paced":
        return protocols.paced(mesh, model, D, period=period, beats=beats, at=where)
    if protocol == "spiral":
        return protocols.spiral(mesh, model, D)
    if protocol == "reentry":
        return protocols.reentry(mesh, model)
    raise InputError("--protocol", "no such protocol", found=protocol, fix="planar, point, paced, spiral, reentry or breakup")


def _went_somewhere(mesh: Mesh, sim: Simulation, protocol: str) -> None:
    """A start that died, or a mesh too coarse for its D, must not pass for a result."""
    started = int((sim.V[:, 0] >= 0.5).sum())
    reached = int(np.isfinite(sim.LAT).sum())
    if reached <= max(started, 1):
        fix = "check D's unit against the mesh's edges, take a longer duration or a larger start"
        raise InputError(
            mesh.source, f"the {protocol} wave did not leave its start", found=f"{reached} of {len(mesh.points)} nodes activated", fix=fix
        )


def _write_grid(out: Path, sim: Simulation, D: np.ndarray, grid: Grid, unit: TimeUnit) -> dict[str, Path]:
    files = {name: out / f"simulation_{name}.nii.gz" for name in ("movie", "LAT", "D")}
    write_movie(files["movie"], sim.V.reshape(*grid.shape, -1), grid, float(unit.from_tu(sim.times[1])), unit.name)
    folder = OutputFolder(out)
    folder.write_volume(files["LAT"].name, np.nan_to_num(unit.from_tu(sim.LAT)).reshape(grid.shape), grid)  # finite everywhere: 0 = never
    folder.write_volume(files["D"].name, unit.rate_from_tu(D).reshape(grid.shape), grid)
    return files


def _write_mesh(out: Path, sim: Simulation, D: np.ndarray, mesh: Mesh, tidy: Clean, unit: TimeUnit) -> dict[str, Path]:
    """The input's nodes in the input's order; nodes that no cell uses are NaN."""
    lat, back = tidy.back(unit.from_tu(sim.LAT)).astype(np.float32), tidy.back(unit.rate_from_tu(D)).astype(np.float32)
    bare = Mesh(mesh.points, mesh.cells, fibres=mesh.fibres, space=mesh.space, source=mesh.source)
    files = {"movie": out / "simulation.vtu", "LAT": out / "simulation_LAT.vtu"}
    full = bare.with_data(V=tidy.back(sim.V).astype(np.float32), LAT=lat, D=back)
    write(replace(full, field_data={"times": unit.from_tu(sim.times)}), files["movie"])
    write(bare.with_data(LAT=lat), files["LAT"])
    return files


def _write_truth(
    path: Path, facts: dict[str, Any], model: AlievPanfilov, sim: Simulation, unit: TimeUnit, mesh: Mesh, notes: list[str]
) -> None:
    activated = np.isfinite(sim.LAT)
    truth = {
        **facts,
        "model": asdict(model),
        "time_unit": unit.time,
        "LAT": {"last": float(unit.from_tu(np.nanmax(sim.LAT))), "unit": unit.time, "activated_nodes": int(activated.sum())},
        "nodes": len(mesh.points),
        "cells": len(mesh.cells),
        "solver": {
            "step": float(unit.from_tu(sim.step)),
            "step_limit": float(unit.from_tu(MAX_STEP)),
            "unit": unit.time,
            "stages": sim.stages,
        },
        "input": mesh.source,
        "version": __version__,
        "notes": notes,
    }
    OutputFolder(path.parent).write_json(path.name, truth)


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": float(value), "unit": unit}
