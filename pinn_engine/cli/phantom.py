"""`pinn-engine phantom asl` and `phantom infant`: a simulated scan with its truth, as a BIDS dataset."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np

from ..errors import InputError, check_seed
from ..files.output import OutputFolder
from . import heart
from .perfusion import add_kind, numbers

HEAD = np.array([132.0, 164.0, 105.0])  # mm, as the phantom's
MARGIN = 4  # voxels around the head


def add(commands) -> None:
    made = commands.add_parser("phantom", help="make a simulated scan with known truth")
    kinds = made.add_subparsers(required=True, metavar="asl|infant|cardiac")
    p = add_kind(kinds, "asl", "A digital brain scanned by ASL: BIDS dataset, truth under derivatives/truth.")
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--spacing", type=float, default=4.0, metavar="MM", help="voxel size; default %(default)s")
    p.add_argument("--labeling", choices=("pcasl", "casl", "pasl"), default="pcasl", help="default %(default)s")
    p.add_argument("--plds", type=numbers, metavar="S,S…", help="post-labelling delays (PASL: inversion times)")
    p.add_argument("--label-duration", type=numbers, metavar="S", help="label duration (PASL: bolus duration)")
    p.add_argument("--repeats", type=int, default=4, metavar="N", help="pairs per delay; default %(default)s")
    p.add_argument(
        "--snr", type=float, default=250.0, help="grey-matter M0 over the noise sd of an image, 0 = no noise; default %(default)s"
    )
    p.add_argument("--dispersion", type=float, default=0.0, metavar="S", help="sd of the bolus dispersion; default none")
    p.add_argument("--arterial", type=float, default=0.0, metavar="FRACTION", help="blood volume in the large vessels; default none")
    p.add_argument("--slice-time", type=float, default=0.0, metavar="S", help="2-D readout: time from slice to slice; default 3-D")
    p.add_argument("--no-lesions", action="store_true")
    p.add_argument("--no-territories", action="store_true")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=run)
    infant = "One slice of an infant's grey matter as in SUPINN's study: 12 inversion times, one T1 of blood a subject."
    p = add_kind(kinds, "infant", infant)
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument(
        "--noise", type=float, default=0.02, metavar="SD", help="of a difference, whose peaks are about 0.25; default %(default)s"
    )
    p.add_argument("--t1b", type=float, metavar="S", help="T1 of blood; default: drawn from 1.5 to 2.25 s")
    p.add_argument("--fields", choices=("smooth", "steps", "ramp"), default="smooth", help="how perfusion varies; default %(default)s")
    p.add_argument("--no-lesions", action="store_true")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=run_infant)
    heart.add_phantom(kinds)


def run(call: argparse.Namespace) -> int:
    _check(call)
    from ..asl.phantom import make, write_bids

    folder = OutputFolder(call.out)
    phantom = make(
        shape_of(call.spacing),
        call.spacing,
        call.seed,
        labeling=call.labeling.upper(),
        plds=None if call.plds is None else np.atleast_1d(call.plds).tolist(),
        label_duration=call.label_duration,
        repeats=call.repeats,
        snr=call.snr or None,
        dispersion=call.dispersion,
        arterial=call.arterial,
        slice_time=call.slice_time,
        lesions=not call.no_lesions,
        territories=not call.no_territories,
    )
    print(f"{phantom.mask.sum():,} brain voxels: {write_bids(phantom, folder.path)['asl']}")
    return 0


def run_infant(call: argparse.Namespace) -> int:
    check_seed("phantom infant", call.seed)
    ranges: dict[str, tuple[float, float, float]] = {"--noise": (call.noise, 0.0, 100.0)}
    _in_range(ranges | ({} if call.t1b is None else {"--t1b": (call.t1b, 0.5, 5.0)}))
    from ..asl.phantom import infant, write_bids

    folder = OutputFolder(call.out)
    phantom = infant(call.seed, call.noise, t1b=call.t1b, lesion=not call.no_lesions, fields=call.fields)
    print(f"{phantom.mask.sum():,} voxels of grey matter: {write_bids(phantom, folder.path)['asl']}")
    return 0


def shape_of(spacing: float) -> tuple[int, int, int]:
    """The smallest grid that holds the head and a margin."""
    x, y, z = (int(n) for n in np.ceil(HEAD / spacing) + MARGIN)
    return x, y, z


def _check(call: argparse.Namespace) -> None:
    check_seed("phantom asl", call.seed)
    count = len(np.atleast_1d(call.label_duration)) if call.label_duration is not None else 1
    delays = len(np.atleast_1d(call.plds)) if call.plds is not None else 0
    if count > 1 and count != delays:
        raise InputError(
            "--label-duration", "must be one value or one per delay of --plds", found=f"{count} for {delays}", fix="give one per delay"
        )
    times = [*np.atleast_1d(call.plds if call.plds is not None else 1.0), *np.atleast_1d(call.label_duration or 1.0)]
    ranges: dict[str, tuple[float, float, float]] = {
        "--spacing": (call.spacing, 0.9, 20.0),
        "--label-duration": (min(np.atleast_1d(call.label_duration if call.label_duration is not None else 1.0)), 0.01, 10.0),
        "--repeats": (call.repeats, 1, 1000),
        "--snr": (call.snr, 0.0, 1e9),
        "--dispersion": (call.dispersion, 0.0, 2.0),
        "--arterial": (call.arterial, 0.0, 1.0),
        "--slice-time": (call.slice_time, 0.0, 1.0),
        "--plds and --label-duration": (max(times), 0.0, 10.0),
        "--plds or --label-duration": (min(times), 0.0, 10.0),
    }
    _in_range(ranges)


def _in_range(ranges: Mapping[str, tuple[float, float, float]]) -> None:
    for option, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(option, "is out of range", found=value, fix=f"give a value from {low:g} to {high:g}")
