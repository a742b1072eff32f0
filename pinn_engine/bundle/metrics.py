"""Errors against a phantom's truth: the command line's own tables, and one figure of them as a metric of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.metrics import Metric

from ..cohort.one import Outcome
from ..files import nifti


def accuracy(organ: str, outcome: Outcome, truth: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows by map and region, beside a constant; `truth` names the files of the true maps."""
    true = {key: nifti.read(path, what=f"true {key}")[0] for key, path in truth.items()}
    if organ == "asl":
        from ..report.truth import demo_table

        return [{k: v for k, v in row.items() if k != "title"} for row in demo_table(outcome.fit, true)]
    from ..cli.heart import accuracy as heart_accuracy
    from ..cli.heart import dice

    value, spread = (nifti.read(next(f for f in outcome.files if f.endswith(end)))[0] for end in ("_D.nii.gz", "_desc-std_D.nii.gz"))
    overlap = dice(true["D"], value)
    return [{"map": "D", **row, "dice": overlap} for row in heart_accuracy(true["D"], value, spread)]


class AccuracyFigure(Metric):
    """The mean over subjects of one figure of one map in one region, such as the median |error| of CBF in grey matter."""

    def __init__(self, map: str = "cbf", region: str = "Grey matter", figure: str = "median_abs_error"):
        self.asked = {"map": map, "region": region}
        self.figure = figure
        super().__init__(output_transform=lambda output: output["accuracy"])

    def reset(self) -> None:
        self.values: list[float] = []

    def update(self, output: list[dict[str, Any]]) -> None:
        self.values += [row[self.figure] for row in output if all(row[key] == value for key, value in self.asked.items())]

    def compute(self) -> float:
        return sum(self.values) / len(self.values) if self.values else float("nan")
