"""What was asked of a fit, checked against the scan: `settings_of`, and whether all voxels are fitted together."""

from __future__ import annotations

import numpy as np

from ..device import resolve_device
from ..errors import InputError, check_seed
from .curves import Curves, impossible
from .plan import Settings
from .scan import Scan
from .spatial.tissue import mean_signal

NETWORK_CHUNK = 2048  # a network's Jacobian is about a hundred times a curve's
NEGATIVE = 5.0  # standard errors below zero at which a mean signal is called negative
ENOUGH = 1000  # voxels below which each is fitted by itself unless asked otherwise: too few to learn a prior from


def settings_of(scan: Scan, unknown, model, method, network, model_error, device, seed, notes: list[str]) -> Settings:
    """Checked settings; one delay cannot tell arrival time, and the note says so."""
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in unknown if name.strip()))
    _one_of(scan, "--model", model, ("buxton", "simplified"))
    _one_of(scan, "--method", method, ("pinn", "nlls"))
    _one_of(scan, "--network", network, ("features", "mlp"))
    for name in wanted:
        _one_of(scan, "--unknown", name, ("cbf", "att", "t1b", "abv"))
    if "cbf" not in wanted:
        raise InputError(scan.source, "--unknown must include cbf", found=",".join(wanted) or "nothing", fix="give e.g. --unknown cbf,att")
    if model_error is not None and not 0 < model_error <= 10:
        raise InputError(scan.source, "--model-error must be a fraction above 0", found=model_error, fix="give e.g. 0.05")
    if model_error is not None and model_error > 1:
        notes.append(f"--model-error {model_error:g} is {100 * model_error:g} % of the typical signal; 5 % is 0.05.")
    check_seed(scan.source, seed)
    acquisition = scan.acquisition
    delays = len(np.unique(np.stack([acquisition.pld, acquisition.label_duration]).round(6), axis=1).T)
    if delays < 2:
        wanted = ("cbf",) if scan.arrival is None else ("cbf", "att")
        notes.append(
            f"One delay: CBF is fitted with the arrival time of {scan.arrival.file} as prior (sd {scan.arrival.sd:g} s); its interval "
            "contains that uncertainty. No ATT map is written."
            if scan.arrival is not None
            else "One delay cannot determine ATT: CBF follows the consensus formula (T1 of tissue = T1 of blood); no ATT map is written."
        )
    elif delays < len(wanted) + 1 and "t1b" in wanted:
        fix = "leave t1b out of --unknown"
        raise InputError(scan.source, f"{delays} delays cannot determine {len(wanted)} unknowns", found=",".join(wanted), fix=fix)
    if delays > 1 and scan.arrival is not None:
        fix = "leave --att-map out: these data determine the arrival time"
        raise InputError(scan.source, "--att-map is for scans of a single delay", found=f"{delays} delays", fix=fix)
    if acquisition.flip_angle is not None and network == "mlp" and method == "pinn":
        raise InputError(scan.source, "--network mlp does not know Look-Locker readouts", found="LookLocker", fix="leave --network out")
    if "abv" in wanted:
        _can_have_arteries(scan, wanted, method, network, delays)
    if network == "mlp" and delays < 2:
        notes.append("With one delay only the flow is unknown: the shared-feature network is used.")
        network = "features"
    chunk = NETWORK_CHUNK if network == "mlp" and method == "pinn" else Settings.chunk
    return Settings(wanted, model, method, network, model_error, resolve_device(device, scan.source), seed=seed, chunk=chunk)


def spatial_by_default(s: Settings, scan: Scan, voxels: int) -> bool:
    """Several delays, enough voxels, and nothing that only voxelwise fits do: the plain closed form, networks, a T1 of blood each."""
    alone = s.method == "nlls" or uses_networks(s) or "t1b" in s.unknown
    return not alone and "att" in s.unknown and scan.arrival is None and voxels >= ENOUGH


def can_be_spatial(s: Settings, scan: Scan, notes: list[str]) -> bool:
    """The joint fit is of flow and arrival time; InputError where something else was asked for, a note where there is one delay only."""
    if s.method == "nlls":
        fix = "leave --spatial out, or --method nlls"
        raise InputError(scan.source, "--method nlls fits every voxel by itself", found="--spatial as well", fix=fix)
    if (s.unknown == ("cbf",) or scan.arrival is not None) and len(np.unique(scan.acquisition.times.round(6))) < 2:
        notes.append("One delay: every voxel is fitted by itself.")
        return False
    if set(s.unknown) - {"abv"} != {"cbf", "att"}:
        raise InputError(
            scan.source,
            "--spatial fits cbf, att and abv",
            found=",".join(s.unknown),
            fix="give --unknown cbf,att, --no-spatial, or --preset infant",
        )
    if uses_networks(s):
        raise InputError(scan.source, "--spatial works with --network features", found=s.network, fix="leave --network out")
    return True


def perfused(c: Curves, notes: list[str]) -> bool:
    """False, and a note, where the mean difference is negative beyond doubt: there is no flow that fields could be relative to."""
    sane, (mean, variance) = ~impossible(c), mean_signal(c)
    if mean[sane].sum() >= -NEGATIVE * np.sqrt(variance[sane].sum()):
        return True
    notes.append("The mean difference is negative (control and label exchanged? see --volumes), so every voxel is fitted by itself.")
    return False


def uses_networks(s: Settings) -> bool:
    """True where every voxel has a network of its own."""
    return s.method == "pinn" and s.network == "mlp"


def _can_have_arteries(scan: Scan, wanted: tuple[str, ...], method: str, network: str, delays: int) -> None:
    """InputError where arterial blood volume cannot be fitted."""
    if "att" not in wanted:
        fix = "add att: --unknown cbf,att,abv"
        raise InputError(scan.source, "abv needs the arrival time of tissue", found=f"--unknown {','.join(wanted)}", fix=fix)
    reasons = {
        f"{delays} distinct delays, 3 are needed": (delays < 3, "give a scan of more delays"),
        "no usable M0, without which a blood volume has no unit": (scan.m0 is None, "give --m0"),
        "t1b is asked for as well": ("t1b" in wanted, "leave t1b out"),
        "a Look-Locker readout": (scan.acquisition.flip_angle is not None, "there is none for it yet"),
        "--network mlp": (method == "pinn" and network == "mlp", "give --network features"),
    }
    for reason, (holds, fix) in reasons.items():
        if holds:
            raise InputError(scan.source, "abv cannot be fitted here", found=reason, fix=f"{fix}, or leave abv out of --unknown")


def _one_of(scan: Scan, option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(scan.source, f"{option} is unknown", found=value, fix=f"give {' or '.join(allowed)}")
