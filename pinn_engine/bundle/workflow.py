"""The bundles as Python workflows: `python -m monai.bundle run_workflow pinn_engine.bundle.PerfusionWorkflow --dataset_dir … …`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import PythonicWorkflow
from monai.data import Dataset

from ..errors import InputError
from .evaluator import StudyEvaluator, run_study
from .network import FitInferer, PerfusionNetwork
from .network_heart import HeartNetwork
from .settings import Settings, one_line
from .subjects import Subjects
from .transforms import ReadMovied, ReadScand


class _FitWorkflow(PythonicWorkflow):
    """`values`: the organ's options and dataset_dir, output_dir, …, as on the bundle's command line; `initialize` refuses others.

    `bundle_root` is the bundle's folder (default: monai_bundle/NAME beside the package, as in a checkout), where metadata.json is read.
    """

    organ: str
    name: str
    defaults: dict[str, Any]
    network: type[torch.nn.Module]
    reader: Any

    def __init__(self, workflow_type: str | None = "infer", meta_file: str | None = None, bundle_root: str | None = None, **values: Any):
        root = Path(str(bundle_root)) if bundle_root is not None else Path(__file__).parents[2] / "monai_bundle" / self.name
        meta = Path(str(meta_file)) if meta_file is not None else root / "configs" / "metadata.json"
        with one_line():
            if not meta.is_file():
                raise InputError(meta, "the bundle's metadata is not there", fix="give --bundle_root, the folder of the bundle")
        super().__init__(workflow_type=workflow_type, meta_file=str(meta))
        self.root, self.given = root, {**self.defaults, **values}

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Check what was given; nothing is read yet."""
        super().initialize()
        with one_line():
            self.settings = Settings(self.organ, self.given)
        self.study = StudyEvaluator(self.settings)

    def run(self) -> None:
        """Fit every subject of `dataset_dir`."""
        run_study(self.evaluator)

    def finalize(self) -> None:
        """Exit code 3 where a subject failed."""
        self.evaluator.finish()

    def get_bundle_root(self) -> str:
        return str(self.root)

    def get_device(self) -> torch.device:
        return self.settings.device

    def get_dataset_dir(self) -> str | None:
        return self.settings.path("dataset_dir")

    def get_dataset_data(self) -> Subjects:
        return self.study.subjects

    def get_preprocessing(self) -> Any:
        return self.reader(self.settings)

    def get_dataset(self) -> Dataset:
        return Dataset(self.dataset_data, self.preprocessing)

    def get_evaluator(self) -> StudyEvaluator:
        return self.study

    def get_network_def(self) -> torch.nn.Module:
        return self.network(self.settings)

    def get_inferer(self) -> FitInferer:
        return FitInferer()


class PerfusionWorkflow(_FitWorkflow):
    """The bundle asl_perfusion_pinn."""

    organ, name, defaults = "asl", "asl_perfusion_pinn", {}
    network, reader = PerfusionNetwork, ReadScand


class HeartWorkflow(_FitWorkflow):
    """The bundle cardiac_ep_pinn; D is fitted as a map, as in its config."""

    organ, name, defaults = "cardiac", "cardiac_ep_pinn", {"map": "D"}
    network, reader = HeartNetwork, ReadMovied
