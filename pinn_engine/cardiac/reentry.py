"""Is the activation time many-valued? And the fit of numbers where it is: spirals, re-entry, break-up, the window told what it explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.solution import Status
from ..errors import InputError
from .cycles import local_sums, spread_locally
from .fem import Diffusion, Elements, elements
from .fit import PLANE, numbers_result
from .mapfit import Samples
from .model import AlievPanfilov
from .read import HeartData
from .result import HeartFit
from .state_fit import StateFit, fit_state

BIN = 2.5  # TU
VALLEY = 0.5  # a fall and a rise of V by this much is two activations
SHARE = 0.05  # of the tissue
LEAST_EXPLAINED = 0.5  # of the frames: where fewer follow from the first, D is no one's
SUSPECT = 1.5  # residual over scatter from which a fit is called doubtful; a good one has 1.0
FEW = 3.0  # samples in a bin round a place, below which it is not looked at


def fires_again(element: Elements, data: Samples) -> float:
    """Share of the tissue (0-1) whose V, read from the samples round it, falls by 0.5 and rises by 0.5 again.

    One beat that travels through tissue at rest rises and falls once. Needs no model and no parameters.
    """
    assert data.time is not None
    time = data.time.numpy()
    edges = np.arange(time.min(), time.max() + BIN, BIN)
    count, sum_v, _ = local_sums(element, data, edges)
    bins = len(edges)
    spread = spread_locally(element, np.concatenate([count, sum_v], axis=1), float(count.sum()), 2.0 * FEW * bins)
    mass = element.mass.numpy()
    seen, total = spread[:, :bins], spread[:, bins:]
    enough = seen >= FEW
    V = np.where(enough, total / np.maximum(seen, FEW), np.nan)
    before = np.fmax.accumulate(np.where(enough, V, -np.inf), axis=1)
    after = np.fmax.accumulate(np.where(enough, V, -np.inf)[:, ::-1], axis=1)[:, ::-1]
    depth = np.nanmax(np.where(enough, np.minimum(before, after) - V, 0.0), axis=1)
    return float(mass[depth >= VALLEY].sum() / mass.sum())


def local_noise(element: Elements, data: Samples) -> float:
    """sd of V about its own mean among neighbours in space and time, the median over the tissue: needs no model; fronts add to it."""
    assert data.time is not None
    edges = np.arange(float(data.time.min()), float(data.time.max()) + BIN, BIN)
    sums = local_sums(element, data, edges)
    spread = spread_locally(element, np.concatenate(sums, axis=1), float(sums[0].sum()), 3.0 * FEW * len(edges))
    count, total, squares = np.split(spread, 3, axis=1)
    enough = count > 2.0 * FEW
    if not enough.any():
        return float("inf")
    n, v, vv = count[enough], total[enough], squares[enough]
    return float(np.sqrt(max(np.median((vv - v * v / n) / (n - 1.0)), 0.0)))


HARMLESS = 0.05  # of V: what grids and the travelling beat itself miss where there is no noise to compare with


def misfit_note(data: HeartData, V: np.ndarray) -> tuple[str, ...]:
    """A sentence where a fitted movie V (N, F) misses the samples by far more than they scatter: the beat was not one that travels."""
    assert data.V is not None
    seen = np.isfinite(data.V) & data.inside[:, None]
    off = float(np.sqrt(np.mean((V - data.V)[seen] ** 2)))
    noise = local_noise(elements(data.mesh), data.samples(0.1))
    if off <= max(SUSPECT * noise, HARMLESS):
        return ()
    return (
        f"the fitted beat misses the samples by {off / noise:.1f} times their scatter: the waves come back, the record begins amid them, "
        "or a and b are wrong; do not trust the result",
    )


def numbers_of_waves(
    data: HeartData,
    model: AlievPanfilov,
    names: tuple[str, ...],
    ratio: float | None,
    noise: float | None,
    share: float,
    seed: int,
    progress: Callable[[float], None],
) -> HeartFit:
    """`fit_state` on a heart, as the result that every fit returns. `ratio`: D across over along fibres; `share`: see fires_again."""
    assert data.V is not None
    assert data.times is not None
    shape = Diffusion(1.0, ratio) if ratio is not None else None
    samples = data.samples(noise or 0.1)
    found = fit_state(data.mesh, samples, data.times, model, names, shape=shape, sd=noise, progress=progress)
    if found.frames < LEAST_EXPLAINED * len(data.times):
        until, end = (float(data.unit.from_tu(t)) for t in (data.times[found.frames - 1], data.times[-1]))
        told = f"only the record up to {until:.4g} of {end:.4g} {data.unit.time} explained"
        fix = "a stimulus inside it? Use the frames after the last one (--window), or paced beats with rest between them"
        raise InputError(data.source, "later waves do not follow from its first frame", found=told, fix=fix)
    seen = replace(data, V=data.V[:, : found.frames], times=data.times[: found.frames])
    V, W = data.back(found.V), data.back(found.W)
    return _result(seen, found, names, ratio, noise, share, seed, V, W, len(data.times))


def _result(
    data: HeartData,
    found: StateFit,
    names: tuple[str, ...],
    ratio: float | None,
    noise: float | None,
    share: float,
    seed: int,
    V: np.ndarray,
    W: np.ndarray,
    frames: int,
) -> HeartFit:
    unit, solution, model = data.unit, found.solution, found.model
    notes = [f"{100 * share:.0f} % of the tissue fires more than once: fitted by simulation from an unknown first frame, without LAT"]
    if found.frames < frames:
        end = float(unit.from_tu(data.times[-1]))  # type: ignore[index]
        notes.append(f"only the frames up to {end:g} {unit.time} follow from the first one: later a wave starts that is not in it")
    assert data.V is not None
    settings: dict[str, Any] = {
        "physics": "Aliev-Panfilov, simulated from an unknown first frame",
        "model": {name: float(getattr(model, name)) for name in model.__dataclass_fields__},
        "noise_sd": {"value": found.noise, "unit": "1", "origin": "given" if noise is not None else "estimated"},
        "chi_squared": found.chi2,
        "observations": int((np.isfinite(data.V) & data.inside[:, None]).sum()),
        "frames_explained": found.frames,
        "D_across_over_along": ratio,
        "grid_correction_of_D": found.slowing,
        "CV_of": PLANE,
        "solver": {"status": Status(int(solution.status[0])).sentence, "steps": int(solution.steps[0])},
        "fitted_nodes": len(data.mesh.points),
        "seed": seed,
    }
    residual = ((V - data.V) / found.noise)[np.isfinite(data.V) & data.inside[:, None]]
    return numbers_result(data, found, names, V, W, residual, settings, tuple(notes))


def share_firing_again(data: HeartData) -> float:
    """`fires_again` of the samples of V of a heart."""
    return fires_again(elements(data.mesh), data.samples(0.1))
