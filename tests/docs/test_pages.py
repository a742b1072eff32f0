"""The documentation: the site builds without a warning, every page is reached, links lead somewhere, Python blocks run."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
import torch
from documented import PAGES, ROOT, python_blocks

DOCS = ROOT / "docs"


def test_the_site_builds_without_a_warning(tmp_path, capsys):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name)  # in [docs] and [test]
    from sphinx.cmd.build import main

    assert main(["-q", "-W", "--keep-going", "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "site")]) == 0, (
        capsys.readouterr().err
    )
    for page in ("start", "physics", "uncertainty", "limits", "organ", "faq", "api", "perfusion", "cardiac", "results/asl"):
        assert (tmp_path / "site" / f"{page}.html").exists(), page
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("pinn_engine.asl.fit", "pinn_engine.core.LevenbergMarquardt", "pinn_engine.cohort.one.run_one"):
        assert f'id="{name}"' in api, name


def test_every_docs_page_is_reached():
    """Sphinx warns of pages outside every table of contents; this tells it without Sphinx."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = [line.removesuffix("*") for line in index.splitlines() if re.fullmatch(r"[a-z]+\*?", line)]
    lost = [page.stem for page in DOCS.glob("*.md") if page.stem != "index" and not any(page.stem.startswith(entry) for entry in entries)]
    assert not lost


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_worked_organ_fits_what_it_says(capsys, monkeypatch):
    """docs/organ.md as it stands: right without noise, intervals hold, and without the equation nothing is found."""
    module = ModuleType("organ")
    monkeypatch.setitem(sys.modules, "organ", module)  # dataclasses look their module up
    room = vars(module)
    for block in python_blocks((DOCS / "organ.md").read_text(encoding="utf-8")):
        exec(block, room)
    T2, times, found = room["T2"], room["times"], room["found"]
    assert "median error" in capsys.readouterr().out
    assert set(found.status.tolist()) == {1}
    assert float((found.values["r2"] * T2 - 1).abs().median()) < 0.02
    inside = (found.values["r2"] - 1 / T2).abs() < 1.96 * found.std("r2")
    assert 0.92 < float(inside.double().mean()) <= 1.0
    few = slice(0, 100)
    clean = room["Echoes"](times, 100 * torch.exp(-times / T2[few, None]), 1e-3)
    torch.testing.assert_close(room["fit"](clean).values["r2"] * T2[few], torch.ones(100, dtype=torch.float64), rtol=2e-3, atol=0)
    without = room["fit"](clean, model_error=1e4)
    assert float((without.values["r2"] * T2[few] - 1).abs().median()) > 0.1
    with pytest.raises(Exception, match="look like milliseconds"):
        room["Echoes"](1000 * times, clean.signal, 1.0)


def test_the_first_lines_of_python_run(capsys):
    """docs/start.md."""
    for block in python_blocks((DOCS / "start.md").read_text(encoding="utf-8")):
        exec(block, {})
    assert capsys.readouterr().out.split("\n")[:2] == ["(12, 14, 8) (12, 14, 8)", "['att', 'cbf']"]
