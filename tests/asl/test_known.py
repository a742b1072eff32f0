"""What is given with a scan: tissue maps, an arrival map, an M0 region, a Look-Locker readout, and CBF on the wrong scale."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import bids_series
import numpy as np
import pytest
import torch
from small_scans import GM, WM, phantom, scan

from pinn_engine import asl
from pinn_engine.asl.acquisition import Sourced
from pinn_engine.asl.kinetics import kinetics
from pinn_engine.asl.plausibility import CAUSES, scaling_cause
from pinn_engine.asl.priors import ArrivalMap
from pinn_engine.asl.quality import cautions
from pinn_engine.asl.readout import train
from pinn_engine.errors import InputError


def shares(p) -> np.ndarray:
    return np.stack([p.tissue == k for k in (1, 2, 3)], axis=-1).astype(np.float32)


def bias(p, fit, tissue: int) -> float:
    where = (p.tissue == tissue) & (p.cbf > 5)
    return float(np.median((fit.maps["cbf"].value / np.maximum(p.cbf, 1))[where]) - 1)


def test_tissue_maps_give_white_matter_its_t1():
    """Without noise: less than 2 % of bias with maps, a third without."""
    p = phantom(seed=61, snr=None)
    s = replace(p.scan(), tissue=shares(p))
    fit = asl.fit(s, method="nlls")
    assert abs(bias(p, fit, WM)) < 0.02
    assert abs(bias(p, fit, GM)) < 0.02
    assert bias(p, asl.fit(p.scan(), method="nlls"), WM) < -0.2
    assert not any("Without a T1 map" in note for note in fit.scan.notes)


def test_tissue_maps_are_the_classes_of_the_joint_fit():
    p = phantom(seed=61)
    fit = asl.fit(replace(p.scan(), tissue=shares(p)), spatial=True)
    assert fit.settings["tissue_classes"] == "tissue maps"
    np.testing.assert_array_equal(fit.extras["tissue"].data[p.mask], p.tissue[p.mask])


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 1, 2), None),
        ((2, 0, 1), "call white matter"),
        ((1, 0, 2), "call white matter"),
        ((2, 1, 0), "call CSF"),
        ((0, 1, None), "CSF is empty"),
    ],
)
def test_tissue_maps_in_another_order_or_empty_are_told(order, words):
    """FSL's FAST writes CSF, GM, WM: T1, classes and grey matter's figures would all be another's without a word."""
    p = phantom(seed=61)
    right = shares(p)
    given = np.stack([np.zeros_like(right[..., 0]) if k is None else right[..., k] for k in order], axis=-1)
    fit = asl.fit(replace(p.scan(), tissue=given), method="nlls")
    told = [sentence for sentence in cautions(fit) if "tissue map" in sentence and "grey matter, white matter, CSF" in sentence]
    assert len(told) == (words is not None)
    assert all(words in sentence for sentence in told)


def single(p, att_sd: float, off: float = 0.0):
    """The scan's delay of 1.5 s alone, with the true arrival time, `off` s wrong, as the map."""
    s, keep = p.scan(t1_map=True), p.acquisition.pld == 1.5
    a = replace(s.acquisition, pld=s.acquisition.pld[keep], label_duration=s.acquisition.label_duration[keep])
    known = ArrivalMap(np.where(p.att > 0, p.att + off, 1.0).astype(np.float32), att_sd, "att.nii.gz")
    return replace(s, acquisition=a, difference=s.difference[..., keep], arrival=known)


def test_a_known_arrival_time_removes_the_bias_of_one_delay():
    p = phantom(seed=62, snr=None)
    with_map, consensus = asl.fit(single(p, 0.05), method="nlls"), asl.fit(replace(single(p, 0.05), arrival=None), method="nlls")
    assert set(with_map.maps) == {"cbf"}
    assert abs(bias(p, with_map, WM)) < 0.02 < abs(bias(p, consensus, WM))
    assert not (with_map.status[p.mask] == 8).any()


def test_the_uncertainty_of_the_arrival_map_is_in_the_interval_of_cbf():
    """d CBF = CBF |dS/dATT| / S sd: the interval against the formula, and it covers maps that are wrong by that sd."""
    p = phantom(seed=62, snr=20000.0)
    grey = p.mask & (p.tissue == GM) & (p.att > 0.9) & (p.att < 1.4)
    narrow, wide = (asl.fit(single(p, sd), method="nlls").maps["cbf"] for sd in (0.001, 0.3))
    assert np.median(wide.std[grey]) > 2 * np.median(narrow.std[grey])
    t = torch.tensor(3.3, dtype=torch.float64)
    att, cbf = torch.as_tensor(p.att[grey]).double(), wide.value[grey]
    model = kinetics("PCASL", "buxton", torch.as_tensor(p.t1_tissue[grey]).double(), 0.9)
    signal, slopes = model.closed_form(t, torch.tensor(1.8), att, torch.tensor(1.65))
    expected = np.hypot(np.abs(cbf * slopes["att"].numpy() / signal.numpy()) * 0.3, narrow.std[grey])
    np.testing.assert_allclose(wide.std[grey], expected, rtol=0.05)


def test_an_arrival_map_is_for_one_delay():
    p = phantom(seed=62)
    with pytest.raises(InputError, match="single delay"):
        asl.fit(replace(p.scan(), arrival=ArrivalMap(p.att, 0.2, "att.nii.gz")))


@pytest.mark.parametrize("labeling", ["PCASL", "PASL"])
def test_a_train_of_readouts_is_the_equation_with_excitations(labeling):
    """Against small steps of dS/dt = c - S/T1' in which each readout leaves cos(phi) of the label."""
    times, tau, att, t1b = (torch.tensor(x, dtype=torch.float64) for x in ([0.9, 1.3, 1.9, 2.2, 2.9], 0.8, 0.7, 1.65))
    model = kinetics(labeling, "buxton", 1.33, 0.9)
    seen = train(times, float(model.loss_rate), 35.0) @ model.closed_form(times, tau, att, t1b)[0]
    step, signal, found = 2e-5, 0.0, []
    edges = np.round(np.concatenate([[0], times.numpy()]) / step).astype(int)
    supply = model.delivery((torch.arange(edges[-1]) + 0.5) * step, tau, att, t1b).numpy()
    decay = np.exp(-step * float(model.loss_rate))
    for low, high in pairwise(edges):
        for i in range(low, high):
            signal = signal * decay + supply[i] * step
        found.append(signal)
        signal *= np.cos(np.deg2rad(35.0))
    np.testing.assert_allclose(seen, found, rtol=1e-3)
    even = train(torch.arange(1, 30).double() * 0.1, 0.8, 0.01)
    np.testing.assert_allclose(even, torch.eye(29), atol=1e-6)


@pytest.mark.parametrize("options", [{"method": "nlls"}, {}, {"spatial": True}])
def test_cbf_of_a_look_locker_scan(options):
    """Curves read by a train of 25 degrees: unbiased with the angle, low without."""
    plds, cbf, att = np.arange(0.3, 3.0, 0.3), 60.0, 0.8
    model = kinetics("PCASL", "buxton", 1.33, 0.9)
    t = torch.as_tensor(plds) + 0.5
    one = (torch.tensor(x, dtype=torch.float64) for x in (0.5, att, 1.65))
    curve = train(t, float(model.loss_rate), 25.0) @ model.closed_form(t, *one)[0]
    y = cbf * curve.numpy() * 2 * 0.85 * 1000 / 6000
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 6, 6, len(plds)))
    s = scan(np.broadcast_to(y, (6, 6, 6, len(plds))) + noise, plds, 0.5, m0=1000.0)
    told = replace(s, acquisition=replace(s.acquisition, flip_angle=Sourced(25.0, "test", "degrees")))
    right, wrong = (float(np.median(asl.fit(x, **options).maps["cbf"].value)) for x in (told, s))
    assert right == pytest.approx(cbf, rel=0.02)
    assert wrong < 0.9 * cbf


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"LookLocker": True}, "FlipAngle is missing"),
        ({"LookLocker": True, "FlipAngle": 120}, "below 90"),
        ({"LookLocker": True, "FlipAngle": [20] * 6 + [30] * 6}, "same for all volumes"),
        ({"LookLocker": True, "FlipAngle": 20, "LabelingDuration": [1.8] * 6 + [1.4] * 6}, "one label duration"),
    ],
)
def test_a_look_locker_sidecar_that_cannot_be(fields, found, tmp_path):
    with pytest.raises(InputError, match=found):
        asl.read(bids_series.write(tmp_path, **fields), m0=1000)


def test_a_look_locker_sidecar_is_read(tmp_path):
    s = asl.read(bids_series.write(tmp_path, LookLocker=True, FlipAngle=30), m0=1000)
    assert s.acquisition.flip_angle.number == 30
    with pytest.raises(InputError, match="mlp does not know Look-Locker"):
        asl.fit(s, network="mlp")


@pytest.mark.parametrize(("kind", "t1", "t2", "part"), [("csf", 4.3, 0.75, 1.15), ("wm", 1.0, 0.05, 0.82), ("gm", 1.3, 0.1, 0.98)])
def test_m0_of_a_region(kind, t1, t2, part, tmp_path):
    """M0b = M / (1 - exp(-TR/T1)) exp(TE/T2 - TE/T2b) / lambda of the region."""
    file = bids_series.write(tmp_path, M0Type="Separate", EchoTime=0.02)
    bids_series.write_m0(file, 1800.0, RepetitionTimePreparation=3)
    region = bids_series.brain() & (np.arange(12) < 6)[:, None, None]
    mask = bids_series.save(tmp_path / "csf.nii.gz", region)
    s = asl.read(file, m0_region=mask, m0_tissue=kind)
    expected = 1800 / (1 - np.exp(-3 / t1)) * np.exp(0.02 / t2 - 0.02 / 0.15) / part
    np.testing.assert_allclose(s.m0[s.mask], expected, rtol=1e-6)


def test_a_region_needs_an_image(tmp_path):
    mask = bids_series.save(tmp_path / "csf.nii.gz", bids_series.brain())
    for m0 in (1000, None):
        with pytest.raises(InputError, match="needs an M0 image"):
            asl.read(bids_series.write(tmp_path / str(m0), BackgroundSuppression=True), m0=m0, m0_region=mask)


@pytest.mark.parametrize("factor", CAUSES)
def test_each_vendors_factor_is_named(factor):
    assert CAUSES[factor] in scaling_cause(55.0 * factor * 1.2)


@pytest.mark.parametrize(("median", "words"), [(-40.0, "swapped"), (0.0, "no label arrives"), (1.9e4, "No known vendor")])
def test_other_impossible_scales(median, words):
    assert words in scaling_cause(median)
    assert all(scaling_cause(x) is None for x in (10.0, 55.0, 150.0))


def test_a_scan_on_the_wrong_scale_says_so():
    s = phantom(seed=63).scan()
    fit = asl.fit(replace(s, m0=s.m0 / 96), method="nlls")
    assert any("--m0-scale 96" in note for note in fit.scan.notes)
    assert not any("outside 10 to 150" in note for note in asl.fit(s, method="nlls").scan.notes)


@pytest.mark.parametrize(
    ("tissue", "found"),
    [
        (np.ones((12, 10, 4, 2)), "2 volumes"),
        (np.full((12, 10, 4, 3), 255.0), "from 0 to 1"),
        (np.ones((12, 10, 5, 3)), "grid of the ASL series"),
    ],
)
def test_tissue_maps_that_cannot_be(tissue, found, tmp_path):
    path = bids_series.save(tmp_path / "tissue.nii.gz", tissue)
    with pytest.raises(InputError, match=found):
        asl.read(bids_series.write(tmp_path), m0=1000, tissue=str(path))


@pytest.mark.parametrize(
    ("att", "more", "found"),
    [
        (np.full((12, 10, 4), 900.0), {}, "milliseconds"),
        (np.full((12, 10, 4), -1.0), {}, "no time above 0"),
        (None, {"att_sd": 0.1}, "no --att-map"),
    ],
)
def test_arrival_maps_that_cannot_be(att, more, found, tmp_path):
    given = {} if att is None else {"att_map": str(bids_series.save(tmp_path / "att.nii.gz", att))}
    with pytest.raises(InputError, match=found):
        asl.read(bids_series.write(tmp_path), m0=1000, **given, **more)


GIVEN = {  # what may be given as a mask -> what is said; None: refused
    "zero and one": (1.0, ""),
    "zero and 255": (255.0, ""),
    "probabilities": (np.linspace(0, 1, 480).reshape(12, 10, 4), "voxels above one half"),
    "labels": (1.0 + np.arange(480).reshape(12, 10, 4) % 3, r"label image \(1, 2, 3\)"),
    "a picture": (np.linspace(0, 900, 480).reshape(12, 10, 4), None),
    "below zero": (np.linspace(-1, 1, 480).reshape(12, 10, 4), None),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_mask_that_is_none_is_told_or_refused(kind, tmp_path):
    values, said = GIVEN[kind]
    mask = bids_series.save(tmp_path / "m.nii.gz", bids_series.brain() * values)
    file = bids_series.write(tmp_path)
    if said is None:
        with pytest.raises(InputError, match="is a picture, not a mask"):
            asl.read(file, m0=1000, mask=mask)
        return
    told = [note for note in asl.read(file, m0=1000, mask=mask).notes if "m.nii.gz" in note]
    assert len(told) == bool(said)
    assert re.search(said, " ".join(told))


def test_an_m0_region_is_one_region(tmp_path):
    file = bids_series.write(tmp_path, M0Type="Separate", EchoTime=0.02)
    bids_series.write_m0(file, 1800.0, RepetitionTimePreparation=3)
    labels = bids_series.save(tmp_path / "dseg.nii.gz", bids_series.brain() * (1.0 + np.arange(480).reshape(12, 10, 4) % 3))
    with pytest.raises(InputError, match=r"one region.*labels 1, 2, 3"):
        asl.read(file, m0_region=labels)
    soft = bids_series.save(tmp_path / "csf.nii.gz", bids_series.brain() * np.linspace(0, 1, 480).reshape(12, 10, 4))
    assert any("M0 region, holds values between 0 and 1" in note for note in asl.read(file, m0_region=soft).notes)


def test_a_bids_dataset_is_not_a_dicom_folder(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(InputError, match="pinn-engine bids DATASET OUT_DIR participant"):
        asl.read(tmp_path)
