"""What the tests of the command line share: small scans on disk, a run in this process, what it wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pinn_engine.asl.phantom import make, write_bids
from pinn_engine.cli import main
from pinn_engine.files.grid import Grid
from pinn_engine.files.output import OutputFolder

SHAPE = (12, 14, 8)


def oblique() -> Grid:
    """A rotated grid whose qform and sform have codes of their own."""
    turn, c, s = np.eye(4), np.cos(0.2), np.sin(0.2)
    turn[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-14.0, 13.0, 14.0])
    turn[:3, 3] = [70, -80, -50]
    return Grid(SHAPE, turn, 3, 4)


def write_scan(folder: Path, **made) -> dict[str, str]:
    """A phantom as BIDS; its files by name."""
    phantom = replace(make(SHAPE, seed=31, repeats=2, **made), grid=oblique())
    paths = {name: str(path) for name, path in write_bids(phantom, folder).items()}
    half = phantom.mask & (np.arange(SHAPE[0]) < 6)[:, None, None]
    tissue = np.stack([phantom.tissue == k for k in (1, 2, 3)], axis=3).astype(np.float32)
    paths["tissue_maps"] = str(OutputFolder(folder).write_volume("tissue.nii.gz", tissue, phantom.grid))
    return paths | {"half": str(OutputFolder(folder).write_volume("half_mask.nii.gz", half, phantom.grid, labels=True))}


def run(*arguments: object) -> int:
    """The exit code of one call."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)


def written(folder: Path) -> dict[str, bytes]:
    """All files but those of logs/, which hold dates and run times."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if "logs" not in path.relative_to(folder).parts}
