"""Which volume is what, and which control is subtracted from which label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

TYPES = ("control", "label", "deltam", "m0scan", "cbf", "noRF", "n/a")
PERFUSION = ("control", "label", "deltam")
ORDERS = {"control-label": ("control", "label"), "label-control": ("label", "control"), "deltam": ("deltam",)}


@dataclass(frozen=True)
class Differencing:
    """N differences: volume `first[n]`, minus volume `label[n]` where there are pairs (None: `first` holds differences already)."""

    first: np.ndarray  # (N,) control or deltam volumes
    label: np.ndarray | None  # (N,)

    def apply(self, volumes: np.ndarray) -> np.ndarray:
        """(X, Y, Z, volumes) -> (X, Y, Z, N) float32."""
        if self.label is None:
            return volumes[..., self.first].astype(np.float32)
        return (volumes[..., self.first] - volumes[..., self.label]).astype(np.float32)


def from_rows(rows: Sequence[str], file: str, count: int) -> list[str]:
    """Checked volume types of aslcontext.tsv, spelt as BIDS does; `count` is the number of volumes of the image."""
    known = {name.lower(): name for name in TYPES}
    types = []
    for number, row in enumerate(rows, start=2):
        if row.lower() not in known:
            raise InputError(file, f"volume_type in line {number} is unknown", found=row[:40], fix=f"use one of {', '.join(TYPES)}")
        types.append(known[row.lower()])
    if len(types) != count:
        fix = "write one row per volume of the image, or give --volumes"
        raise InputError(file, f"volume_type must have {count} rows, one per volume of the image", found=len(types), fix=fix)
    return types


def from_option(order: str, count: int, rows: Sequence[str] | None, where: str) -> list[str]:
    """Volume types by `--volumes`; volumes that aslcontext.tsv calls m0scan, noRF or n/a stay what they are."""
    if order not in ORDERS:
        raise InputError(where, "--volumes is unknown", found=order, fix=f"give {', '.join(ORDERS)}")
    types = list(rows) if rows is not None and len(rows) == count else ["deltam"] * count
    used = [index for index, kind in enumerate(types) if kind in (*PERFUSION, "cbf")]
    cycle = ORDERS[order]
    if len(used) % len(cycle):
        fix = "give an even number of volumes, an aslcontext.tsv, or --volumes deltam"
        raise InputError(where, f"--volumes {order} needs as many control as label volumes", found=f"{len(used)} volumes", fix=fix)
    for position, index in enumerate(used):
        types[index] = cycle[position % len(cycle)]
    return types


def perfusion(types: Sequence[str]) -> np.ndarray:
    """Indices of the volumes that the differences are made of."""
    wanted = ("control", "label") if "label" in types else ("deltam",) if "deltam" in types else ("control",)
    return np.array([index for index, kind in enumerate(types) if kind in wanted], dtype=int)


def pair(types: Sequence[str], pld: np.ndarray, duration: np.ndarray, where: str) -> Differencing:
    """Pair the k-th control with the k-th label of the same delay and label duration, whatever the order of acquisition.

    `pld`, `duration` (volumes,) s. Differences come in the order of their earlier volume.
    """
    counts = {kind: list(types).count(kind) for kind in (*PERFUSION, "cbf")}
    found = f"{counts['control']} control and {counts['label']} label"
    if not counts["label"] and counts["deltam"]:
        return Differencing(np.flatnonzero(np.array(types) == "deltam"), None)
    if not counts["label"] and not counts["control"]:
        what = "only cbf volumes, which are results already" if counts["cbf"] else "no control, label or deltam volume"
        raise InputError(where, "volume_type leaves nothing to fit", found=what, fix="give control and label or deltam volumes")
    if counts["control"] != counts["label"]:
        fix = "correct aslcontext.tsv or --volumes; a volume without its partner is n/a there"
        raise InputError(where, "volume_type must have as many control as label volumes", found=found, fix=fix)
    groups: dict[tuple[float, float], tuple[list[int], list[int]]] = {}
    for index in perfusion(types):
        controls, labels = groups.setdefault((round(float(duration[index]), 6), round(float(pld[index]), 6)), ([], []))
        (controls if types[index] == "control" else labels).append(int(index))
    for (label_duration, delay), (controls, labels) in groups.items():
        if len(controls) != len(labels):
            raise InputError(
                where,
                f"control and label volumes do not pair at delay {delay:g} s, label duration {label_duration:g} s",
                found=f"{len(controls)} control and {len(labels)} label",
                fix="correct aslcontext.tsv or the delays (one per volume)",
            )
    pairs = [both for controls, labels in groups.values() for both in zip(controls, labels, strict=True)]
    pairs.sort(key=min)
    return Differencing(np.array([control for control, _ in pairs]), np.array([label for _, label in pairs]))
