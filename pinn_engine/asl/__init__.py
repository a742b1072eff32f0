"""Arterial spin labelling: `read` a scan, `fit` it, or make a `phantom`."""

from .acquisition import Acquisition, AcquisitionOptions
from .fit import fit
from .phantom import make as phantom
from .result import ParameterMap, PerfusionFit
from .scan import Scan, read

__all__ = ["Acquisition", "AcquisitionOptions", "ParameterMap", "PerfusionFit", "Scan", "fit", "phantom", "read"]
