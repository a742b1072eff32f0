"""One fit of the perfusion module as work for a run: inputs out, maps in, views set; and which nodes belong to it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

from PINNCommonLib import nodes
from PINNCommonLib.run import Work

from . import inputs, regions, results
from .options import Settings, in_words_of_the_panel

RESULT = "PINN.result."  # node references of the parameter node


@dataclasses.dataclass
class Scan:
    """The nodes that go into a fit; `background` is only shown, `regions` only tabulated."""

    asl: object
    m0: object = None
    mask: object = None
    background: object = None
    regions: object = None


def work(scan: Scan, settings: Settings, into: MutableMapping[str, object], say: Callable[[str], None], done: Callable[[], None]) -> Work:
    """`into`: role -> node, filled at the end; nodes that it already has are filled anew. `say` takes remarks for the log, `done` is
    called when `into` is filled."""
    begin = time.monotonic()

    def prepare(folder: Path) -> list[str]:
        return inputs.export(folder, settings, scan.asl, scan.m0, scan.mask)

    def collect(folder: Path) -> str:
        prefix, out = inputs.prefix(scan.asl), inputs.output_folder(folder, settings)
        sequence = inputs.sequence_of(scan.asl)
        volume = inputs.proxy_of(sequence) if sequence is not None else scan.asl
        transform = None if volume is None else volume.GetParentTransformNode()
        results.collect(out, prefix, f"{prefix} perfusion", scan.asl, transform, into)
        if scan.regions is not None:
            add_region_table(scan.regions, into)
        below = scan.background or scan.m0
        if below is not None and below.IsA("vtkMRMLSequenceNode"):
            below = inputs.proxy_of(below)
        nodes.show_layers(below, into["cbf"])
        for note in results.notes(out, prefix):
            say(note)
        done()
        return results.sentence(into, out, prefix, time.monotonic() - begin)

    return Work(prepare, collect, settings.device, in_words_of_the_panel)


def add_region_table(chosen, into: MutableMapping[str, object]) -> object:
    """The table of the maps over regions; refilled where there is one."""
    into["regions"] = regions.region_table(into, chosen, into.get("regions"))
    into["regions"].SetName(f"{into['cbf'].GetName()} regions")
    return into["regions"]


def kept(parameter_node) -> dict[str, object]:
    """The results that a parameter node (vtkMRMLScriptedModuleNode) refers to, by role."""
    roles = [parameter_node.GetNthNodeReferenceRole(index) for index in range(parameter_node.GetNumberOfNodeReferenceRoles())]
    found = {role.removeprefix(RESULT): parameter_node.GetNodeReference(role) for role in roles if role and role.startswith(RESULT)}
    return {role: node for role, node in found.items() if node is not None}


def keep(parameter_node, into: MutableMapping[str, object]) -> None:
    """Refer to the results, so that a saved scene knows them."""
    for role in set(kept(parameter_node)) - set(into):
        parameter_node.SetNodeReferenceID(RESULT + role, None)
    for role, node in into.items():
        parameter_node.SetNodeReferenceID(RESULT + role, node.GetID())
