"""`fit` by field networks, for any number of beats: the numbers D (a, b), V and W by field networks, D then refined by the simulator.

Noise in a fitted field draws D down; a run has none. So the networks give what a simulator cannot know, V and the hidden W at the first
frame, and `fit_state` begins there, that state free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..errors import InputError
from .cycles import Guess
from .fit import PLANE, Progress, given_parameters, number_maps
from .model import AlievPanfilov
from .network.inverse import FieldFit, Settings, fit_fields
from .network.places import Places, box, mesh_modes
from .network.windows import Observed
from .numbers import speed_sd, with_floor
from .read import HeartData
from .result import HeartFit, NodeStatus, Parameter
from .state_fit import StateFit, fit_state

UNEVEN = 1e-3  # of the frames' spacing
AGREES = 1.5  # times the networks' noise: runs that miss the data by more do not speak for their D
WINDOW_MIN, SPREAD = 1.0, 0.1


def places_of(data: HeartData) -> tuple[Places, np.ndarray]:
    """Cosines on a rectangle or box, modes on a mesh; and which of the places (R,) stands for each node of the input, -1 = none."""
    if data.grid is not None:
        points = data.whole.points
        axes = np.flatnonzero(np.ptp(points, axis=0) > 0)
        return box(points[:, axes], points[:, axes].min(axis=0), points[:, axes].max(axis=0), 4), np.arange(len(points))
    node = np.where(data.inside, np.asarray(abs(data.to_input).argmax(axis=1)).ravel(), -1)
    return mesh_modes(data.mesh), node


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
        raise InputError(data.source, "field networks do not know fibres", found="a mesh with fibres", fix="leave --method away")
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
    values, std, notes = found.values, found.std, []
    runs = refined(data, found, unknown, noise, lambda done: tell("refine", 0.8 + 0.2 * done))
    if runs is None:
        notes.append("frames are not evenly spaced, so no runs refine the numbers: they are the networks' own, D often 10 to 20 % low")
    elif runs.noise < AGREES * found.noise and runs.frames == len(data.times):
        notes.append(f"D from the networks alone: {_out(data, found.values['D']):.4g} {data.unit.diffusivity}; then refined by runs")
        values = {name: float(value[0]) for name, value in runs.solution.values.items()}
        sd = np.sqrt(np.diag(with_floor(runs.solution.covariance[0].numpy(), unknown, runs.D)))
        std = dict(zip(unknown, sd.tolist(), strict=True))
    else:
        notes.append(f"runs from the fitted state miss the data (rms {runs.noise:.3g}): the numbers are the networks' own")
    fitted = replace(found.model, **{n: values[n] for n in unknown if n != "D"})
    return _heart_fit(data, found, fitted, values, std, place, unknown, notes)


def refined(
    data: HeartData, found: FieldFit, names: tuple[str, ...], noise: float | None, tell: Callable[[float], None]
) -> StateFit | None:
    """The state and numbers of the networks, fitted once more by runs on the fitted mesh; None where frames are not even."""
    assert data.times is not None
    gaps = np.diff(data.times)
    if np.ptp(gaps) > UNEVEN * gaps.mean():
        return None
    V0, W0 = (x[:, 0] for x in found.fields(data.times[:1]))
    if data.grid is not None:  # the networks live on all nodes, the runs on the coarser grid
        _, nearest = cKDTree(data.whole.points).query(data.mesh.points)
        V0, W0 = V0[nearest], W0[nearest]
    begin = Guess(V0.astype(float), W0.astype(float), np.zeros(len(V0)), float("nan"), found.noise**2, found.values["D"])
    sd = noise or found.noise
    return fit_state(data.mesh, data.samples(sd), data.times, found.model, names, sd=noise, begin=begin, progress=tell)


def _first_D(data: HeartData, model: AlievPanfilov) -> float:
    """The D whose front would cross the tissue in about the record's length: good to a factor, which is all that is needed."""
    assert data.times is not None
    reach = float(np.ptp(data.whole.points, axis=0).max())
    return float(model.diffusivity(0.7 * reach / float(np.ptp(data.times))))


def _out(data: HeartData, D: float) -> float:
    return float(data.unit.rate_from_tu(D))


def _heart_fit(
    data: HeartData,
    found: FieldFit,
    model: AlievPanfilov,
    values: dict[str, float],
    std: dict[str, float],
    place: np.ndarray,
    unknown: tuple[str, ...],
    notes: list[str],
) -> HeartFit:
    assert data.V is not None
    assert data.times is not None
    on = (place >= 0)[:, None]
    V, W = (np.where(on, x[np.maximum(place, 0)], 0.0).astype(np.float32) for x in found.fields(data.times))
    parameters = {
        name: Parameter(
            _out(data, values[name]) if name == "D" else values[name],
            _out(data, std[name]) if name == "D" else std[name],
            data.unit.diffusivity if name == "D" else "1",
            "fitted by field networks",
        )
        for name in unknown
    }
    parameters |= given_parameters(model, [n for n in ("a", "b", "k") if n not in unknown])
    spread = np.array([std[n] for n in unknown])
    relative = speed_sd(model, values["D"], unknown, found.correlation * np.outer(spread, spread))
    maps = number_maps(data, parameters["D"], model, relative)
    status = np.where(on[:, 0], int(NodeStatus.FITTED), int(NodeStatus.OUTSIDE)).astype(np.uint8)
    table = {i: {j: float(found.correlation[m, n]) for n, j in enumerate(unknown)} for m, i in enumerate(unknown)}
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
        notes=("Fitted by field networks: V(x, t) and W(x, t), since tissue may fire more than once.", *notes),
    )
