"""The pictures of the documentation, by our own code: `python docs/pictures/make.py` (half a minute)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib

from pinn_engine.cli import main

HERE = Path(__file__).parent


def image(path: Path):
    """(X, Y) of a rectangle's map, first axis to the right."""
    return nib.load(path).get_fdata()[:, :, 0].T


def perfusion(folder: Path) -> None:
    main(["demo", "asl", "--out", str(folder), "--progress", "none"])
    (HERE / "demo.png").write_bytes((folder / "overview.png").read_bytes())


def heart(folder: Path) -> None:
    main(["demo", "cardiac", "--out", str(folder), "--progress", "none"])
    panels = {
        "samples of V at 12 TU (5 %)": image_at(folder / "phantom" / "phantom_movie.nii.gz", 12),
        "true D, mm²/TU": image(folder / "phantom" / "truth" / "simulation_D.nii.gz"),
        "fitted D": image(folder / "phantom_D.nii.gz"),
        "its standard deviation": image(folder / "phantom_desc-std_D.nii.gz"),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.2), layout="constrained")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        of_D = "D" in title and "V" not in title
        shown = axis.imshow(values, origin="lower", extent=(0, 10, 0, 10), cmap="viridis", vmin=0, vmax=0.13 if of_D else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("mm")
        figure.colorbar(shown, ax=axis, shrink=0.85)
    figure.savefig(HERE / "heart.png", dpi=110)


def image_at(path: Path, frame: int):
    return nib.load(path).get_fdata()[:, :, 0, frame].T


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        perfusion(Path(scratch, "asl"))
        heart(Path(scratch, "heart"))
