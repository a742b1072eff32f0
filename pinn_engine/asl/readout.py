"""Look-Locker readout: one labelling, read at every delay with a small flip angle that takes part of the label each time.

Each excitation leaves cos(phi) of the label in the slice, so that with D_k the label delivered since the last readout

    S_k = D_k + cos(phi) exp(-(t_k - t_k-1) / T1') S_k-1,

exact for any spacing. On curves without excitations this is one lower triangular matrix. (The usual effective T1,
1/T1_LL = 1/T1' - ln(cos phi)/dTI, is its continuous limit for even spacing.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files.sidecar import Sidecar
from .constants import Sourced


def flip_angle(sidecar: Sidecar, given: float | None, where: str, model: str, notes: list[str]) -> Sourced | None:
    """The flip angle in degrees of a Look-Locker readout; None for one readout per labelling. InputError where it is not known."""
    if given is None and not sidecar.flag("LookLocker"):
        return None
    if given is not None:
        value, file, name = given, where, "--flip-angle"
    else:
        name, file = "FlipAngle", sidecar.where("FlipAngle")
        values = sidecar.numbers("FlipAngle")
        if values is None:
            raise InputError(sidecar.home, "LookLocker is true but FlipAngle is missing", fix="give --flip-angle in degrees")
        if np.ptp(values) > 1e-6:
            found = ", ".join(f"{v:g}" for v in np.unique(values))
            raise InputError(
                file, "FlipAngle must be the same for all volumes of a Look-Locker readout", found=found, fix="give --flip-angle"
            )
        value = float(values.reshape(-1)[0])
    if not 0 < value < 90:
        raise InputError(file, f"{name} must be above 0 and below 90 degrees", found=f"{value:g}", fix="give --flip-angle in degrees")
    if model == "simplified":
        notes.append("The simplified model ignores the flip angle of a Look-Locker readout.")
        return None
    notes.append(
        f"Look-Locker readout of {value:g} degrees: the label lost at each readout is modelled; M0 must have been read in the same way."
    )
    return Sourced(value, "option --flip-angle" if given is not None else sidecar.origin("FlipAngle"), "degrees")


def train(times: Tensor, loss_rate: float, degrees: float) -> Tensor:
    """(K, K) that takes curves without excitations at `times` (K,) s, ascending, to what a train of readouts sees."""
    keep = float(np.cos(np.deg2rad(degrees)))
    decay = torch.exp(-times.diff() * loss_rate)
    seen = torch.eye(len(times), dtype=times.dtype)
    for k in range(1, len(times)):
        seen[k] += keep * decay[k - 1] * seen[k - 1]
        seen[k, k - 1] -= decay[k - 1]
    return seen
