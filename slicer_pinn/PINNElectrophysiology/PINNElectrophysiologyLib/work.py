"""What one press of Apply does, for the runner that both modules share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from PINNCommonLib.run import Work

from . import inputs, results
from .options import Settings


def work(nodes, settings: Settings, keep: Callable[[dict], None], log: Callable[[str], None]) -> Work:
    """`nodes`: input model, reference volume or None, output model or None; `keep` gets the made nodes by role."""
    model, reference, output = nodes
    begin = time.monotonic()

    def collect(folder: Path) -> str:
        made, sentence, notes = results.collect(folder, settings, model, reference, output)
        for note in notes:
            log(note)
        keep(made)
        return f"{sentence} {time.monotonic() - begin:.0f} s."

    return Work(lambda folder: inputs.export(folder, settings, model, reference), collect, settings.device)
