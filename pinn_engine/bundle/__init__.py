"""The MONAI bundles' classes: the only place that imports monai. What is fitted, read and written is the organs' and the cohort's."""

from .evaluator import StudyEvaluator, run_study
from .metrics import AccuracyFigure
from .network import FitInferer, PerfusionNetwork
from .network_heart import HeartNetwork, MovieSampling
from .settings import Settings, settings
from .subjects import Subjects
from .transforms import ReadMovied, ReadScand
from .workflow import HeartWorkflow, PerfusionWorkflow

__all__ = [
    "AccuracyFigure",
    "FitInferer",
    "HeartNetwork",
    "HeartWorkflow",
    "MovieSampling",
    "PerfusionNetwork",
    "PerfusionWorkflow",
    "ReadMovied",
    "ReadScand",
    "Settings",
    "StudyEvaluator",
    "Subjects",
    "run_study",
    "settings",
]
