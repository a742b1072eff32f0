"""From the engine's output folder to nodes: maps with units and colours, status, curves, tables, all in one folder of the hierarchy."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import slicer
from PINNCommonLib import nodes
from PINNCommonLib.explain import Problem

from .mapspecs import CURVES, MASK, SCALAR, STATUS, STATUS_COLORS
from .sidecars import header_matrix, stem

Nodes = MutableMapping[str, object]  # role -> node; filled anew where a role has one already


def collect(out: Path, prefix: str, title: str, asl, transform, into: Nodes) -> None:
    """Make or refill the nodes of one fit. Nodes of roles that this fit does not have are removed from the scene and from `into`."""
    if not list(out.glob(f"{prefix}_*cbf.nii.gz")):
        raise Problem(f"The engine wrote no map into {out}.")
    made: dict[str, object] = {}
    for suffix, spec in SCALAR.items():
        file = out / f"{prefix}_{suffix}.nii.gz"
        if file.is_file():
            made[spec.key] = nodes.read_volume(file, f"{title} {spec.key.upper()}", _kept(into, spec.key))
            nodes.dress_volume(made[spec.key], spec)
        std = out / f"{prefix}_desc-std_{spec.key}.nii.gz"
        if file.is_file() and std.is_file():
            role = spec.std().key
            made[role] = nodes.read_volume(std, f"{title} {spec.key.upper()} std", _kept(into, role))
            nodes.dress_volume(made[role], spec.std())
    made["status"] = nodes.read_volume(out / f"{prefix}_{STATUS}.nii.gz", f"{title} status", _kept(into, "status"), labels=True)
    made["status"].GetDisplayNode().SetAndObserveColorNodeID(_status_colors(out / f"{prefix}_{STATUS}.tsv").GetID())
    made["mask"] = nodes.read_volume(out / f"{prefix}_{MASK}.nii.gz", f"{title} mask", _kept(into, "mask"), labels=True)
    for role, suffix in CURVES.items():
        file = out / f"{prefix}_{suffix}.nii.gz"
        made[role] = nodes.read_sequence(file, f"{title} {role}", _kept(into, role))
        _set_delays(made[role], file)
    made["quality"] = _table(out / f"{prefix}_desc-qualitycontrol_cbf.tsv", f"{title} quality", _kept(into, "quality"), upright=True)
    made["checks"] = _table(out / f"{prefix}_desc-plausibility_cbf.tsv", f"{title} checks", _kept(into, "checks"))
    for role in set(into) - set(made):
        slicer.mrmlScene.RemoveNode(into.pop(role))
    into.update(made)
    folder = nodes.folder_beside(asl, title)
    for node in made.values():
        nodes.place(node, folder)
        if transform is not None and node.IsA("vtkMRMLTransformableNode"):
            node.SetAndObserveTransformNodeID(transform.GetID())


def sentence(into: Nodes, out: Path, prefix: str, seconds: float) -> str:
    """What came out, with numbers: map, voxels, median, device, time."""
    cbf = into["cbf"]
    about = json.loads(next(out.glob(f"{prefix}_*att.json"), next(iter(_cbf_sidecars(out, prefix)))).read_text(encoding="utf-8"))
    status = slicer.util.arrayFromVolume(into["status"])
    values = slicer.util.arrayFromVolume(cbf)[(status >= 1) & (status != 6) & (status != 7)]
    unit = cbf.GetVoxelValueUnits().GetCodeMeaning()
    device = about.get("Fit", {}).get("device", "?")
    middle = f"{np.median(values):.3g}" if values.size else "none"
    unit = {"milliliter per 100 gram and minute": "mL/100 g/min"}.get(unit, unit)
    return f"{cbf.GetName()}: {values.size:,} voxels fitted, median {middle} {unit}, on {device}, {seconds:.0f} s"


def notes(out: Path, prefix: str) -> list[str]:
    """What the engine remarks about the scan, and checks that are not passed."""
    about = json.loads(next(iter(_cbf_sidecars(out, prefix))).read_text(encoding="utf-8"))
    said = [str(note) for note in about.get("Notes", [])]
    rows = _rows(out / f"{prefix}_desc-plausibility_cbf.tsv")
    return said + [row["sentence"] for row in rows if row.get("plausible", "").lower() in ("no", "false", "0")]


def _cbf_sidecars(out: Path, prefix: str) -> Iterator[Path]:
    return (found for name in ("cbf", "desc-relative_cbf") if (found := out / f"{prefix}_{name}.json").is_file())


def _kept(into: Nodes, role: str):
    """The node that a role has from the run before, if it is still in the scene."""
    node = into.get(role)
    return node if node is not None and slicer.mrmlScene.IsNodePresent(node) else None


def _set_delays(sequence, file: Path) -> None:
    """Delays (s) and the time of each slice in MRML's order, so that the curve of a voxel can be drawn without the files."""
    about = json.loads(file.with_name(f"{stem(file)}.json").read_text(encoding="utf-8"))
    slices, axis = list(about.get("SliceDelay", [0.0])), str(about.get("SliceAxis", "k"))
    if axis == "k" and np.linalg.det(header_matrix(file)[0][:3, :3]) < 0:
        slices.reverse()  # MRML turns k around in left-handed files
    sequence.SetIndexName("TI" if about.get("ArterialSpinLabelingType") == "PASL" else "PLD")
    sequence.SetIndexUnit("s")
    sequence.SetAttribute("PINN.SliceDelay", json.dumps(slices))
    sequence.SetAttribute("PINN.SliceAxis", axis)
    sequence.SetAttribute("PINN.Delays", json.dumps([float(value) for value in about["PostLabelingDelay"]]))


def _status_colors(legend: Path):
    """The colour table of status values with their meaning; one for the scene."""
    node = slicer.mrmlScene.GetFirstNodeByName("PINN status")
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "PINN status")
        node.SetTypeToUser()
        node.SetNumberOfColors(len(STATUS_COLORS))
        for row in _rows(legend):
            value = int(row["index"])
            node.SetColor(value, row["name"], *STATUS_COLORS[value], 0.0 if value == 0 else 1.0)
    return node


def _table(path: Path, name: str, node, *, upright: bool = False):
    """A .tsv as a table node; `upright`: its one row as two columns."""
    node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetName(name)
    rows = _rows(path)
    if upright:
        nodes.fill_table(node, {"figure": list(rows[0]), "value": list(rows[0].values())})
    else:
        nodes.fill_table(node, {column: [row[column] for row in rows] for column in rows[0]} if rows else {})
    return node


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
