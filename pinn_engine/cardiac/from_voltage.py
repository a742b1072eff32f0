"""`fit` where V was measured: D as a map, or the numbers D, a, b."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..core.solution import Status
from ..errors import InputError
from .beat import beats
from .fem import Diffusion
from .fit import PLANE, Progress, check_speed, common_settings, equation_of, given_parameters, map_parameter, numbers_result
from .lat import MapSolution
from .model import AlievPanfilov
from .nodes import BLURRED, activation_sd, node_maps, slope_misfit, start_region
from .numbers import Numbers
from .numbers import fit_numbers as numbers
from .read import HeartData
from .reentry import SHARE, misfit_note, numbers_of_waves, share_firing_again
from .result import LAT_MAP, HeartFit, NodeMap, NodeStatus, Parameter
from .voltage import fit_voltage

FINE_NODES = 15_000  # the simulator runs on the input's own nodes up to here


def fit_map(
    data: HeartData,
    model: AlievPanfilov,
    unknown: tuple[str, ...],
    across: float | None,
    noise: float | None,
    strength: float | None,
    seed: int,
    tell: Progress,
) -> HeartFit:
    """D as a map; a and b given, or fitted with it."""
    again = share_firing_again(data)
    if again > SHARE:
        fix = "fit one D with --unknown D and without --map, or use the frames of one beat (--window)"
        raise InputError(
            data.source, "the tissue fires more than once: no single activation map exists", found=f"{100 * again:.0f} % of it", fix=fix
        )
    equation, ratio = equation_of(data, across)
    samples = data.samples(noise or 0.1)
    free = len(unknown) > 1
    solved, found = fit_voltage(
        equation, samples, model, free=free, sd=noise, strength=strength, seed=seed, progress=lambda done: tell("fit", done)
    )
    check_speed(data, solved, found)
    width = solved.choice.widening
    maps, status = node_maps(data, solved, found, width)
    V, W = _movies(data, solved.T, found)
    parameters: dict[str, Parameter] = {}
    correlation: dict[str, dict[str, float]] = {}
    if free and solved.draws_ab is not None:
        a, b = solved.draws_ab
        parameters = {
            "a": Parameter(found.a, float(found.a * a.std()), "1", "fitted"),
            "b": Parameter(found.b, float(b.std()), "1", "fitted"),
        }
        r = float(np.corrcoef(a, b)[0, 1])
        correlation = {"a": {"a": 1.0, "b": r}, "b": {"a": r, "b": 1.0}}
        verdict = "D is a map; a and b are told by the shape of V in time, D (1 - 2a)^2 by how fast it travels."
    else:
        parameters, verdict = given_parameters(found, ("a", "b", "k")), f"D is given a = {found.a:g} and b = {found.b:g}."
    D = map_parameter(data, solved, maps, status, "fitted with a and b" if free else f"given a = {found.a:g}")
    settings = common_settings(solved, found, ratio, width, seed) | _about(
        solved.noise, noise, len(samples.value), "travelling beat and eikonal-diffusion"
    )
    assert data.V is not None
    residual = ((V - data.V) / solved.noise)[np.isfinite(data.V) & data.inside[:, None]]
    return HeartFit(
        data,
        maps,
        status,
        {"D": D, **parameters},
        correlation,
        verdict,
        V,
        W,
        residual,
        convergence=solved.solution.history,
        settings=settings,
        notes=(*misfit_note(data, V), *_walls(solved, found)),
    )


def _walls(solved: MapSolution, model: AlievPanfilov) -> tuple[str, ...]:
    """A sentence where V rises otherwise than in a beat that travels."""
    wide = 2.0 * slope_misfit(solved, model, start_region(solved.problem, torch.from_numpy(solved.T))) > BLURRED
    share = 100.0 * float(wide.mean())
    if share < 1.0:  # single nodes, by chance
        return ()
    return (
        f"at {share:.1f} % of the fitted nodes V rises as in no beat that travels (a border that the wave reaches, colliding fronts): the "
        f"intervals of LAT, CV and D are wide there (status {int(NodeStatus.UNDETERMINED)}); do not read the maps",
    )


def fit_numbers(
    data: HeartData,
    model: AlievPanfilov,
    unknown: tuple[str, ...],
    across: float | None,
    noise: float | None,
    seed: int,
    tell: Progress,
    one_beat: bool = False,
) -> HeartFit:
    """One D for the whole tissue, with a and b if asked. `one_beat`: do not look whether it fires more than once."""
    assert data.V is not None
    assert data.times is not None
    equation, ratio = equation_of(data, across)
    again = 0.0 if one_beat else share_firing_again(data)
    if again > SHARE:
        return numbers_of_waves(data, model, unknown, ratio, noise, again, seed, lambda done: tell("fit", done))
    samples = data.samples(noise or 0.1)
    solved, start = fit_voltage(
        equation,
        samples,
        model,
        free=len(unknown) > 1,
        even=True,
        sd=noise,
        seed=seed,
        draws=16,
        progress=lambda done: tell("fit", 0.3 * done),
    )
    check_speed(data, solved, start)
    D = float(np.exp(np.median(solved.u)))
    fine = data.whole if len(data.mesh.points) < len(data.whole.points) <= FINE_NODES and data.grid is not None else None
    shape = Diffusion(1.0, ratio) if ratio is not None else None
    found = numbers(
        data.mesh,
        data.to_input,
        fine,
        shape,
        np.where(data.inside[:, None], data.V, np.nan),
        data.times,
        solved.T,
        D,
        start,
        unknown,
        progress=lambda done: tell("fit", 0.3 + 0.7 * done),
    )
    return _numbers_fit(data, found, solved, ratio, noise, unknown, len(samples.value), seed)


def _numbers_fit(
    data: HeartData,
    found: Numbers,
    solved: MapSolution,
    ratio: float | None,
    noise: float | None,
    unknown: tuple[str, ...],
    count: int,
    seed: int,
) -> HeartFit:
    solution, unit = found.solution, data.unit
    LAT = NodeMap(
        LAT_MAP,
        unit.time,
        np.asarray(unit.from_tu(data.back(solved.T)), np.float32),
        np.asarray(unit.from_tu(data.back(activation_sd(solved, 1.0))), np.float32),
    )
    settings = common_settings(solved, found.model, ratio, 1.0, seed) | _about(found.noise, noise, count, "Aliev-Panfilov, simulated")
    settings["start"] = settings["solver"]
    settings |= {"solver": {"status": Status(int(solution.status[0])).sentence, "steps": int(solution.steps[0])}, "CV_of": PLANE}
    assert data.V is not None
    residual = ((found.V - data.V) / found.noise)[np.isfinite(data.V)]
    return numbers_result(data, found, unknown, found.V, found.W, residual, settings, misfit_note(data, found.V), {"LAT": LAT})


def _movies(data: HeartData, T: np.ndarray, model: AlievPanfilov) -> tuple[np.ndarray, np.ndarray]:
    """V and the hidden W (N, F) of the travelling beat on the input's nodes."""
    assert data.times is not None
    beat = beats([replace(model)], duration=max(100.0, float(np.ptp(data.times)) + 20.0))[0]
    s = torch.from_numpy(data.times[None, :] - data.back(T)[:, None])
    on = data.inside[:, None]
    return np.where(on, beat.V_and_slope(s)[0].numpy(), 0.0), np.where(on, beat.W_at(s).numpy(), 0.0)


def _about(level: float, given: float | None, count: int, physics: str) -> dict[str, Any]:
    origin = "given" if given is not None else "estimated"
    return {"physics": physics, "noise_sd": {"value": level, "unit": "1", "origin": origin}, "observations": count}
