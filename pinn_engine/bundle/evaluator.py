"""The engine that runs a study: one subject after the other through `cohort.run_one`, none of which can stop the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from ..cli.perfusion import set_threads
from ..cli.progress import reporter
from ..cohort.group import write_dataset
from ..cohort.one import DONE, FAULT, SOME_FAILED, Outcome, run_one
from ..errors import InputError
from ..files.output import OutputFolder
from .metrics import accuracy
from .settings import Settings, one_line
from .subjects import Subjects


class StudyEvaluator(Evaluator):
    """An ignite engine whose iteration is one subject, read, fitted and written by `cohort.run_one`; handlers and metrics attach as usual.

    What is loaded by MONAI's loaders are paths: an image that cannot be read is that subject's failure, and never ends the loop. After each
    iteration `state.output` holds "id", "outcome" and, where there is truth to compare with, "accuracy" (rows). `run` may be called again.
    """

    def __init__(
        self,
        settings: Settings,
        subjects: Subjects | None = None,
        val_handlers: Sequence[Any] | None = None,
        key_val_metric: dict[str, Any] | None = None,
        additional_metrics: dict[str, Any] | None = None,
    ):
        self.settings = settings
        self.subjects = Subjects(settings) if subjects is None else subjects
        self.outcomes: dict[str, Outcome] = {}
        self.rows: list[dict[str, Any]] = []
        super().__init__(
            device=settings.device,
            val_data_loader=self.subjects,
            epoch_length=1,  # the true number is known once the data are looked for, in run
            key_val_metric=key_val_metric,
            additional_metrics=additional_metrics,
            val_handlers=val_handlers,
            decollate=False,
        )

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Fit every subject. Raises InputError where there is none, or nowhere to write; a subject's failure is in `outcomes`."""
        out = self.settings.path("output_dir")
        if out is None:
            raise InputError("--output_dir", "is missing", fix="give the folder for the results")
        set_threads(self.settings.call.threads)
        self.outcomes, self.rows = {}, []
        self.state.epoch_length = len(self.subjects)
        self.folder = OutputFolder(out)
        super().run(*args, **kwargs)
        missing = {one["id"] for one in self.subjects} - set(self.outcomes)
        if missing:  # ignite ends quietly when its data do
            raise RuntimeError(f"the engine left out {', '.join(sorted(missing))}")
        self._conclude()

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        id, out = batchdata["id"], str(self.folder.path)
        task = self.settings.job(id, batchdata["image"], batchdata["where"], out, batchdata["truth"]).task
        outcome = self.outcomes[id] = run_one(task, reporter(self.settings.call.progress))
        engine.state.output = {"id": id, "outcome": outcome, "accuracy": []}
        if outcome.code == DONE:
            for caution in outcome.cautions:
                print(f"caution: {id}: {caution}")
            print(f"{id}: {outcome.message}", flush=True)
            if task.truth:
                engine.state.output["accuracy"] = rows = [{"id": id, **row} for row in accuracy(self.settings.organ, outcome, task.truth)]
                self.rows += rows
        else:
            sys.stderr.write((outcome.detail if outcome.code == FAULT else "") + f"error: {id}: {outcome.message}\n")
        return engine.state.output

    @property
    def code(self) -> int:
        """0 all done, 3 some subjects failed."""
        return DONE if all(one.code == DONE for one in self.outcomes.values()) else SOME_FAILED

    def _conclude(self) -> None:
        failed = {id: one.message for id, one in self.outcomes.items() if one.code != DONE}
        done = [id for id in self.outcomes if id not in failed]
        seconds = {id: dict(one.seconds) for id, one in self.outcomes.items()}
        cautions = {id: list(one.cautions) for id, one in self.outcomes.items() if one.cautions}
        self.folder.write_json("logs/run.json", {"done": done, "failed": failed, "cautions": cautions, "seconds": seconds})
        if self.settings.organ == "asl":
            data = Path(str(self.settings.path("dataset_dir"))).absolute()
            write_dataset(self.folder, data if data.is_dir() else data.parent, "pinn_engine perfusion maps")
        if self.rows:
            self.folder.write_tsv("accuracy.tsv", self.rows)
        if failed:
            sys.stderr.write(f"{len(failed)} of {len(self.outcomes)} failed: {', '.join(failed)}; see {Path('logs') / 'run.json'}\n")

    def finish(self) -> None:
        """End the process with exit code 3 where a subject failed."""
        if self.code:
            raise SystemExit(self.code)


def run_study(evaluator: StudyEvaluator) -> None:
    """`evaluator.run()` for a config's `run`: what is wrong with the call is one line, exit 2."""
    with one_line():
        evaluator.run()
