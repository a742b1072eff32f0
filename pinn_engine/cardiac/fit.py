"""`fit(data) -> HeartFit`: maps of D, conduction velocity and activation time, or the numbers D, a, b, from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from ..core.solution import Solution, Status
from ..errors import InputError, check_seed
from .doubts import alike, doubts, placed
from .eikonal import EikonalDiffusion, tissue_shape
from .fem import elements
from .lat import MapSolution, fit_lat, outlier_share
from .mapfit import Samples
from .model import AlievPanfilov
from .nodes import SPEEDS, node_maps, round_hollows, start_region
from .numbers import FLOOR, Numbers, speed_sd, with_floor
from .observations import MARKS
from .read import HeartData
from .result import CV_MAP, D_MAP, HeartFit, MapKind, NodeMap, NodeStatus, Parameter, usable

Progress = Callable[[str, float], None]
ACROSS = 0.2  # D across over D along the fibres, where the mesh has fibres (bulk of the atrium: 0.1-0.3)
NOISES_V, NOISES_LAT, STRENGTHS = (1e-3, 10.0), (1e-3, 1e3), (1e-3, 1e3)  # that may be asked for; beyond, matrices are singular
DENSE = 0.8  # share of the nodes with an activation time beyond which a map was most likely interpolated
PLANE = "a plane front into tissue at rest"  # whose speed CV is where one D is fitted


def fit(
    data: HeartData,
    *,
    unknown: Sequence[str] | str = ("D",),
    map: Sequence[str] | str | None = None,
    physics: str | None = None,
    method: str | None = None,
    model: AlievPanfilov | None = None,
    across: float | None = None,
    noise: float | None = None,
    strength: float | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> HeartFit:
    """Fit one heart: maps of D, conduction velocity and activation time, or the numbers D, a, b.

    `unknown`: D, or D,a,b (from V only); `map`: ("D",) for D as a map (always so from activation times). `physics`: "eikonal" or
    "aliev-panfilov" (default: by the data). `method`, for V and numbers: "travelling" (one beat) or "network" (field networks V, W, also
    where waves come back); None = one beat, or runs of the simulator from an unknown first frame where tissue fires more than once. Of
    several beats with rest in between, the last whole one is fitted (`pacing.py`). `noise`: sd of the data in their unit, None = estimated.
    `across`: D across the fibres over D along them. `strength`: of the map's prior, None = chosen by held-out data.
    """
    model, unknown = model or AlievPanfilov(), _names(unknown)
    _check(data, unknown, _names(map or ()), physics)
    _check_numbers(data, noise, strength, seed)
    _check_method(data, method, bool(map))
    if device not in ("auto", "cpu"):
        raise InputError("--device", "heart fits factorise sparse matrices on the CPU", found=device, fix="give cpu or auto")
    tell = progress or (lambda stage, done: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # arrays are small: more threads wait for each other
    try:
        found = _fitted(data, unknown, bool(map), method, model, across, noise, strength, seed, tell)
    finally:
        torch.set_num_threads(threads)
    first = doubts(found)
    notes = list(first)
    if across is None and (ratio := found.settings.get("D_across_over_along")) is not None:
        notes.append(
            f"the mesh has fibres: D across them is assumed to be {ratio:g} of D along them, which nothing here measures (--across)"
        )
    settings = ({"array": data.array} if data.array else {}) | found.settings
    return replace(found, notes=(*notes, *found.notes), doubts=first, settings=settings)


def _fitted(
    data: HeartData,
    unknown: tuple[str, ...],
    map: bool,
    method: str | None,
    model: AlievPanfilov,
    across: float | None,
    noise: float | None,
    strength: float | None,
    seed: int,
    tell: Progress,
) -> HeartFit:
    if data.LAT is not None:
        return _from_lat(data, model, across, noise, strength, seed, tell)
    from .from_voltage import fit_map, fit_numbers
    from .pacing import last_beat

    data, model = last_beat(data, model)
    if method == "network":
        from .from_network import fit_network

        return fit_network(data, model, unknown, noise, seed, tell)
    if map:
        return fit_map(data, model, unknown, across, noise, strength, seed, tell)
    return fit_numbers(data, model, unknown, across, noise, seed, tell, one_beat=method == "travelling")


def _names(given: Sequence[str] | str) -> tuple[str, ...]:
    """("D", "a", "b"), or the same as a text with commas."""
    return tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))


def _check(data: HeartData, unknown: tuple[str, ...], maps: tuple[str, ...], physics: str | None) -> None:
    if not set(unknown) <= {"D", "a", "b"} or "D" not in unknown:
        raise InputError("--unknown", "is not something this fit knows", found=",".join(unknown) or "nothing", fix="give D or D,a,b")
    if set(unknown) not in ({"D"}, {"D", "a", "b"}):
        raise InputError("--unknown", "a and b are fitted together", found=",".join(unknown), fix="give D or D,a,b")
    if maps not in ((), ("D",)):
        raise InputError("--map", "only D can be a map", found=",".join(maps), fix="give --map D")
    if physics not in (None, "eikonal", "aliev-panfilov"):
        raise InputError("--physics", "no such physics", found=physics, fix="eikonal or aliev-panfilov")
    if data.LAT is not None and len(unknown) > 1:
        raise InputError(data.source, "activation times cannot tell a and b", found=",".join(unknown), fix="give --unknown D, or V as data")
    if data.LAT is not None and physics == "aliev-panfilov":
        raise InputError(
            data.source, "has activation times only", found="--physics aliev-panfilov", fix="give --physics eikonal, or V as data"
        )


def _check_numbers(data: HeartData, noise: float | None, strength: float | None, seed: int) -> None:
    low, high, unit = (*NOISES_V, "") if data.LAT is None else (*NOISES_LAT, f" {data.unit.time}")
    if noise is not None and not low <= noise <= high:
        fix = f"give the standard deviation of the data, from {low:g} to {high:g}{unit}, or leave it out: it is estimated"
        raise InputError("--noise", "is out of range", found=f"{noise:g}", fix=fix)
    if strength is not None and not STRENGTHS[0] <= strength <= STRENGTHS[1]:
        fix = f"give a number from {STRENGTHS[0]:g} to {STRENGTHS[1]:g} (0.04 to 1.1 are usual), or leave it out: it is chosen by the data"
        raise InputError("--strength", "is out of range", found=f"{strength:g}", fix=fix)
    check_seed("cardiac fit", seed)


def _check_method(data: HeartData, method: str | None, map: bool) -> None:
    if method not in (None, "travelling", "network"):
        raise InputError("--method", "no such method", found=method, fix="travelling or network")
    if method == "network" and data.LAT is not None:
        raise InputError(data.source, "field networks need V", found="activation times", fix="leave --method out")
    if method == "network" and map:
        raise InputError("--method", "field networks fit numbers, not a map of D", found="--map D", fix="give --unknown D alone")


def equation_of(data: HeartData, across: float | None) -> tuple[EikonalDiffusion, float | None]:
    """The equation on the fitted mesh, and the anisotropy used (None: isotropic)."""
    if across is not None and not 0.01 <= across <= 1.0:
        raise InputError("--across", "must lie between 0.01 and 1", found=across, fix="it is D across over D along the fibres")
    if across is not None and across < 1.0 and data.mesh.fibres is None:
        raise InputError(data.source, "has no fibres", found=f"--across {across:g}", fix="give a mesh with fibres, or leave the option out")
    ratio = (ACROSS if across is None else across) if data.mesh.fibres is not None else None
    element = elements(data.mesh)
    return EikonalDiffusion(element, tissue_shape(data.mesh.fibres, element, ratio)), ratio


def _from_lat(
    data: HeartData, model: AlievPanfilov, across: float | None, noise: float | None, strength: float | None, seed: int, tell: Progress
) -> HeartFit:
    equation, ratio = equation_of(data, across)
    samples = data.samples(0.2)
    sd = None if noise is None else float(data.unit.to_tu(noise))
    solved = fit_lat(equation, samples, model, sd=sd, strength=strength, seed=seed, progress=lambda done: tell("fit", done))
    check_speed(data, solved, model)
    width = solved.choice.widening
    maps, status = node_maps(data, solved, model, width)
    unit = data.unit
    wrong = int((outlier_share(solved) > 0.5).sum())
    notes = []
    if wrong:
        told = "does not fit its neighbours and was" if wrong == 1 else "do not fit their neighbours and were"
        marks = _of_one_value(data, samples, outlier_share(solved) > 0.5)
        notes.append(f"{wrong} of {len(samples.value)} activation times {told} set aside{marks}")
    start = start_region(solved.problem, torch.from_numpy(solved.T))
    if hollows := round_hollows(equation.element, torch.from_numpy(solved.T), start)[0]:
        notes.append(
            f"{hollows} of the fitted nodes are earlier than all their neighbours although no wave starts there: unless the measured times "
            f"show that too, the fit is wrong there and next to it (status {int(NodeStatus.COLLISION)})"
        )
    if data.points is None and len(samples.value) > DENSE * data.inside.sum():
        notes.append(
            f"{len(samples.value)} of {int(data.inside.sum())} nodes carry an activation time: if another program interpolated them from "
            "fewer points, they are not independent and the standard deviations here are too small"
        )
    predicted = samples.at(torch.from_numpy(solved.T)).numpy()
    settings = common_settings(solved, model, ratio, width, seed)
    settings |= {
        "physics": "eikonal-diffusion",
        "noise_sd": {
            "value": float(unit.from_tu(solved.noise)),
            "unit": unit.time,
            "origin": "given" if noise is not None else "estimated",
        },
        "observations": len(samples.value),
        "outliers": wrong,
    }
    given = (
        f"given a = {model.a:g} and k = {model.k:g}: activation times fix only D (1 - 2a)^2, conduction velocity does not depend on them"
    )
    parameters = {"D": map_parameter(data, solved, maps, status, given), **given_parameters(model, ("a", "b", "k"))}
    return HeartFit(
        data,
        maps,
        status,
        parameters,
        {},
        f"D is {given}.",
        residual=((predicted - samples.value.numpy()) / solved.noise),
        observed=np.asarray(unit.from_tu(samples.value.numpy())),
        predicted=np.asarray(unit.from_tu(predicted)),
        convergence=solved.solution.history,
        settings=settings,
        notes=tuple(notes),
    )


def _of_one_value(data: HeartData, samples: Samples, wrong: torch.Tensor) -> str:
    """The end of the sentence where most of the wrong times (R,) bool are one and the same number."""
    values, count = np.unique(np.asarray(data.unit.from_tu(samples.value[wrong].numpy())).round(6), return_counts=True)
    top = int(count.argmax())
    if count[top] < max(MARKS, 0.5 * count.sum()):
        return ""
    return f"; {count[top]} of them are {values[top]:g}: if that marks what was not measured, give NaN there"


def check_speed(data: HeartData, solved: MapSolution, model: AlievPanfilov) -> None:
    """A conduction velocity no heart has means a mistaken unit."""
    slowness = solved.problem.equation.element.gradient(torch.from_numpy(solved.T)).norm(dim=1).median()
    speed = 1.0 / max(float(slowness), 1e-12) / 12.9  # mm/TU -> m/s
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        slow = speed < SPEEDS[0]
        if not alike(*placed(data)):
            found, fix = f"a conduction velocity of {speed:.3g} m/s", "give the times or V that were measured, each at its own node"
            raise InputError(data.source, "the data look like noise: no sample resembles those next to it", found=found, fix=fix)
        guess = "times may be in us or coordinates in m" if slow else "times may be in s or in TU (--time-unit tu), coordinates in um"
        raise InputError(
            data.source, f"a conduction velocity of {speed:.3g} m/s is not a heart's", found="mm and " + data.unit.time, fix=guess
        )


def map_parameter(data: HeartData, solved: MapSolution, maps: dict[str, NodeMap], status: np.ndarray, about: str) -> Parameter:
    """The map's median over what was fitted; its sd is that of the medians of Laplace's draws, with the floor of a single D."""
    good = usable(status)
    low, middle, high = (float(x) for x in np.percentile(maps["D"].value[good], [15.9, 50, 84.1]))
    drawn = np.median(data.back_log(solved.u[:, None] + solved.choice.widening * solved.draws_u)[good], axis=0)
    relative = float(np.hypot(np.log(drawn).std(), FLOOR["D"]))
    return Parameter(middle, middle * relative, data.unit.diffusivity, f"median of the map, {about}", (low, high))


def flat_map(data: HeartData, kind: MapKind, unit: str, value: float, std: float) -> NodeMap:
    """One number for all the tissue."""
    on = data.inside.astype(np.float32)
    return NodeMap(kind, unit, on * np.float32(value), on * np.float32(std))


def number_maps(data: HeartData, D: Parameter, model: AlievPanfilov, relative_speed_sd: float) -> dict[str, NodeMap]:
    """One D for the tissue, and the speed of a plane front into tissue at rest."""
    unit = data.unit
    speed = float(unit.rate_from_tu(float(model.speed(unit.rate_to_tu(D.value)))))
    return {
        "D": flat_map(data, D_MAP, D.unit, D.value, D.std),
        "CV": flat_map(data, CV_MAP, unit.speed, speed, speed * relative_speed_sd),
    }


def given_parameters(model: AlievPanfilov, names: Sequence[str]) -> dict[str, Parameter]:
    more = ("rest",) if model.rest else ()
    return {name: Parameter(float(getattr(model, name)), 0.0, "1", "given") for name in (*names, *more)}


STIR = 0.3  # tissue that fires reaches a V of almost 1


FoundNumbers = tuple[dict[str, Parameter], dict[str, dict[str, float]], dict[str, NodeMap]]


def named_numbers(
    data: HeartData,
    model: AlievPanfilov,
    values: dict[str, float],
    covariance: np.ndarray,
    correlation: np.ndarray,
    sentence: str,
) -> FoundNumbers:
    """`values` in inner units, of covariance (P, P), in the outside ones, the model's others as given; their correlations; the maps."""
    names = tuple(values)
    parameters = {}
    for k, name in enumerate(names):
        factor, unit = (float(data.unit.rate_from_tu(1.0)), data.unit.diffusivity) if name == "D" else (1.0, "1")
        parameters[name] = Parameter(values[name] * factor, float(covariance[k, k] ** 0.5) * factor, unit, sentence)
    table = {i: {j: float(correlation[m, n]) for n, j in enumerate(names)} for m, i in enumerate(names)}
    given = given_parameters(model, [name for name in ("a", "b", "k") if name not in names])
    return parameters | given, table, number_maps(data, parameters["D"], model, speed_sd(model, values["D"], names, covariance))


def fitted_numbers(
    data: HeartData, solution: Solution, model: AlievPanfilov, names: tuple[str, ...], V: np.ndarray, how: str = "fitted"
) -> FoundNumbers:
    """The named numbers of one solution; the data's own correlations; the maps. `how` they came about, for their status.

    `V` (N, F) as fitted. Raises InputError where it never leaves rest: such samples say nothing of any number.
    """
    if (top := float(np.nanmax(V))) < STIR:
        fix = "give a record in which V rises from rest"
        raise InputError("the samples of V", "show no activation", found=f"noise about a V of at most {top:.2g}", fix=fix)
    values = {name: float(solution.values[name][0]) for name in names}
    covariance = with_floor(solution.covariance[0].numpy(), names, values["D"])
    sentence = f"{how}: {Status(int(solution.status[0])).sentence}"
    return named_numbers(data, model, values, covariance, solution.correlation[0].numpy(), sentence)


def numbers_result(
    data: HeartData,
    found: Numbers,
    names: tuple[str, ...],
    V: np.ndarray,
    W: np.ndarray,
    residual: np.ndarray,
    settings: dict[str, Any],
    notes: tuple[str, ...],
    more: dict[str, NodeMap] | None = None,
) -> HeartFit:
    """A fit of numbers as the result that every fit returns: `V`, `W` (N, F) on the input's nodes; `more` maps beside D and CV."""
    parameters, correlation, maps = fitted_numbers(data, found.solution, found.model, names, V)
    status = np.where(data.inside, int(NodeStatus.FITTED), int(NodeStatus.OUTSIDE)).astype(np.uint8)
    return HeartFit(
        data,
        maps | (more or {}),
        status,
        parameters,
        correlation,
        found.solution.verdict(),
        V,
        W,
        residual,
        convergence=found.solution.history["cost"],
        settings=settings,
        notes=notes,
    )


def common_settings(solved: MapSolution, model: AlievPanfilov, ratio: float | None, width: float, seed: int) -> dict[str, Any]:
    laid = solved.choice.background
    return {
        "model": asdict(model),
        "prior_strength": solved.choice.last,
        "prior_scores": {f"{k:g}": v for k, v in solved.choice.scores.items()},
        "steep_places_spared": {"taken": solved.choice.spares, "score": solved.choice.spared},
        "smooth_background": {
            "taken": laid is not None,
            "score": solved.choice.under,
            "reach_mm": None if laid is None else laid.reach * solved.problem.length,
        },
        "scar_borders_as_lines": {"taken": solved.choice.lines, "score": solved.choice.lined},
        "interval_width": width,
        "D_across_over_along": ratio,
        "solver": {"status": solved.solution.status.sentence, "steps": solved.solution.steps},
        "fitted_nodes": solved.problem.nodes,
        "seed": seed,
    }
