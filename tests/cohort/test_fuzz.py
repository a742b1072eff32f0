"""A share of the damaged inputs of `fuzz.py`; ten thousand are run by hand (benchmarks/results/cohort.md)."""

from __future__ import annotations

import random

from fuzz import attempt, mutate, run, seeds


def test_damaged_inputs_end_in_one_line():
    ends, faults = run(180, seed=7)
    assert not faults, "\n".join(faults)
    assert sum(count for name, count in ends.items() if name.endswith("bad input")) > 60  # the damage is real
    assert sum(count for name, count in ends.items() if name.endswith("done")) > 30  # and not always fatal


def test_undamaged_inputs_are_fine(tmp_path):
    for kind, path in seeds(tmp_path / "good").items():
        assert attempt(kind, path, -1, tmp_path / "try") == "done", kind


def test_mutations_change_the_bytes(tmp_path):
    for kind, path in seeds(tmp_path).items():
        content = path.read_bytes()
        assert sum(mutate(content, path.name, random.Random(seed)) != content for seed in range(10)) >= 8, kind
