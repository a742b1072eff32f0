"""`pinn-engine cardiac simulate|fit`, and the heart's phantom and demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.one import Task, run_one
from ..errors import InputError, check_seed
from ..files.output import OutputFolder, folder_for
from .perfusion import add_kind, finish, refuse_absent, set_threads
from .progress import reporter

LONGEST = 1e5  # TU of a phantom
PROTOCOLS = ("planar", "point", "paced", "spiral", "reentry", "breakup")


def add(commands) -> None:
    kinds = commands.add_parser("cardiac", help="simulate or fit a heart").add_subparsers(required=True, metavar="simulate|fit")
    p = add_kind(kinds, "fit", "Fit diffusivity D, conduction velocity and activation time of a heart, from activation times or voltage V.")
    p.add_argument("input", metavar="INPUT", help="4-D NIfTI movie of V, or a mesh with point data LAT or V")
    p.add_argument("--out", required=True, metavar="DIR")
    add_options(p)
    p.set_defaults(run=run_fit)
    _add_simulate(kinds)


def add_options(p: argparse.ArgumentParser) -> None:
    """All options but the input and the folder, shared with the studies."""
    p.add_argument("--times", metavar="FILE", help="file with the times of the frames of V, one per line")
    p.add_argument("--window", type=_window, metavar="BEGIN,END", help="use only the frames of V between these times, in --time-unit")
    p.add_argument("--array", metavar="NAME", help="point data to fit (default: LAT, else V)")
    p.add_argument("--reference", metavar="IMAGE", help="write the volumes of a mesh on this image's grid")
    p.add_argument("--spacing", type=float, metavar="MM", help="or write them on a grid of this spacing (default 1)")
    add_fit(p)


def _add_simulate(kinds) -> None:
    s = add_kind(kinds, "simulate", "Simulate the Aliev-Panfilov model on a mesh or a rectangle.")
    s.add_argument("mesh", nargs="?", metavar="MESH", help="a mesh file, or give --rectangle")
    s.add_argument("--rectangle", type=_lengths, metavar="X,Y[,Z]", help="size of a rectangle or box, mm")
    s.add_argument("--spacing", type=float, default=0.1, metavar="MM", help="distance of the rectangle's nodes; default %(default)s")
    s.add_argument("--duration", type=float, required=True, help="simulated time, in --time-unit")
    s.add_argument("--frame-step", type=float, help="time between frames written, in --time-unit; default 10 ms or 1 TU")
    s.add_argument("--out", required=True, metavar="DIR")
    s.add_argument("--time-unit", choices=("ms", "tu"), default="ms", help="of input and output; default %(default)s")
    s.add_argument("--D", type=float, help="diffusivity, mm^2 per time unit; along the fibres where --across is given")
    s.add_argument("--across", type=float, help="diffusivity across the fibres, mm^2 per time unit")
    s.add_argument("--tissue", choices=("even", "scar", "hard"), default="even", help="default %(default)s")
    s.add_argument("--protocol", choices=PROTOCOLS, default="planar", help="default %(default)s")
    s.add_argument("--at", type=_lengths, metavar="X,Y,Z", help="where a point wave or paced beats start, mm")
    s.add_argument("--period", type=float, help="time between paced beats, in --time-unit; default 1.2 action potentials")
    s.add_argument("--beats", type=int, default=2, metavar="N", help="number of paced beats; default %(default)s")
    s.add_argument("--parameters", action="append", default=[], metavar="a=.01,b=.15")
    s.add_argument("--seed", type=int, default=0)
    s.add_argument("--device", default="cpu")
    s.add_argument("--threads", type=int, metavar="N")
    s.set_defaults(run=run_simulate)


def add_fit(p: argparse.ArgumentParser) -> None:
    """The options of the fit itself, shared with the demo."""
    p.add_argument("--unknown", default="D", metavar="LIST", help="what to fit: D or D,a,b; default %(default)s")
    p.add_argument("--map", metavar="D", help="fit D as a map (always done from activation times)")
    p.add_argument("--physics", choices=("aliev-panfilov", "eikonal"), help="default: decided by the data")
    p.add_argument(
        "--method", choices=("travelling", "network"), help="for V: one beat, or field networks for V and W (default: by the data)"
    )
    p.add_argument("--time-unit", choices=("ms", "tu"), default="ms", help="of input and output; default %(default)s")
    p.add_argument("--parameters", action="append", default=[], metavar="a=.01,b=.15", help="of the model: fixed, or where the fit starts")
    p.add_argument("--across", type=float, metavar="RATIO", help="of D across to D along the fibres; default 0.2 where the mesh has fibres")
    p.add_argument("--noise", type=float, help="sd of the data, in their own unit (default: estimated)")
    p.add_argument("--strength", type=float, help="strength of the map's prior (default: chosen by held-out data)")
    p.add_argument("--device", default="auto", help="auto or cpu")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, metavar="N")
    p.add_argument("--progress", choices=("bar", "json", "none"), help="default: bar on a terminal")


def fit_arguments(call: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `cardiac.fit.fit`."""
    from ..cardiac.model import parse_parameters

    keys = ("physics", "method", "across", "noise", "strength", "device", "seed")
    maps = tuple(call.map.split(",")) if call.map else None
    return {"unknown": tuple(call.unknown.split(",")), "map": maps, "model": parse_parameters(call.parameters)} | {
        key: getattr(call, key) for key in keys
    }


def run_fit(call: argparse.Namespace) -> int:
    by_stem = Path(f"{call.input}.pts").exists()  # as openCARP calls a mesh
    refuse_absent(call, {} if by_stem else {"input": "the mesh or movie"})
    set_threads(call.threads)
    return finish(run_one(task(call, call.input, call.out), reporter(call.progress)))


def task(call: argparse.Namespace, input: str, out: str) -> Task:
    """What is asked of one heart."""
    read = {"time_unit": call.time_unit, "times": call.times, "array": call.array, "window": call.window}
    return Task(input, out, read, fit_arguments(call), organ="cardiac", save={"reference": call.reference, "spacing": call.spacing})


def run_simulate(call: argparse.Namespace) -> int:
    from ..cardiac.run_simulate import simulate_to

    set_threads(call.threads)
    with folder_for(call.out):
        files = simulate_to(
            call.out,
            call.mesh,
            rectangle=call.rectangle,
            spacing=call.spacing,
            duration=call.duration,
            time_unit=call.time_unit,
            D=call.D,
            across=call.across,
            tissue=call.tissue,
            parameters=tuple(call.parameters),
            protocol=call.protocol,
            at=call.at,
            period=call.period,
            beats=call.beats,
            frame_step=call.frame_step,
            seed=call.seed,
            device=call.device,
        )
    print(f"wrote {files['movie']}")
    return 0


def add_phantom(kinds) -> None:
    p = add_kind(kinds, "cardiac", "A square of tissue with a scar: a movie with 5 % of V observed, and its truth.")
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--tissue", choices=("even", "scar", "hard"), default="scar", help="default %(default)s")
    p.add_argument("--protocol", choices=PROTOCOLS, help="how waves start; default: planar in even tissue, else from a point in a corner")
    p.add_argument("--from", type=float, default=0.0, dest="begin", metavar="TU", help="when the movie begins; default %(default)s")
    p.add_argument("--share", type=float, default=0.05, help="share of V that is observed; default %(default)s")
    p.add_argument("--noise", type=float, default=0.1, help="sd of V; default %(default)s")
    p.add_argument("--spacing", type=float, default=0.1, metavar="MM", help="default %(default)s")
    p.add_argument("--duration", type=float, default=70.0, metavar="TU", help="default %(default)s")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=run_phantom)


def run_phantom(call: argparse.Namespace) -> int:
    for name, value, low, high in (
        ("--duration", call.duration, 5.0, LONGEST),
        ("--share", call.share, 1e-4, 1.0),
        ("--noise", call.noise, 0.0, 2.0),
        ("--from", call.begin, 0.0, call.duration - 5.0),
    ):
        if not low <= value <= high:
            raise InputError(name, "is out of range", found=value, fix=f"give a value from {low:g} to {high:g}")
    check_seed("phantom cardiac", call.seed)
    with folder_for(call.out):
        movie = make_phantom(
            Path(call.out), call.tissue, call.share, call.noise, call.spacing, call.duration, call.seed, call.protocol, call.begin
        )
    print(f"wrote {movie}")
    return 0


def make_phantom(
    out: Path,
    tissue: str,
    share: float,
    noise: float,
    spacing: float,
    duration: float,
    seed: int,
    protocol: str | None = None,
    begin: float = 0.0,
) -> Path:
    """Write truth/ (movie, LAT, D) and phantom_movie.nii.gz, what is observed of it from `begin` TU on; returns the movie."""
    from ..cardiac.phantom import observe_V
    from ..cardiac.run_simulate import simulate_to
    from ..files.movie import read_movie, write_movie

    protocol = protocol or ("planar" if tissue == "even" else "point")
    files = simulate_to(
        out / "truth",
        rectangle=(10.0, 10.0),
        spacing=spacing,
        duration=duration,
        time_unit="tu",
        tissue=tissue,  # type: ignore[arg-type]  # argparse checked it
        protocol=protocol,  # type: ignore[arg-type]
    )
    movie = read_movie(files["movie"])
    first = round(begin / movie.step)
    V = observe_V(movie.V.reshape(-1, movie.V.shape[3]), share, noise, seed).reshape(movie.V.shape)[..., first:]
    target = out / "phantom_movie.nii.gz"
    about: dict[str, Any] = {
        "Truth": "truth/simulation_movie.nii.gz",
        "FirstFrameInTruth": first * movie.step,
        "Share": share,
        "NoiseSD": noise,
    }
    write_movie(target, V, movie.grid, movie.step, "tu", **about)
    return target


def add_demo(kinds) -> None:
    p = add_kind(kinds, "cardiac", "Fit D as a map on a square with a scar, from 5 % of V, and compare with the truth.")
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--progress", choices=("bar", "json", "none"))
    p.set_defaults(run=run_demo)


def run_demo(call: argparse.Namespace) -> int:
    from ..files import nifti

    folder = OutputFolder(call.out)
    movie = make_phantom(folder.path / "phantom", "scar", 0.05, 0.1, 0.1, 70.0, 0)
    task = Task(str(movie), str(folder.path), {"time_unit": "tu"}, {"map": ("D",)}, organ="cardiac")
    outcome = run_one(task, reporter(call.progress))
    if outcome.code:
        return finish(outcome)
    true, _ = nifti.read(folder.path / "phantom" / "truth" / "simulation_D.nii.gz")
    value, _ = nifti.read(folder.path / "phantom_D.nii.gz")
    spread, _ = nifti.read(folder.path / "phantom_desc-std_D.nii.gz")
    rows = accuracy(true, value, spread)
    folder.write_tsv("accuracy.tsv", rows)
    for row in rows:
        print(
            f"{row['region']:<16} median |relative error| {row['median_relative_error']:.3f}   90 % intervals cover {row['coverage']:.2f}"
        )
    print(f"Dice of D < 0.05: {dice(true, value):.3f}")
    print(outcome.message)
    return 0


def accuracy(true: np.ndarray, value: np.ndarray, spread: np.ndarray, limit: float = 0.05) -> list[dict[str, Any]]:
    """Healthy tissue and scar: relative error of D and coverage of its 90 % intervals (log-normal)."""
    rows = []
    for name, region in (("healthy", true >= limit), ("scar", true < limit)):
        off = np.abs(np.log(value[region] / true[region]))
        inside = off <= 1.645 * spread[region] / value[region]
        error = float(np.median(np.abs(value[region] / true[region] - 1)))
        rows.append({"region": name, "median_relative_error": error, "coverage": float(inside.mean())})
    return rows


def dice(true: np.ndarray, value: np.ndarray, limit: float = 0.05) -> float:
    """Overlap of the scars."""
    a, b = true < limit, value < limit
    return float(2.0 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _window(text: str) -> tuple[float, float]:
    try:
        begin, end = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two times such as 100,180") from None
    return begin, end


def _lengths(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of lengths such as 10,10") from None
