"""`--preset infant`: CBF and arrival time of every voxel and one T1 of blood of the subject. Seeds that nothing was tuned on."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from pinn_engine import asl
from pinn_engine.asl import methods
from pinn_engine.asl.acquisition import Sourced
from pinn_engine.asl.curves import curves
from pinn_engine.asl.maps import VoxelStatus
from pinn_engine.asl.phantom import infant
from pinn_engine.asl.plan import Plan, Settings
from pinn_engine.asl.presets import PRESETS
from pinn_engine.asl.subject import fit as subject_fit
from pinn_engine.asl.subject import tiles as tiling
from pinn_engine.asl.subject.evidence import SubjectValue, find_mode, posterior
from pinn_engine.asl.subject.factors import ArrivalFactors
from pinn_engine.asl.subject.outputs import add_t1b
from pinn_engine.errors import InputError
from pinn_engine.report import words

fit_module = importlib.import_module("pinn_engine.asl.fit")  # the name `asl.fit` is the function


@cache
def subject(noise: float = 0.05, seed: int = 704):
    return infant(seed, noise)


@cache
def joint(noise: float = 0.05, seed: int = 704):
    return asl.fit(subject(noise, seed).scan(), preset="infant")


@cache
def small(noise: float = 0.05, seed: int = 704):
    """One half of the region: quicker."""
    p = subject(noise, seed)
    return replace(p, mask=p.mask & (np.arange(p.mask.shape[0]) < 12)[:, None, None])


@cache
def small_joint(noise: float = 0.05, seed: int = 704):
    return asl.fit(small(noise, seed).scan(), preset="infant")


def given_t1b(scan, seconds: float):
    return replace(scan, acquisition=replace(scan.acquisition, t1_blood=Sourced(seconds, "option --t1b", "s")))


def errors(fit, p) -> tuple[float, float]:
    return tuple(float(np.abs(fit.maps[n].value - truth)[p.mask].mean()) for n, truth in (("cbf", p.cbf), ("att", p.att)))


def test_without_noise_the_truth_comes_back():
    p, fit = subject(0.0), joint(0.0)
    m = p.mask
    assert np.abs(fit.maps["cbf"].value / np.where(m, p.cbf, 1) - 1)[m].max() < 0.005
    assert np.abs(fit.maps["att"].value - p.att)[m].max() < 0.002
    assert np.abs(fit.maps["t1b"].value[m] / p.acquisition.t1_blood.number - 1).max() < 0.005


def test_one_t1_of_blood_within_its_interval_and_told():
    p, fit = subject(), joint()
    t1b, sd = fit.maps["t1b"].value[p.mask], fit.maps["t1b"].std[p.mask]
    assert np.ptp(t1b) == 0
    assert np.ptp(sd) == 0
    low, high = fit.settings["t1b_interval_95"]
    assert low < p.acquisition.t1_blood.number < high
    assert low < t1b[0] < high
    assert high - low == pytest.approx(3.92 * sd[0], rel=0.1)
    assert any(f"{low:.2f} to {high:.2f} s" in note for note in fit.scan.notes)


@pytest.mark.parametrize(("seconds", "doubtful"), [(0.91, "2.7 sd below"), (1.2, ""), (2.4, ""), (2.9, "3.0 sd above")])
def test_a_t1_of_blood_that_nobody_has_is_doubted(seconds, doubtful):
    """An adult's pCASL by the infants' model ends at .9 s."""
    value = replace(SubjectValue.known(seconds), sd=0.01)
    notes = [note for note in add_t1b(small_joint(), value, PRESETS["infant"].t1b).scan.notes if note.startswith("Doubtful")]
    assert len(notes) == bool(doubtful)
    assert all(doubtful in note for note in notes)


def test_better_than_voxel_by_voxel_with_the_true_t1_and_the_lesion_stands():
    p, fit = subject(), joint()
    alone = errors(asl.fit(p.scan(), method="nlls", model="simplified"), p)
    together = errors(fit, p)
    assert together[0] < 0.6 * alone[0]
    assert together[1] < 0.6 * alone[1]
    inside, lesion = p.lesion > 0, p.lesions[0]
    flow, arrival = p.cbf[inside] / (1 + lesion.contrast), p.att[inside] - lesion.delay
    assert (fit.maps["cbf"].value[inside] - flow).sum() / (p.cbf[inside] - flow).sum() > 0.8
    assert (fit.maps["att"].value[inside] - arrival).sum() / (lesion.delay * inside.sum()) > 0.6


def test_intervals_cover():
    p, fit = subject(), joint()
    for name, truth in (("cbf", p.cbf), ("att", p.att)):
        one = fit.maps[name]
        assert np.mean((np.abs(one.value - truth) < 1.96 * one.std)[p.mask]) > 0.85


def test_a_given_t1_is_not_fitted_unless_asked_for():
    p = small()
    wrong = given_t1b(p.scan(), 1.4)
    fit = asl.fit(wrong, preset="infant")
    assert "t1b" not in fit.maps
    assert not any("T1 of this subject" in note for note in fit.scan.notes)
    assert errors(fit, p)[0] > 1.5 * errors(small_joint(), p)[0]  # it was believed
    near = asl.fit(wrong, preset="infant", unknown=("cbf", "att", "t1b"))
    assert near.settings["t1b_prior_mean"] == 1.4
    assert near.maps["t1b"].value.max() < small_joint().maps["t1b"].value.max()


def test_options_win_over_the_preset():
    p = small()
    apart = asl.fit(p.scan(), preset="infant", spatial=False)
    assert errors(apart, p)[0] > 1.3 * errors(small_joint(), p)[0]
    assert np.ptp(apart.maps["t1b"].value[p.mask]) == 0
    slack = asl.fit(p.scan(), preset="infant", model_error=0.3)
    assert slack.settings["t1b_std"] > small_joint().settings["t1b_std"]
    with pytest.raises(InputError, match="--network"):
        asl.fit(p.scan(), preset="infant", network="mlp")
    with pytest.raises(InputError, match="--preset is unknown"):
        asl.fit(p.scan(), preset="adult")


def test_where_the_data_say_nothing_the_status_says_so():
    p = small(3.0, 705)
    fit = asl.fit(p.scan(), preset="infant")
    assert np.mean(fit.status[p.mask] == 8) > 0.75
    low, high = fit.settings["t1b_interval_95"]
    assert low < p.acquisition.t1_blood.number < high
    assert fit.settings["t1b_std"] > 0.25
    assert all(np.isfinite(m.value).all() for m in fit.maps.values())
    assert any("status 8" in note for note in fit.scan.notes)


def test_tiles_agree_with_the_whole(monkeypatch):
    p, whole = small(), small_joint()  # fitted before what is whole changes
    monkeypatch.setattr(tiling, "WHOLE", 30)
    monkeypatch.setattr(tiling, "CORE", 30)
    tiled = asl.fit(p.scan(), preset="infant")
    assert tiled.settings["tiles"] > 1
    assert tiled.settings["t1b"] == pytest.approx(whole.settings["t1b"], abs=1.5 * whole.settings["t1b_std"])
    assert errors(tiled, p)[0] < 1.5 * errors(whole, p)[0]
    away = np.abs(tiled.maps["att"].value - whole.maps["att"].value)[p.mask] / whole.maps["att"].std[p.mask]
    assert np.median(away) < 0.5


def test_a_large_mask_goes_through_the_joint_fit_of_the_brain(monkeypatch):
    p, one_tile = small(), small_joint()  # fitted before what is large changes
    without = asl.fit(p.scan(), preset="infant", spatial=False)
    monkeypatch.setattr(fit_module, "LARGE", 30)
    large = asl.fit(p.scan(), preset="infant")
    assert "disagreement" in large.extras
    assert large.settings["t1b"] == pytest.approx(one_tile.settings["t1b"], abs=0.2 * one_tile.settings["t1b_std"])
    assert np.ptp(large.maps["t1b"].value[p.mask]) == 0
    assert large.maps["t1b"].std[p.mask][0] == pytest.approx(large.settings["t1b_std"], rel=0.01)
    assert errors(large, p)[0] < 2 * errors(one_tile, p)[0]
    assert large.scan.notes[0].startswith("T1 of this subject")
    told = [methods.paragraph(one) for one in (large, one_tile, without)]
    assert ["expectation propagation" in text for text in told] == [False, True, True]
    assert ["fitted jointly" in text for text in told] == [True, False, False]
    assert ["smoothness, foci" in text for text in told] == [False, True, False]
    assert all("T1 of arterial blood for the subject" in text for text in told)
    reported = ["".join(words.method(one)) for one in (large, one_tile)]
    assert ["expectation propagation" in text for text in reported] == [False, True]


@pytest.mark.parametrize("large", [30, 10**6])
def test_a_damaged_voxel_does_not_reach_its_neighbours(monkeypatch, large):
    monkeypatch.setattr(fit_module, "LARGE", large)
    scan = small().scan()
    bad = tuple(int(i[len(i) // 2]) for i in np.nonzero(scan.mask))
    difference = scan.difference.copy()
    difference[bad] = 1e20
    clean, fit = (asl.fit(one, preset="infant") for one in (scan, replace(scan, difference=difference)))
    away = np.abs(fit.maps["cbf"].value - clean.maps["cbf"].value)[scan.mask] / clean.maps["cbf"].std[scan.mask]
    assert np.median(away) < 0.5
    assert fit.status[bad] == VoxelStatus.PRIOR_DOMINATED


def test_a_region_with_next_to_no_noise():
    """The search for the prior's scales leapt to where nothing could be computed."""
    p = asl.phantom((14, 16, 11), 14.0, 315, labeling="PASL", snr=600.0)
    fit = asl.fit(p.scan(), preset="infant")
    assert fit.settings["t1b"] == pytest.approx(p.acquisition.t1_blood.number, abs=0.25)
    assert all(np.isfinite(m.value).all() and np.isfinite(m.std).all() for m in fit.maps.values())


def test_every_voxel_is_in_one_core():
    place = np.argwhere(np.random.default_rng(0).random((30, 20, 8)) < 0.6).astype(float)
    made = tiling.tiles(place)
    cores = np.concatenate([t.voxels[: t.core] for t in made])
    assert np.array_equal(np.sort(cores), np.arange(len(place)))
    assert max(len(t.voxels) for t in made) <= tiling.LARGEST
    assert all(len(np.unique(t.voxels)) == len(t.voxels) for t in made)


def test_same_scan_same_bytes():
    again = asl.fit(small().scan(), preset="infant")
    assert all(np.array_equal(again.maps[n].value, one.value) for n, one in small_joint().maps.items())


def test_the_start_of_t1_does_not_matter(monkeypatch):
    """T1 begins elsewhere and is searched on another grid."""
    monkeypatch.setattr(subject_fit, "COARSE", 6)
    monkeypatch.setattr(subject_fit, "SEARCH_IN", (2, 4))
    other = asl.fit(small().scan(), preset="infant")
    assert other.settings["t1b"] == pytest.approx(small_joint().settings["t1b"], abs=0.1 * small_joint().settings["t1b_std"])


def test_moments_of_a_voxel_equal_sums_over_a_plane():
    p = subject(0.1)
    s = p.scan()
    plan = Plan(curves(s), s, Settings(model="simplified", dtype=torch.float64))
    rows, noise = torch.arange(5), torch.full((5,), 6.0, dtype=torch.float64)
    factors = ArrivalFactors(plan, rows, 1.8, noise, 0.0, 45.0)
    mean = torch.tensor([1.0, 0.6], dtype=torch.float64).expand(5, 2)
    covariance = torch.tensor([[0.09, -0.02], [-0.02, 0.16]], dtype=torch.float64).expand(5, 2, 2)
    log_z, first, second = factors(mean, covariance)
    flow, att = np.linspace(-1, 3, 401), np.linspace(0, plan.att_max, 1201)
    f, a = np.meshgrid(flow, att, indexing="ij")
    x = np.stack([f - 1.0, a - 0.6], axis=-1)
    log_prior = -0.5 * np.einsum("...i,ij,...j", x, np.linalg.inv(covariance[0].numpy()), x)
    log_prior -= 0.5 * math.log(np.linalg.det(2 * math.pi * covariance[0].numpy()))
    tis = s.acquisition.pld
    curve = np.clip(tis - att[:, None], 0, 0.6) * np.exp(-tis / 1.8)
    for v in range(5):
        y = plan.c.data[v]
        left = (y - 45.0 * f[..., None] * curve) / 6.0
        joint_log = log_prior - 0.5 * (left**2).sum(axis=-1) - len(tis) * math.log(6.0)
        weight = np.exp(joint_log) * (flow[1] - flow[0]) * (att[1] - att[0])
        weight[:, [0, -1]] *= 0.5
        total = weight.sum()
        assert float(log_z[v]) == pytest.approx(math.log(total), abs=2e-3)
        assert float(first[v, 0]) == pytest.approx((weight * f).sum() / total, abs=2e-3)
        assert float(first[v, 1]) == pytest.approx((weight * a).sum() / total, abs=2e-3)
        spread = (weight * (a - (weight * a).sum() / total) ** 2).sum() / total
        assert float(second[v, 1, 1]) == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize(("middle", "sd"), [(1.9, 0.3), (1.62, 0.002), (2.31, 0.05)])
def test_mode_and_interval_of_a_known_density(middle, sd):
    def log_density(x):
        return -0.5 * ((x - middle) / sd) ** 2

    mode, width = find_mode(log_density, 1.85)
    assert mode == pytest.approx(middle, abs=0.05 * sd + 1e-6)
    value = posterior(log_density, mode, width)
    assert value.mean == pytest.approx(middle, abs=0.05 * sd)
    assert value.sd == pytest.approx(sd, rel=0.1)
    assert (value.low, value.high) == pytest.approx((middle - 1.96 * sd, middle + 1.96 * sd), abs=0.15 * sd)
    assert value.weights.sum() == pytest.approx(1)
