"""Small scans made by hand or by the phantom, and the parts that a fit makes of them: what the fitting tests begin from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from pinn_engine.asl.acquisition import Acquisition, Sourced
from pinn_engine.asl.curves import curves
from pinn_engine.asl.fit import fit
from pinn_engine.asl.phantom import make
from pinn_engine.asl.plan import Plan, Settings
from pinn_engine.asl.problems import FlowProblem
from pinn_engine.asl.scan import Scan
from pinn_engine.files.grid import Grid

SHAPE = (16, 18, 10)  # 762 voxels in the mask, 332 of them grey matter
GM, WM = 1, 2
LONG_AND_SHORT = {"label_duration": (1.0, 1.2, 1.4, 1.6, 1.8, 1.8), "plds": (0.4, 0.7, 1.1, 1.5, 1.9, 2.4)}

phantom = cache(lambda **made: make(**{"shape": SHAPE, "repeats": 2, **made}))


@cache
def fitted(t1_map: bool = True, made: tuple = (), **asked):
    """The fit of a phantom (`made`: items of a dict), remembered."""
    return fit(phantom(**dict(made)).scan(t1_map=t1_map), **asked)


def scan(difference, pld, duration=1.8, labeling="PCASL", m0=None, mask=None, slice_delay=None, t1=1.33, alpha=0.85) -> Scan:
    """A scan of given differences (X, Y, Z, N)."""
    difference = np.asarray(difference, np.float32)
    shape = difference.shape[:3]
    constants = {
        "alpha": Sourced(alpha, "test"),
        "t1_blood": Sourced(1.65, "test", "s"),
        "t1_tissue": Sourced(t1, "test", "s"),
        "partition": Sourced(0.9, "test", "mL/g"),
    }
    pld = np.asarray(pld, float)
    delay = np.zeros(shape[2]) if slice_delay is None else np.asarray(slice_delay, float)
    acquisition = Acquisition(
        labeling, pld, np.broadcast_to(np.asarray(duration, float), pld.shape), delay, 2, **constants, origins=dict(constants)
    )
    mask = np.ones(shape, bool) if mask is None else mask
    grid = Grid(shape, np.diag([3.0, 3, 5, 1]))
    m0 = None if m0 is None else np.broadcast_to(np.asarray(m0, np.float32), shape)
    return Scan(difference, acquisition, mask, grid, "sub-01", "sub-01_asl.nii.gz", m0=m0)


def some_voxels(s: Scan, every: int) -> Scan:
    """The scan with each `every`-th voxel of its mask."""
    mask = np.zeros(s.mask.size, bool)
    mask[np.flatnonzero(s.mask)[::every]] = True
    return replace(s, mask=mask.reshape(s.mask.shape))


def plan(s: Scan, **settings) -> Plan:
    return Plan(curves(s), s, Settings(**{"dtype": torch.float64, **settings}))


def flow_problem(p: Plan, model_error: float = 0.1) -> FlowProblem:
    """The problem of all voxels with the flow eliminated, as `fit` makes it."""
    rows = torch.arange(len(p.c))
    data, precision = p.whitened(rows, p.tables, model_error * p.equation_unit)
    return FlowProblem(p.prediction(rows), data, precision, p.unknowns(), p.flow_sd)


def gls(p: Plan, voxel: int, model_error: float) -> tuple[np.ndarray, np.ndarray]:
    """Data times (K,) and the covariance (K, K) that noise and model error give a voxel's data in continuous time, by hand.

    An equation that errs by white noise of level q, e' + e/T' = q w, has the Ornstein-Uhlenbeck covariance started at 0.
    """
    t = p.c.times + p.c.delays[p.c.delay[voxel]]
    rate = float(p.kinetics(int(p.group[voxel])).loss_rate)
    q = model_error * p.equation_unit
    apart, total = np.abs(t[:, None] - t), t[:, None] + t
    ornstein = q**2 / (2 * rate) * (np.exp(-rate * apart) - np.exp(-rate * total)) * (p.c.label_duration[:, None] == p.c.label_duration)
    return t, np.diag(p.c.noise[voxel] ** 2 / p.c.repeats) + ornstein
