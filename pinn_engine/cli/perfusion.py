"""`pinn-engine asl`: one perfusion scan in, maps and a report out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from ..cohort.one import FAULT, Outcome, Task, run_one
from ..errors import InputError
from .progress import reporter

FILES = {  # options that are one file, and what their reader calls it
    "input": "ASL series",
    "mask": "mask",
    "t1_map": "T1 map",
    "att_map": "arrival-time map",
    "m0_region": "M0 region",
    "labels": "label image",
    "label_names": "list of label names",
}


def add(commands) -> None:
    p = commands.add_parser("asl", help="fit a perfusion scan", description="Fit CBF and arrival time in every voxel of an ASL scan.")
    p.add_argument("input", metavar="ASL", help="4-D NIfTI or NRRD with its BIDS sidecar and aslcontext.tsv beside it, or a DICOM folder")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for maps and report")
    add_options(p)
    p.set_defaults(run=run)


def add_kind(kinds, name: str, about: str) -> argparse.ArgumentParser:
    """A command under another, described alike in the other's help and in its own."""
    return kinds.add_parser(name, help=about.replace("%", "%%"), description=about)


def add_options(p: argparse.ArgumentParser) -> None:
    """All options but the input and the folder, shared with the studies."""
    p.add_argument("--m0", metavar="FILE|NUMBER", help="M0 of tissue: an image, a number, or 'control' for the mean control image")
    p.add_argument("--series", metavar="N", help="DICOM: number of the ASL series, if the folder holds several")
    p.add_argument("--m0-series", metavar="N", help="DICOM: number of the M0 series, in the folder of the scan or in that of --m0")
    p.add_argument("--mask", metavar="FILE", help="brain mask on the scan's grid (default: made from the scan)")
    p.add_argument("--labels", metavar="FILE", help="regions for a table: a label image on the scan's grid")
    p.add_argument("--label-names", metavar="FILE", help="their names: a .tsv with index and name, or a colour table (default: beside it)")
    add_fit(p)
    timing = p.add_argument_group("acquisition (replaces or overrides the sidecar; times in seconds)")
    timing.add_argument("--labeling", choices=("pcasl", "casl", "pasl"))
    timing.add_argument("--label-duration", type=numbers, metavar="S[,S…]", help="p/CASL label duration")
    timing.add_argument("--plds", type=numbers, metavar="S,S…", help="p/CASL post-labelling delays, one per volume or one per pair")
    timing.add_argument("--tis", type=numbers, metavar="S,S…", help="PASL inversion times, one per volume or one per pair")
    timing.add_argument("--bolus-duration", type=numbers, metavar="S", help="PASL bolus duration (TI1)")
    timing.add_argument("--volumes", choices=("control-label", "label-control", "deltam"), help="order of the volumes")
    timing.add_argument("--flip-angle", type=float, metavar="DEG", help="Look-Locker readout: flip angle of every excitation")
    timing.add_argument("--slice-timing", type=numbers, metavar="S[,S…]", help="2-D: one per slice, or the time from slice to slice")
    constants = p.add_argument_group("constants (default: from the sidecar, else cited values; each is written out with its origin)")
    constants.add_argument("--alpha", type=float, help="labelling efficiency, including the effect of background suppression")
    constants.add_argument("--t1b", type=float, metavar="S", help="T1 of arterial blood")
    constants.add_argument("--t1-tissue", type=float, metavar="S", help="T1 of tissue, one value for all voxels")
    constants.add_argument("--t1-map", metavar="FILE", help="map of the T1 of tissue, in s, on the scan's grid")
    tissue = "probabilities of GM, WM and CSF, as a 4-D image or three images; they give T1 and the classes of the joint fit"
    constants.add_argument("--tissue", metavar="FILE[,FILE,FILE]", help=tissue)
    known = "map of arrival times known beforehand, in s, as a prior for single-delay scans (no ATT map is written)"
    constants.add_argument("--att-map", metavar="FILE", help=known)
    constants.add_argument("--att-sd", type=float, metavar="S", help="standard deviation of --att-map, default 0.2 s")
    region = "mask in which M0 is measured: one value for all voxels instead of each voxel's own"
    constants.add_argument("--m0-region", metavar="FILE", help=region)
    constants.add_argument("--m0-tissue", choices=("csf", "wm", "gm"), help="tissue of --m0-region, default csf")
    constants.add_argument("--lambda", dest="partition", type=float, metavar="ML/G", help="brain/blood partition coefficient")
    constants.add_argument("--m0-scale", type=float, default=1.0, metavar="FACTOR", help="multiply M0 by this (vendor scaling)")


def add_fit(p: argparse.ArgumentParser) -> None:
    """The options of the fit itself, shared with the demo."""
    fit = p.add_argument_group("fit")
    infant = "infant: simplified model, all voxels together, one T1 of blood for the subject; other options override it"
    fit.add_argument("--preset", choices=("infant",), help=infant)
    fit.add_argument("--unknown", metavar="LIST", help="what to fit: cbf[,att][,t1b][,abv]; default cbf,att")
    fit.add_argument("--model", choices=("buxton", "simplified"), help="kinetic model; default buxton")
    fit.add_argument("--method", choices=("pinn", "nlls"), default="pinn", help="nlls: the plain closed form; default %(default)s")
    network = "features: features shared by all voxels; mlp: a network trained for each voxel; default %(default)s"
    fit.add_argument("--network", choices=("features", "mlp"), default="features", help=network)
    error = "sd of the kinetic equation's error, relative to the typical signal; default: found by evidence, at least 0.05"
    fit.add_argument("--model-error", type=float, metavar="FRACTION", help=error)
    joint = "fit all voxels together, each tissue smooth in space as far as the data support it (default: with several delays and at"
    joint += " least 1,000 voxels, unless --method nlls or --network mlp is given)"
    fit.add_argument("--spatial", action=argparse.BooleanOptionalAction, default=None, help=joint)
    weigh = "give less weight to pairs that differ from the other repeats of their delay, as by motion (default: %(default)s)"
    fit.add_argument("--weigh-volumes", action=argparse.BooleanOptionalAction, default=True, help=weigh)
    fit.add_argument("--device", default="auto", help="auto, cpu, cuda[:i] or mps (voxel-by-voxel fits only); default %(default)s")
    fit.add_argument("--seed", type=int, default=0, help="default %(default)s")
    fit.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    fit.add_argument("--progress", choices=("bar", "json", "none"), help="default: bar on a terminal")


def fit_arguments(call: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `asl.fit`."""
    keys = ("preset", "model", "method", "network", "model_error", "device", "seed", "spatial", "weigh_volumes")
    unknown = None if call.unknown is None else tuple(call.unknown.split(","))
    return {"unknown": unknown} | {key: getattr(call, key) for key in keys}


def model_of(call: argparse.Namespace) -> str:
    """The kinetic model that the reader and the fit take."""
    from ..asl.presets import preset_of

    return call.model or preset_of(call.preset).model


def set_threads(count: int | None) -> None:
    if count is None:
        return
    if count < 1:
        raise InputError("--threads", "must be at least 1", found=count, fix="give the number of CPU threads")
    import torch

    torch.set_num_threads(count)


def refuse_absent(call: argparse.Namespace, files: Mapping[str, str]) -> None:
    """InputError for a file that is not there: told before torch is loaded, which takes seconds."""
    for name, what in files.items():
        path = getattr(call, name)
        if path is not None and not os.path.exists(path):
            raise InputError(path, f"{what} does not exist", fix="check the path")


def run(call: argparse.Namespace) -> int:
    refuse_absent(call, FILES)
    set_threads(call.threads)
    return finish(run_one(task(call, call.input, call.out), reporter(call.progress)))


def task(call: argparse.Namespace, input: str, out: str) -> Task:
    """What is asked of one scan."""
    from ..asl.acquisition import AcquisitionOptions

    timings = ("labeling", "label_duration", "plds", "tis", "bolus_duration", "volumes", "slice_timing", "flip_angle")
    constants = ("alpha", "t1b", "t1_tissue", "partition")
    options = AcquisitionOptions(**{key: getattr(call, key) for key in timings + constants})
    names = ["m0", "mask", "t1_map", "tissue", "att_map", "att_sd", "m0_scale", "m0_region", "m0_tissue"]
    names += ["series", "m0_series", "labels", "label_names"]
    read = {"options": options, "model": model_of(call)} | {name: getattr(call, name) for name in names}
    return Task(input, out, read, fit_arguments(call))


def finish(outcome: Outcome) -> int:
    """Tell the outcome in one line, cautions in lines before it, and return its exit code."""
    if outcome.code == 0:
        for caution in outcome.cautions:
            print(f"caution: {caution}")
        print(outcome.message)
        return 0
    if outcome.code == FAULT:
        sys.stderr.write(outcome.detail + "This is a fault of ours: please report it with the lines above.\n")
    sys.stderr.write(f"error: {outcome.message}\n")
    return outcome.code


def numbers(text: str) -> list[float] | float:
    """`1.8` or `0.25,0.5,0.75`."""
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a list such as 0.25,0.5,0.75") from None
    if not values:
        raise argparse.ArgumentTypeError("an empty list; give a number or a list such as 0.25,0.5,0.75")
    return values if len(values) > 1 else values[0]
