"""The joint spatial fit of a perfusion scan: what it must keep, what it must not invent. Phantoms of seeds that nothing was tuned on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from pinn_engine import asl
from pinn_engine.asl.choices import settings_of, spatial_by_default
from pinn_engine.asl.curves import curves
from pinn_engine.asl.maps import VoxelStatus
from pinn_engine.asl.phantom.brain import GM, WM
from pinn_engine.asl.phantom.make import positions
from pinn_engine.asl.spatial import apart
from pinn_engine.asl.spatial import fit as spatial_fit
from pinn_engine.asl.spatial.balls import Balls
from pinn_engine.asl.spatial.foci import null_variance
from pinn_engine.asl.spatial.tissue import classify
from pinn_engine.errors import InputError

SHAPE, SPACING, SNR = (24, 30, 19), 6.0, 280.0  # the information of 3 mm at SNR 100


@cache
def phantom(seed: int = 310, **settings):
    return asl.phantom(SHAPE, SPACING, seed, snr=settings.pop("snr", SNR), **settings)


@cache
def joint(seed: int = 310):
    return asl.fit(phantom(seed).scan(), spatial=True)


def test_better_than_voxelwise_in_both_tissues_and_maps_finite():
    p, alone = phantom(), asl.fit(phantom().scan(t1_map=True), spatial=False)
    for tissue in (GM, WM):
        where = p.tissue == tissue
        for name, truth in (("cbf", p.cbf), ("att", p.att)):
            error = [np.median(np.abs(f.maps[name].value - truth)[where]) for f in (joint(), alone)]
            assert error[0] < 0.6 * error[1]
    assert all(np.isfinite(m.value).all() and np.isfinite(m.std).all() for m in joint().maps.values())


def test_intervals_cover_in_grey_matter():
    p = phantom()
    where = p.tissue == GM
    for name, truth in (("cbf", p.cbf), ("att", p.att)):
        one = joint().maps[name]
        assert 0.85 <= np.mean((np.abs(one.value - truth) < 1.96 * one.std)[where]) <= 1.0


def test_intervals_where_there_are_no_data_cover():
    """Of several brains: what is wrong in one hole is wrong in most of it, so that single ones cover .6 to 1."""
    covered = {GM: [], WM: []}
    for seed in (311, 312, 313, 315):
        p = phantom(seed, lesions=False)
        fit, hole = without_data(p)
        right = np.abs(fit.maps["cbf"].value - p.cbf) < 1.96 * fit.maps["cbf"].std
        for tissue, of in covered.items():
            of.append(right[hole & (p.tissue == tissue)].mean())
    assert np.mean(covered[GM]) > 0.8
    assert np.mean(covered[WM]) > 0.8


def test_large_foci_keep_their_contrast():
    """4 mm voxels, the mask cut to a block around the largest focus, whose expected z is far above 5."""
    p = asl.phantom((36, 46, 30), 4.0, 314, snr=154.0)
    block = np.linalg.norm(positions(p.grid) - p.lesions[0].centre, axis=-1) < 36
    cbf = asl.fit(replace(p.scan(), mask=p.mask & block), spatial=True).maps["cbf"].value
    inside = (p.lesion == 1) & (p.tissue == GM)
    without = p.cbf[inside] / (1 + p.lesions[0].contrast)
    assert (cbf[inside] - without).sum() / (p.cbf[inside] - without).sum() > 0.6


def without_data(p):
    """The fit of a brain whose signal is lost in noise in a block of 48 x 48 x 30 mm, and the block."""
    scan, hole = p.scan(), np.zeros(SHAPE, bool)
    hole[8:16, 12:20, 8:13] = True
    noise = np.random.default_rng(0).standard_normal(scan.difference.shape).astype(np.float32) * 40 * p.noise_sd
    return asl.fit(replace(scan, difference=np.where(hole[..., None], scan.difference + noise, scan.difference)), spatial=True), hole


def test_voxels_without_data_go_to_the_tissue_mean_and_say_so():
    """Intervals are wider than those of the same voxels with data; in the middle of the hole the status says that the prior speaks."""
    p = phantom(311, lesions=False)
    fit, hole = without_data(p)
    cbf, whole = fit.maps["cbf"], asl.fit(p.scan(), spatial=True)
    for tissue in (GM, WM):
        inside, outside = hole & (p.tissue == tissue), ~hole & (p.tissue == tissue)
        typical = np.median(cbf.value[outside])
        assert np.percentile(np.abs(cbf.value[inside] - typical), 90) < 0.4 * typical  # the noise alone is many times the signal
        if tissue == GM:  # WM: one stiff piece at 6 mm, its prior alone says most; coverage is what counts
            assert np.median(cbf.std[inside]) > 1.1 * np.median(whole.maps["cbf"].std[inside])
    middle = np.zeros(SHAPE, bool)
    middle[10:14, 14:18, 10:11] = True
    assert np.mean(fit.status[middle & p.mask] == VoxelStatus.PRIOR_DOMINATED) > 0.9
    assert np.mean(whole.status[p.tissue == GM] == VoxelStatus.PRIOR_DOMINATED) < 0.02


def test_several_delays_are_fitted_together_by_default_and_the_same_scan_gives_the_same_maps():
    p = asl.phantom((14, 16, 11), 10.0, 312)
    joint, default, off = asl.fit(p.scan(), spatial=True), asl.fit(p.scan()), asl.fit(p.scan(), spatial=False)
    assert all(np.array_equal(joint.maps[n].value, default.maps[n].value) for n in ("cbf", "att"))
    assert joint.settings == default.settings
    assert not np.array_equal(off.maps["cbf"].value, default.maps["cbf"].value)
    assert not off.extras


@pytest.mark.parametrize(
    ("asked", "voxels", "together"),
    [
        ({}, 1000, True),
        ({"unknown": ("cbf", "att", "abv")}, 1000, True),
        ({"model": "simplified"}, 1000, True),
        ({}, 999, False),
        ({"method": "nlls"}, 1000, False),
        ({"network": "mlp"}, 1000, False),
        ({"unknown": ("cbf",)}, 1000, False),
        ({"unknown": ("cbf", "att", "t1b")}, 1000, False),
    ],
)
def test_what_is_fitted_together_unless_asked(asked, voxels, together):
    options = {"unknown": ("cbf", "att"), "model": "buxton", "method": "pinn", "network": "features"} | asked
    scan = asl.phantom((10, 12, 8), 14.0, 312).scan()
    settings = settings_of(scan, *options.values(), model_error=None, device="cpu", seed=0, notes=[])
    assert spatial_by_default(settings, scan, voxels) == together


def test_the_closed_form_is_not_fitted_together():
    """It has no prior to share: a call that asks for both is told so, not given the one or the other."""
    with pytest.raises(InputError, match=r"--method nlls fits every voxel by itself, found --spatial as well; leave"):
        asl.fit(asl.phantom((10, 12, 8), 14.0, 312).scan(), method="nlls", spatial=True)


@pytest.mark.parametrize(
    ("value", "volumes", "repeats"),
    [(1e12, slice(None), 4), (-1e30, slice(None), 4), (3e5, slice(None), 4), (1e20, 5, 4), (-1e30, 5, 4), (1e12, slice(None), 1)],
)
def test_a_damaged_voxel_does_not_reach_its_neighbours(value, volumes, repeats):
    """In all differences or in one of them, with repeats and without."""
    p = asl.phantom((14, 16, 11), 10.0, 315, snr=600.0, repeats=repeats)
    bad = tuple(int(i[len(i) // 2]) for i in np.nonzero(p.tissue == GM))
    difference = p.scan().difference.copy()
    difference[(*bad, volumes)] = value
    clean, fit = asl.fit(p.scan()), asl.fit(replace(p.scan(), difference=difference))
    assert all(np.isfinite(m.value).all() and np.isfinite(m.std).all() for m in fit.maps.values())
    away = np.abs(fit.maps["cbf"].value - clean.maps["cbf"].value) / clean.maps["cbf"].std.clip(1e-6)
    assert np.percentile(away[p.tissue == GM], 99) < 0.5
    assert fit.status[bad] == VoxelStatus.PRIOR_DOMINATED
    assert any("impossible" in note for note in fit.scan.notes)


def test_voxels_that_stand_apart_from_smooth_fields_keep_their_signal_and_no_other_moves(monkeypatch):
    """Flow fivefold and arrival .4 s early in one voxel of 80, laid into the data after the fields were fitted."""
    seen = {}

    def keep(model, fields):
        seen.update(model=model, fields=fields)
        return apart.apart(model, fields)

    monkeypatch.setattr(spatial_fit, "apart", keep)
    asl.fit(phantom(312, lesions=False, territories=False).scan())
    model, fields = seen["model"], seen["fields"]
    own = apart.apart(model, fields)
    assert own.share < 0.01
    assert float(own.change[0].square().mean().sqrt()) < 0.02
    vessel = torch.zeros(len(model.data), dtype=torch.bool)
    vessel[::80] = True
    vessel &= model.unit[0] > model.unit.sum(dim=0).median()
    change = torch.stack([4.0 * vessel, -0.4 * vessel])
    model.data = model.data + model.predicted(fields + model.alike(change))[0] - model.predicted(fields)[0]
    own = apart.apart(model, fields)
    assert 0.005 < own.share < 0.02  # a few voxels of little signal may be either
    assert float(own.change[0, vessel].median()) == pytest.approx(4, rel=0.15)
    assert float(own.change[1, vessel].median()) == pytest.approx(-0.4, abs=0.1)
    inside = ((own.change - change).abs() < 1.96 * own.covariance.diagonal().T.sqrt())[:, vessel].float().mean()
    assert inside > 0.8
    assert float(own.change[0, ~vessel].square().mean().sqrt()) < 0.05


def test_without_tissue_classes_no_foci_are_listed():
    scan = asl.phantom((14, 16, 11), 10.0, 312).scan()
    fit = asl.fit(replace(scan, m0=None))
    assert "desc-focus_probseg" not in fit.tables
    assert not {"focus", "tissue"} & set(fit.extras)
    assert any("no foci are listed" in note for note in fit.scan.notes)


def test_files_of_the_joint_fit(tmp_path):
    names = {path.name for path in joint().save(tmp_path)}
    wanted = ("desc-focus_probseg.nii.gz", "desc-focus_probseg.tsv", "desc-tissue_dseg.nii.gz", "desc-disagreement_att.nii.gz")
    assert {f"sub-01_{name}" for name in wanted} <= names
    assert (tmp_path / "sub-01_desc-focus_probseg.tsv").read_text().startswith("x_mm\ty_mm\tz_mm\tvoxels")


def test_tissue_from_m0_and_signal():
    p = phantom()
    c = curves(p.scan())
    found = classify(c, p.scan().m0[c.voxels], None, np.stack(c.voxels, axis=1) * SPACING)
    assert found.known
    assert np.mean(found.share.argmax(axis=1) + 1 == p.tissue[c.voxels]) > 0.98
    assert not classify(c, None, None, np.stack(c.voxels, axis=1) * SPACING).known


def test_ball_sums_equal_direct_sums():
    rng = np.random.default_rng(1)
    voxels = np.nonzero(rng.random((9, 8, 7)) < 0.7)
    spacing = np.array([2.0, 3.0, 4.0])
    values = rng.standard_normal((len(voxels[0]), 2))
    balls = Balls(voxels, spacing, (3.5, 6.1))
    place = np.stack(voxels, axis=1) * spacing
    for ball, radius in enumerate(balls.radii):
        near = np.linalg.norm(place[:, None] - place, axis=2) <= radius
        assert np.allclose(balls.spread(torch.as_tensor(values), ball), near @ values, atol=1e-9)


def test_null_is_the_scans_own_and_foci_do_not_widen_it():
    """Scores that spread more than the model says are no findings; a few true ones among them do not hide themselves."""
    rng = np.random.default_rng(2)
    information = torch.as_tensor(rng.uniform(20, 60, 20000))
    score = torch.as_tensor(rng.standard_normal(20000)) * information.sqrt()
    assert null_variance(0.5 * score, information) == 1.0  # never surer than the model
    assert null_variance(1.3 * score, information) == pytest.approx(1.69, rel=0.05)
    with_foci = 1.3 * score
    with_foci[:400] += 8 * information[:400].sqrt()
    assert null_variance(with_foci, information) == pytest.approx(1.69, rel=0.08)


def test_what_cannot_be_joint_is_refused_or_told():
    p = asl.phantom((10, 12, 8), 14.0, 313)
    with pytest.raises(InputError, match="--spatial fits cbf, att"):
        asl.fit(p.scan(), unknown=("cbf", "att", "t1b"), spatial=True)
    with pytest.raises(InputError, match="--network"):
        asl.fit(p.scan(), network="mlp", spatial=True)
    one = asl.phantom((10, 12, 8), 14.0, 313, plds=(1.8,))
    assert any("by itself" in note for note in asl.fit(one.scan(), spatial=True).scan.notes)
