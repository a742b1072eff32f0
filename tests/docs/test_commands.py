"""Every command of the README and the docs is run, on inputs made small, or stands below with the reason why it is not."""

from __future__ import annotations

import shlex
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from documented import commands, documented, inline, python_blocks

from pinn_engine.asl.phantom import infant, make, write_bids
from pinn_engine.cardiac import shapes
from pinn_engine.cli import demo, heart, main, parser

NOT_RUN = {  # a command's beginning: why
    "python3 -m venv": "it makes the environment that the tests run in (.ci/run)",
    "pip install": "needs the network; .ci/run does it",
    "python -m pytest": "it is what runs",
    "python -m sphinx": "test_pages.py builds the site",
    "B=": "a shell's variable",
    "python -m monai.bundle": "5 s to import MONAI for each; tests/bundle runs both bundles with these configs",
    "python -m benchmarks": "minutes to half an hour",
    "pinn-engine cardiac fit heart.pts": "tests/cardiac/test_heart_inputs.py runs it on openCARP files with fibres",
    "pinn-engine cardiac fit 1-Map.mesh": "tests/cardiac/test_heart_inputs.py runs it on a map as CARTO 3 writes it",
    "pinn-engine cardiac fit spiral/phantom_movie.nii.gz": "a minute and more; tests/cardiac/test_reentry.py, test_field_inverse.py",
    "pinn-engine cardiac fit movie.nii.gz": "minutes; tests/cardiac/test_field_inverse.py",
    "pinn-engine cardiac fit sim/simulation_movie.nii.gz --unknown D,a,b": "half a minute; tests/cardiac/test_heart_fit.py",
}
SMALLER = {  # text of a command: what stands there in the test
    "phantom asl": "phantom asl --spacing 14",
    "--rectangle 10,10 --spacing 0.1 --duration 70": "--rectangle 5,5 --spacing 0.25 --duration 25",
    "--from 100 --duration 120": "--from 2 --duration 8 --spacing 0.4",
    "participant [--participant-label 01 02] [--session-label a] [--nprocs 4]": "participant --participant-label 01",  # a synopsis
    "participant --nprocs 4": "participant --nprocs 1",
    "asl|cardiac": "asl",
}


def reason(command: str) -> str | None:
    """Why a command is not run."""
    return next((why for beginning, why in NOT_RUN.items() if command.startswith(beginning)), None)


def filled(command: str) -> list[str]:
    """The words of the command, made small."""
    for text, small in SMALLER.items():
        command = command.replace(text, small)
    return shlex.split(command)


PAGES = sorted({page for pages in documented().values() for page in pages})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder in which the names that the docs use stand for small files."""
    home = tmp_path_factory.mktemp("docs")
    made = write_bids(make((12, 14, 8), seed=31, repeats=2), home / "BIDS_DIR")
    shutil.copytree(made["asl"].parent, home, dirs_exist_ok=True)
    for table in ("MANIFEST.csv", "TABLE.csv"):
        (home / table).write_text("id,input\none,sub-01_asl.nii.gz\n")
    baby = write_bids(infant(0), home / "infant" / "BIDS_DIR")
    shutil.copytree(baby["asl"].parent, home / "infant", dirs_exist_ok=True)
    shutil.copy(baby["mask"], home / "infant" / "gm.nii.gz")
    (home / "MAP.vtk").write_text(sheet())
    return home


def sheet() -> str:
    """A wave of 0.6 m/s over 24 x 15 mm, a third of its activation times missing, as a legacy VTK file."""
    flat, _ = shapes.rectangle((24.0, 15.0), 1.5)
    LAT = flat.points[:, 0] / 0.6 + np.random.default_rng(0).normal(0.0, 0.5, len(flat.points))
    LAT[::3] = np.nan
    head = ["# vtk DataFile Version 3.0", "sheet", "ASCII", "DATASET POLYDATA", f"POINTS {len(LAT)} float"]
    cells = [f"POLYGONS {len(flat.cells)} {4 * len(flat.cells)}", *(f"3 {a} {b} {c}" for a, b, c in flat.cells)]
    data = [f"POINT_DATA {len(LAT)}", "SCALARS LAT float 1", "LOOKUP_TABLE default", *map(str, LAT)]
    return "\n".join([*head, *(f"{x} {y} {z}" for x, y, z in flat.points), *cells, *data]) + "\n"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page, world, tmp_path, monkeypatch, capsys):
    """In the order in which a reader would type them."""
    here = tmp_path / "world"
    shutil.copytree(world, here)
    monkeypatch.setattr(demo, "SPACING", 12.0)
    smaller = partial(small_phantom, heart.make_phantom)
    monkeypatch.setattr(heart, "make_phantom", smaller)
    for command in (command for command, pages in documented().items() if page in pages):
        if reason(command) or (" demo " in command and documented()[command][0] != page):
            continue
        assert command.startswith("pinn-engine "), f"{page}: say in NOT_RUN why {command!r} is not run, or run it"
        monkeypatch.chdir(here / "infant" if "--preset infant" in command else here)
        assert run(filled(command)[1:]) == 0, (command, capsys.readouterr().err)


def run(words: list[str]) -> int:
    """The exit code of a call."""
    try:
        return main([*words, "--progress", "none"] if words[0] in ("asl", "demo", "bids", "cohort") else words)
    except SystemExit as stop:
        return int(stop.code or 0)


def small_phantom(real, out, tissue, share, noise, spacing, duration, *rest):
    return real(out, tissue, share, noise, max(spacing, 0.4), min(duration, 40.0), *rest)


@pytest.mark.parametrize("command", [command for command in documented() if command.startswith("pinn-engine") and reason(command)])
def test_what_is_not_run_is_at_least_understood(command):
    assert parser().parse_args(filled(command)[1:]).run


def test_every_reason_is_needed():
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in documented()), beginning


def test_what_counts_as_a_command():
    text = """Text, `pinn-engine demo asl --out demo` and the name `pinn-engine asl`.

    pinn-engine asl a.nii --out b   # a comment
    dS/dt = f c(t)

```console
$ one && pinn-engine bids a b group
```
```python
pinn-engine = 3
```
"""
    assert commands(text) == ["pinn-engine asl a.nii --out b", "pinn-engine bids a b group"]
    assert inline(text) == ["pinn-engine demo asl --out demo"]
    assert python_blocks(text) == ["pinn-engine = 3\n"]
