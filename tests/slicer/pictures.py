"""Pictures for docs/slicer.md and the heart module's icons, made by the modules themselves in the shim.

    python tests/slicer/pictures.py FOLDER [--fits]

Panels are photographed in the shim, not in Slicer; `--fits` runs the phantoms first, so that the panels show results.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
HERE = Path(__file__).resolve().parent
EXTENSION = HERE.parents[1] / "slicer_pinn"
sys.path.insert(0, str(HERE))

import shim  # noqa: E402


def heart_panel(target: Path, fits: bool) -> None:
    """The electrophysiology panel with a small sample."""
    loaded = shim.load_module(EXTENSION / "PINNElectrophysiology" / "PINNElectrophysiology.py")
    logic, node = loaded.widget.logic, loaded.widget._parameterNode
    from PINNElectrophysiologyLib import scenarios

    node.inputModel = scenarios.make_node(**scenarios.SMALL)
    if fits:
        logic.processParameterNode(node, waitForCompletion=True)
    loaded.grab(target)


def perfusion_panel(target: Path, fits: bool) -> None:
    """The perfusion panel with a small phantom."""
    loaded = shim.load_module(EXTENSION / "PINNPerfusion" / "PINNPerfusion.py")
    logic, node = loaded.widget.logic, loaded.widget._parameterNode
    if fits:
        node.asl, node.m0 = logic.loadPhantom(12.0)
        logic.processParameterNode(node, waitForCompletion=True)
    loaded.grab(target)


def shell_picture(target: Path, mesh, values: np.ndarray, title: str, size: tuple[float, float]) -> None:
    """A model seen from the side, coloured; without a graphics card."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from vtk.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(mesh.GetPoints().GetData())
    cells = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    normal = np.cross(points[cells[:, 1]] - points[cells[:, 0]], points[cells[:, 2]] - points[cells[:, 0]])
    outward = np.einsum("md,md->m", normal, points[cells].mean(axis=1) - points.mean(axis=0))
    normal *= np.sign(outward)[:, None]
    front = normal[:, 1] < 0
    figure, axes = plt.subplots(figsize=size, dpi=100)
    axes.tripcolor(points[:, 2], points[:, 0], cells[front], values, shading="gouraud", cmap="turbo")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_position((0.02, 0.02, 0.96, 0.86 if title else 0.96))
    axes.set_title(title, fontsize=9)
    figure.savefig(target, transparent=True)
    plt.close(figure)


def icons() -> None:
    """The module's icon and the sample's thumbnail (about 260 x 280)."""
    from PINNElectrophysiologyLib.sample import shell

    folder = EXTENSION / "PINNElectrophysiology" / "Resources" / "Icons"
    folder.mkdir(exist_ok=True)
    mesh, LAT, _ = shell()
    shell_picture(folder / "HeartSample.png", mesh, LAT, "Heart with a slow band", (2.6, 2.8))
    shell_picture(folder / "PINNElectrophysiology.png", mesh, LAT, "", size=(1.28, 1.28))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fits", action="store_true")
    call = parser.parse_args()
    call.folder.mkdir(parents=True, exist_ok=True)
    shim.start()
    heart_panel(call.folder / "panel_heart.png", call.fits)
    icons()
    shim.new_scene()
    perfusion_panel(call.folder / "panel_perfusion.png", call.fits)


if __name__ == "__main__":
    main()
