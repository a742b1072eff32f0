"""The page that `benchmarks.compare` writes, and the README's figures, which come from it and from nowhere else."""

from __future__ import annotations

import pytest
from documented import ROOT

from benchmarks import compare, peers
from benchmarks.side_by_side import Entry, Section, attempt

TOLD = {"seconds": 2.0, "wall": 2.5, "peak": 0.75, "before": 0.25, "version": "1.2"}


def section() -> Section:
    ours = Entry("ours", ("1.0",), TOLD, items=1000, reference=True, headline="**ours**")
    theirs = Entry("theirs", ("2.0",), TOLD | {"seconds": 6.0}, items=10, headline="theirs")
    return Section("Brain", ("error",), "voxel", (ours, theirs, attempt("a third", missing, lambda made: ())))


def missing():
    raise peers.CannotRun("pip could not install it")


def test_times_are_told_in_units_of_ours():
    head, _, ours, theirs, third = section().table()
    assert head.startswith("| method | version | error | CPU s a voxel | times ours |")
    assert ours == "| ours | 1.2 | 1.0 | 2,000 us | 1 x | 2.5 | 0.75 (0.25) |  |"
    assert theirs == "| theirs | 1.2 | 2.0 | 0.6 s | 300 x | 2.5 | 0.75 (0.25) |  |"
    assert third == "| a third |  |  |  |  |  |  | not run: pip could not install it |"


def test_the_page_has_the_readmes_figures():
    page = compare.report([section()], ["Machine."])
    short = compare.figures(page)
    assert short is not None
    assert "| **ours** | 1.0 | 2,000 us | 1 x |" in short
    assert "a third" not in short
    assert compare.figures("no marks") is None
    readme = compare.with_figures(f"Above\n{compare.BEGIN}\nold\n{compare.END}\nbelow\n", page)
    assert compare.figures(readme) == short
    assert readme.startswith("Above\n")
    assert readme.endswith("\nbelow\n")
    with pytest.raises(ValueError, match="no place for the figures"):
        compare.with_figures("no marks", page)


def test_the_readmes_figures_are_the_measured_ones():
    """Whatever stands between the marks in the README is what the last full run wrote."""
    shown = compare.figures((ROOT / "README.md").read_text(encoding="utf-8"))
    if shown is None:
        pytest.skip("the README has no figures between the marks")
    assert shown == compare.figures((ROOT / "benchmarks" / "results" / "compare.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("wrong", ["asl,brains", ""])
def test_parts_that_do_not_exist_are_named(wrong, capsys):
    with pytest.raises(SystemExit):
        compare.main(["--only", wrong])
    assert "there are asl, cardiac" in capsys.readouterr().err
