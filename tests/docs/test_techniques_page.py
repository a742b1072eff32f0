"""The Python in docs/techniques.md runs as it stands and gives what the text says."""

import re
from pathlib import Path

import pytest
import torch

from pinn_engine.core import spread

PAGE = Path(__file__).parents[2] / "docs" / "techniques.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def run(block: str) -> dict:
    names: dict = {}
    exec(block, names)
    return names


def test_every_example_is_here():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_short(block):
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 13


def test_diffusion_forward():
    made = run(BLOCKS[0])
    t, x = spread(made["low"], made["high"], 1000).unbind(1)
    assert float((made["u"].value - torch.exp(-0.1 * torch.pi**2 * t) * torch.sin(torch.pi * x)).abs().max()) < 5e-3


def test_diffusion_inverse():
    made = run(BLOCKS[1])
    D, sd = float(made["fit"].values["D"]), float(made["fit"].std("D"))
    assert abs(D - 0.1) < 3 * sd < 0.02


def test_conditions_built_in():
    made = run(BLOCKS[2])
    t, x = spread(made["low"], made["high"], 1000).unbind(1)
    assert float((made["y"].value - torch.exp(-t) * torch.sin(torch.pi * x)).abs().max()) < 1e-3
