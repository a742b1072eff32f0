"""`fit` by field networks, for any number of beats: the numbers D (a, b), V and W by field networks, D then refined by the simulator.

Noise in a fitted field draws D down; a run has none. So the networks give what a simulator cannot know, V and the hidden W at the first
frame, and `fit_state` begins there, that state free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..core import Status
from ..errors import InputError
from .cycles import Guess
from .fit import PLANE, FoundNumbers, Progress, fitted_numbers, named_numbers
from .model import AlievPanfilov
from .network.inverse import FieldFit, Settings, fit_fields
from .network.places import Places, box, mesh_modes
from .network.windows import Observed
from .read import HeartData
from .result import HeartFit, NodeStatus
from .simulate import evenly_spaced
from .state_fit import StateFit, fit_state

AGREES = 1.5  # times the networks' noise: runs that miss the data by more do not speak for their D
WINDOW_MIN, SPREAD = 1.0, 0.1
MODES = 15  # of a mesh: a sphere's up to order 3. With 48 the networks had more weights than samples, followed the noise, and D fell to 0


def places_of(data: HeartData) -> tuple[Places, np.ndarray]:
    """Cosines on a rectangle or box, modes on a mesh; and which of the places (R,) stands for each node of the input, -1 = none."""
    if data.grid is not None:
        points = data.whole.points
        axes = np.flatnonzero(np.ptp(points, axis=0) > 0)
        return box(points[:, axes], points[:, axes].min(axis=0), points[:, axes].max(axis=0), 4), np.arange(len(points))
    node = np.where(data.inside, np.asarray(abs(data.to_input).argmax(axis=1)).ravel(), -1)
    return mesh_modes(data.mesh, MODES), node


def fit_network(
    data: HeartData,
    model: AlievPanfilov,
    unknown: tuple[str, ...],
    noise: float | None,
    seed: int,
    tell: Progress,
    D: float | None = None,
    settings: Settings | None = None,
) -> HeartFit:
    """One D for the tissue, with a and b if asked; T may be many-valued, the state at the first frame is not needed. `D`: first guess."""
    assert data.V is not None
    assert data.times is not None
    if data.mesh.fibres is not None:
        raise InputError(data.source, "field networks do not support fibres", found="a mesh with fibres", fix="leave --method out")
    if len(data.times) < 4 or float(np.ptp(data.times)) < WINDOW_MIN:
        raise InputError(data.source, "is too short for field networks", found=f"{len(data.times)} frames", fix="at least 4 over 1 TU")
    places, place = places_of(data)
    quick = Places(places.jets.float())
    seen = np.isfinite(data.V) & (place >= 0)[:, None]
    node, frame = np.nonzero(seen)
    observed = Observed(
        torch.as_tensor(place[node]),
        torch.as_tensor(data.times[frame], dtype=torch.float32),
        torch.as_tensor(data.V[seen], dtype=torch.float32),
        noise or SPREAD,
    )
    guess = D if D is not None else _first_D(data, model)
    found = fit_fields(
        quick,
        observed,
        model,
        guess,
        names=unknown,
        sd=noise,
        settings=settings or Settings(seed=seed),
        tell=lambda done, about: tell("fit", 0.8 * done),
    )
    runs = refined(data, found, unknown, noise, lambda done: tell("refine", 0.8 + 0.2 * done))
    if isinstance(runs, str):
        note = f"{runs}: the numbers are the networks' own, D often 10 to 20 % low"
        return _heart_fit(data, found, found.model, _own_numbers(data, found, unknown), place, note)
    numbers = fitted_numbers(data, runs.solution, runs.model, unknown, runs.V, "fitted by field networks, then by runs")
    alone = float(data.unit.rate_from_tu(found.values["D"]))
    note = f"D from the networks alone: {alone:.4g} {data.unit.diffusivity}; then refined by runs"
    return _heart_fit(data, found, runs.model, numbers, place, note)


def refined(data: HeartData, found: FieldFit, names: tuple[str, ...], noise: float | None, tell: Callable[[float], None]) -> StateFit | str:
    """The state and numbers of the networks, fitted once more by runs on the fitted mesh; or why not."""
    assert data.times is not None
    if not evenly_spaced(data.times):
        return "frames are not evenly spaced, so no runs refine the numbers"
    V0, W0 = (x[:, 0] for x in found.fields(data.times[:1]))
    if data.grid is not None:  # the networks live on all nodes, the runs on the coarser grid
        _, nearest = cKDTree(data.whole.points).query(data.mesh.points)
        V0, W0 = V0[nearest], W0[nearest]
    begin = Guess(V0.astype(float), W0.astype(float), np.zeros(len(V0)), float("nan"), found.noise**2, found.values["D"])
    sd = noise or found.noise
    try:
        runs = fit_state(data.mesh, data.samples(sd), data.times, found.model, names, sd=noise, begin=begin, progress=tell)
    except InputError as error:  # the networks' state is outside what a run can start from
        return f"no run can begin in the networks' state ({error})"
    if runs.frames < len(data.times):
        return f"runs from the networks' state explain only {runs.frames} of {len(data.times)} frames"
    if runs.noise > AGREES * found.noise:
        return f"runs from the networks' state miss the data (rms {runs.noise:.3g})"
    if int(runs.solution.status[0]) == Status.AT_BOUND:
        return "runs from the networks' state end at the largest D that they try"
    return runs


def _first_D(data: HeartData, model: AlievPanfilov) -> float:
    """The D whose front would cross the tissue in about the record's length: good to a factor, which is all that is needed."""
    assert data.times is not None
    reach = float(np.ptp(data.whole.points, axis=0).max())
    return float(model.diffusivity(0.7 * reach / float(np.ptp(data.times))))


def _own_numbers(data: HeartData, found: FieldFit, names: tuple[str, ...]) -> FoundNumbers:
    """Parameters, their correlations and the maps by the networks alone."""
    spread = np.array([found.std[name] for name in names])
    covariance = found.correlation * np.outer(spread, spread)
    np.fill_diagonal(covariance, spread**2)
    values = {name: found.values[name] for name in names}
    return named_numbers(data, found.model, values, covariance, found.correlation, "fitted by field networks")


def _heart_fit(data: HeartData, found: FieldFit, model: AlievPanfilov, numbers: FoundNumbers, place: np.ndarray, note: str) -> HeartFit:
    assert data.V is not None
    assert data.times is not None
    parameters, table, maps = numbers
    on = (place >= 0)[:, None]
    V, W = (np.where(on, x[np.maximum(place, 0)], 0.0).astype(np.float32) for x in found.fields(data.times))
    status = np.where(on[:, 0], int(NodeStatus.FITTED), int(NodeStatus.OUTSIDE)).astype(np.uint8)
    windows = found.windows
    settings = {
        "physics": "Aliev-Panfilov, field networks of V and W",
        "model": asdict(model),
        "noise_sd": {"value": found.noise, "unit": "1", "origin": "given or from held-out samples"},
        "observations": int(np.isfinite(data.V).sum()),
        "windows_tu": list(windows.edges),
        "network": list(windows.network.layers),
        "stages": found.stages,
        "CV_of": PLANE,
    }
    seen = np.isfinite(data.V) & on
    return HeartFit(
        data,
        maps,
        status,
        parameters,
        table,
        found.status,
        V,
        W,
        ((V - data.V) / found.noise)[seen],
        convergence=[stage["held_out"] for stage in found.stages],
        settings=settings,
        notes=("Fitted by field networks: V(x, t) and W(x, t), since tissue may fire more than once.", note),
    )
