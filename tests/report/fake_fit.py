"""A fit that was never fitted: a phantom's truth with noise on it, to show the report without the engine."""

from dataclasses import replace

import numpy as np

from pinn_engine.asl.maps import ATT, CBF, RELATIVE_CBF
from pinn_engine.asl.phantom import Phantom, make
from pinn_engine.asl.result import ParameterMap, PerfusionFit

MEANING = {
    1: "The fit converged.",
    2: "The fit stopped at the step limit before it converged.",
    4: "A parameter lies on its bound.",
    6: "Nothing was fitted.",
}


def fake_fit(p: Phantom | None = None, *, single=False, relative=False, failed=False, source="sub-01_asl.nii.gz") -> PerfusionFit:
    if p is None:
        p = make((20, 24, 8), repeats=3, plds=(1.8,) if single else None)
    rng, mask = np.random.default_rng(0), p.mask
    plds, first = np.unique(p.acquisition.pld, return_index=True)
    data = np.stack([p.difference[..., p.acquisition.pld == pld].mean(axis=-1) for pld in plds], axis=-1)
    clean = np.stack([make(**{**p.settings, "snr": None}).difference[..., i] for i in first], axis=-1) * (not failed)
    status = np.where(mask, rng.choice([1, 1, 1, 1, 1, 1, 2, 4], mask.shape), 0).astype(np.uint8)
    maps = {}
    for kind, true, sd in ((RELATIVE_CBF if relative else CBF, p.cbf, 4.0), (ATT, p.att, 0.08)):
        std = (sd * (1 + 0.5 * (p.tissue == 2))).astype(np.float32)
        value = np.where(mask, true + std * rng.standard_normal(mask.shape), 0).astype(np.float32)
        maps[kind.key] = ParameterMap(kind, value * (not failed), std * mask * (not failed))
    if single:
        del maps["att"]
    notes = ("Without a T1 map, white-matter CBF is too low by about a third.",)
    return PerfusionFit(
        scan=replace(p.scan(), notes=notes, source=source),
        maps=maps,
        status=(mask * 6).astype(np.uint8) if failed else status,
        status_meaning=MEANING,
        misfit=(mask * np.abs(rng.normal(1, 0.25, mask.shape)) * (not failed)).astype(np.float32),
        pld=plds,
        label_duration=p.acquisition.label_duration[first],
        repeats=np.full(len(plds), len(p.acquisition.pld) // len(plds)),
        data=np.where(mask[..., None], data, 0).astype(np.float32),
        fitted=clean.astype(np.float32),
        fitted_std=np.full_like(clean, 0.6, dtype=np.float32) * (not failed),
        convergence={"cost": [400.0, 80.0, 21.0, 6.2, 3.4, 3.1, 3.05], "active": [1.0, 1.0, 0.9, 0.5, 0.2, 0.05, 0.01]},
        settings={
            "method": "pinn",
            "network": "features",
            "model": "buxton",
            "seed": 0,
            "versions": {"pinn_engine": "0.1.0", "torch": "2.8.0"},
        },
    )
