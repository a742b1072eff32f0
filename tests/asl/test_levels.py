"""How large the errors are taken to be: measured noise, and the model error that the data support, against the multivariate normal."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from small_scans import LONG_AND_SHORT, gls, phantom, plan, some_voxels

from pinn_engine.asl.curves import curves
from pinn_engine.asl.levels import MODEL_ERROR_LEVELS, measured_noise, model_error_by_evidence


def test_noise_of_repeats_is_kept():
    p = plan(phantom(seed=15).scan())
    assert measured_noise(p) is p.c


@pytest.mark.parametrize("method", ["nlls", "pinn"])
def test_without_repeats_the_noise_comes_from_the_residuals(method):
    """Right within a few per cent where the model is right, and the plan is left as it was."""
    made = phantom(seed=15, repeats=1, plds=tuple(np.linspace(0.2, 3.0, 12)))
    p = plan(made.scan(t1_map=True), method=method)
    before = p.c
    found = measured_noise(p)
    truth = np.sqrt(2) * made.noise_sd * before.scale
    assert np.median(found.noise / truth) == pytest.approx(1, abs=0.06)
    assert p.c is before
    assert found.degrees == 0


MADE = {"pcasl": {}, "pasl": {"labeling": "PASL"}, "slices": {"slice_time": 0.04}, "durations": LONG_AND_SHORT}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())
def test_evidence_is_the_probability_of_the_data(made):
    """Differences of log p(data | level), flow and arrival time integrated out, against scipy's normal density over the same prior."""
    s = some_voxels(phantom(seed=16, **made).scan(), 120)
    p = plan(s)
    rows = torch.arange(len(p.c))
    levels = (0.01, 0.1, 0.5)
    mean = 0.7 if s.acquisition.labeling == "PASL" else 1.3
    expected = np.zeros(len(levels))
    for k, level in enumerate(levels):
        for voxel in range(len(p.c)):
            t, covariance = gls(p, voxel, level)
            model = p.kinetics(int(p.group[voxel]))
            logs = []
            for att in p.att.numpy():
                curve = model.closed_form(torch.as_tensor(t), p.tau, torch.tensor(att), torch.tensor(1.65))[0].numpy()
                total = covariance + p.flow_sd**2 * np.outer(curve, curve)
                logs.append(multivariate_normal(cov=total).logpdf(p.c.data[voxel]) - 0.5 * (att - mean) ** 2)
            expected[k] += logsumexp(logs)
    found = np.array([p.evidence(rows, level * p.equation_unit) for level in levels])
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=0.02, atol=0.1)


def test_evidence_finds_no_model_error_where_there_is_none_and_some_where_there_is():
    noisy = {"seed": 17, "snr": 1500.0, "repeats": 8}
    right = model_error_by_evidence(plan(phantom(**noisy).scan(t1_map=True)))
    dispersed = model_error_by_evidence(plan(phantom(dispersion=0.3, **noisy).scan(t1_map=True)))
    wrong_t1 = model_error_by_evidence(plan(phantom(**noisy).scan()))
    assert right <= 0.01
    assert dispersed >= 0.03
    assert wrong_t1 > right
    assert {right, dispersed, wrong_t1} <= set(MODEL_ERROR_LEVELS)


def test_evidence_does_not_depend_on_the_order_of_voxels_or_the_seed_of_a_small_scan():
    s = phantom(seed=17, dispersion=0.3).scan(t1_map=True)
    assert len(curves(s)) < 4000
    assert model_error_by_evidence(plan(s)) == model_error_by_evidence(plan(s, seed=5))
