"""The digital brain: its simulator against published numbers and theory, its truth as promised, its files as made."""

import json
from functools import lru_cache

import nibabel as nib
import numpy as np
import pytest

from pinn_engine.asl.phantom import TERRITORIES, signal, write_bids
from pinn_engine.asl.phantom import make as make_new
from pinn_engine.asl.phantom.brain import RADII
from pinn_engine.asl.phantom.signal import Bolus
from pinn_engine.asl.regions import read_names

SMALL = (24, 28, 12)
make = lru_cache(maxsize=None)(make_new)

# reference/asl.md 2.9: M0 of tissue = 1, so M0b = 1 / 0.9. (bolus, f, ATT, T1t) -> time since labelling began: signal
GOLDEN = [
    (
        (Bolus(1.8, "PCASL", 0.85), 60, 1.0, 1.33),
        {2.05: 7.443450e-3, 2.3: 8.496004e-3, 2.8: 1.008450e-2, 3.6: 5.477270e-3, 4.3: 3.210778e-3},
    ),
    ((Bolus(1.8, "PCASL", 0.85), 20, 1.4, 0.83), {2.3: 1.478601e-3, 3.6: 1.219104e-3, 4.3: 5.231694e-4}),
    (
        (Bolus(0.8, "PASL", 0.98), 60, 0.7, 1.33),
        {0.5: 0.0, 1.0: 3.481313e-3, 1.5: 6.596506e-3, 1.8: 5.246929e-3, 2.5: 3.075752e-3},
    ),
]


def curve(bolus, cbf, att, t1, times):
    return signal.difference(bolus, np.array([cbf]), np.array([att]), np.array([t1]), np.array([times]))[0]


@pytest.mark.parametrize(("case", "values"), GOLDEN)
def test_golden_values(case, values):
    np.testing.assert_allclose(curve(*case, list(values)) / 0.9, list(values.values()), rtol=3e-7, atol=1e-12)


def test_the_table_over_voxels_is_as_good_as_each_voxel_alone():
    rng = np.random.default_rng(1)
    cbf, att, t1 = rng.uniform(5, 120, 30), rng.uniform(0.3, 2.4, 30), rng.uniform(0.8, 1.6, 30)
    time = np.broadcast_to(np.linspace(2.0, 4.8, 9), (30, 9))
    together = signal.difference(Bolus(1.8), cbf, att, t1, time)
    alone = np.concatenate([signal.difference(Bolus(1.8), *(x[i : i + 1] for x in (cbf, att, t1)), time[i : i + 1]) for i in range(30)])
    np.testing.assert_allclose(together, alone, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("labeling", ["PCASL", "PASL"])
@pytest.mark.parametrize("kernel", ["gamma", "gaussian"])
def test_dispersion_spreads_the_label_and_keeps_it(labeling, kernel):
    sd, t1_blood = 0.2, 1.65
    bolus = Bolus(1.0, labeling, 1.0, t1_blood, sd, kernel)
    u, step, c = signal.arterial_input(bolus, span=6.0)
    label = c * np.exp(u / t1_blood) if labeling == "PASL" else c  # PASL decays with the clock, p/CASL with the way each part took
    theta = sd / np.sqrt(signal.GAMMA_SHAPE)
    decay = {"gamma": (1 + theta / t1_blood) ** -signal.GAMMA_SHAPE, "gaussian": np.exp(sd**2 / t1_blood**2 / 2)}[kernel]
    assert step * label.sum() == pytest.approx(1.0 if labeling == "PASL" else decay, rel=1e-3)
    times = np.array([1.0, 1.3, 1.9, 2.5])
    plain, spread = (curve(Bolus(1.0, labeling, dispersion=d, kernel=kernel), 60, 1.0, 1.33, times) for d in (0.0, sd))
    assert np.abs(spread - plain).max() > 0.05 * plain.max()
    assert plain[0] == 0
    assert (spread[0] > 0) == (kernel == "gaussian")  # only a Gaussian lets blood arrive early


def test_the_same_call_gives_the_same_phantom_and_another_seed_another():
    a, b, c = make_new(SMALL, seed=3), make_new(SMALL, seed=3), make(SMALL, seed=4)
    for name in ("control", "label", "m0_image", "cbf", "att", "tissue", "lesion"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert not np.array_equal(getattr(a, name), getattr(c, name)), name


def test_the_same_brain_at_another_resolution():
    fine, coarse = make((42, 52, 34), 3.0, snr=None, lesions=False), make((14, 18, 12), 9.0, snr=None, lesions=False)
    for tissue in (1, 2):
        a, b = (p.cbf[p.tissue == tissue] for p in (fine, coarse))
        assert a.mean() == pytest.approx(b.mean(), rel=0.03)
    assert fine.mask.sum() * 27 == pytest.approx(coarse.mask.sum() * 729, rel=0.04)


def test_truth_is_a_brain():
    p = make((42, 52, 34), 3.0, snr=None)
    share = [np.mean(p.tissue[p.mask] == k) for k in (1, 2, 3)]
    assert 0.35 < share[0] < 0.6
    assert 0.3 < share[1] < 0.6
    assert 0.02 < share[2] < 0.15
    assert sum(share) == 1
    gm, wm, csf = (p.tissue == k for k in (1, 2, 3))
    assert 50 < np.median(p.cbf[gm]) < 70
    assert 15 < np.median(p.cbf[wm]) < 27
    assert not p.cbf[csf].any()
    assert not p.difference[csf].any()
    assert np.median(p.att[wm]) - np.median(p.att[gm]) > 0.2
    mirrored = np.mean((p.tissue == p.tissue[::-1])[p.mask])
    assert 0.7 < mirrored < 0.97  # the hemispheres are alike, not copies
    for name in ("cbf", "att", "m0", "t1_tissue", "tissue"):
        assert not getattr(p, name)[~p.mask].any(), name


def test_arrival_steps_at_the_borders_of_territories():
    p, flat = (make((42, 52, 34), 3.0, snr=None, lesions=False, territories=t) for t in (True, False))
    assert set(np.unique(p.territory[p.mask])) == set(TERRITORIES)
    assert not flat.territory.any()
    same_tissue = (p.tissue[1:] == p.tissue[:-1]) & (p.tissue[1:] == 2)
    border = same_tissue & (p.territory[1:] != p.territory[:-1])
    inside = same_tissue & (p.territory[1:] == p.territory[:-1])
    jump, without = (np.abs(np.diff(x.att, axis=0)) for x in (p, flat))
    assert np.percentile(jump[border], 75) > 0.1
    assert np.percentile(jump[inside], 99) < 0.05
    assert np.percentile(without[border], 75) < 0.03


def test_lesions_have_the_stated_size_contrast_and_delay():
    p, healthy = (make((66, 82, 54), 2.0, snr=None, repeats=1, plds=(1.8,), lesions=x) for x in (True, False))
    assert not healthy.lesion.any()
    np.testing.assert_array_equal(p.cbf[p.lesion == 0], healthy.cbf[p.lesion == 0])
    assert [x.radius for x in p.lesions] == list(RADII)
    assert {x.contrast for x in p.lesions} == {-0.4, 0.4}
    assert {x.delay for x in p.lesions} == {0.0, 0.3, 0.5}
    for one in p.lesions:
        inside = p.lesion == one.label
        ball = 4 / 3 * np.pi * one.radius**3 / 8
        assert 0.4 * ball < inside.sum() < 1.3 * ball  # less where CSF cuts in, more by voxels on the rim
        np.testing.assert_allclose(p.cbf[inside], healthy.cbf[inside] * (1 + one.contrast), rtol=1e-6)
        np.testing.assert_allclose(p.att[inside], healthy.att[inside] + one.delay, rtol=1e-6)


def test_noise_is_as_asked_and_independent():
    clean, noisy = make(SMALL, snr=None, repeats=3), make(SMALL, snr=50, repeats=3)
    grey = noisy.tissue == 1
    assert noisy.noise_sd == pytest.approx(clean.m0[grey].mean() / 50, rel=1e-6)
    control, label, m0 = (getattr(noisy, k) - getattr(clean, k) for k in ("control", "label", "m0_image"))
    for noise in (control, label):
        assert noise.std() == pytest.approx(noisy.noise_sd, rel=0.02)
    assert (control - label).std() == pytest.approx(np.sqrt(2) * noisy.noise_sd, rel=0.02)
    assert m0.std() == pytest.approx(noisy.noise_sd, rel=0.05)
    assert make(SMALL, noise_sd=2.5).noise_sd == 2.5


def test_slices_arteries_and_suppression():
    plain = make(SMALL, snr=None, repeats=1)
    late = make(SMALL, snr=None, repeats=1, slice_time=0.045)
    np.testing.assert_array_equal(plain.difference[:, :, 0], late.difference[:, :, 0])
    assert np.abs(plain.difference[:, :, 6] - late.difference[:, :, 6]).max() > 0.1
    art = make(SMALL, snr=None, repeats=1, arterial=0.02)
    extra = (art.difference - plain.difference)[art.abv > 0.005]
    assert 0.005 < art.abv.max() <= 0.02
    assert extra.max() > plain.difference.max()  # early, arterial blood outshines tissue
    dark = make(SMALL, snr=None, repeats=1, background=0.2)
    np.testing.assert_allclose(dark.difference, plain.difference, atol=2e-4)
    np.testing.assert_allclose(dark.control, 0.2 * plain.control, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"LabelingDuration": 1.8, "ArterialSpinLabelingType": "PCASL", "MRAcquisitionType": "3D"}),
        ({"slice_time": 0.04}, {"MRAcquisitionType": "2D"}),
        ({"label_duration": (1.0, 1.4), "plds": (1.0, 1.5)}, {"LabelingDuration": [1.0] * 8 + [1.4] * 8}),
        ({"labeling": "PASL", "plds": (0.7, 1.4)}, {"PostLabelingDelay": [0.7] * 8 + [1.4] * 8, "BolusCutOffDelayTime": 0.8}),
    ],
)
def test_what_is_written_is_what_was_made(tmp_path, options, fields):
    p = make((12, 14, 6), **options)
    paths = write_bids(p, tmp_path)
    series = nib.load(paths["asl"])
    rows = (tmp_path / "sub-01/perf/sub-01_aslcontext.tsv").read_text().split()
    sidecar = json.loads((tmp_path / "sub-01/perf/sub-01_asl.json").read_text())
    data = series.get_fdata(dtype=np.float32)
    is_label = np.array([row == "label" for row in rows[1:]])
    np.testing.assert_array_equal(data[..., ~is_label] - data[..., is_label], p.difference)
    assert rows[0] == "volume_type"
    assert len(rows) - 1 == data.shape[3] == len(sidecar["PostLabelingDelay"])
    assert fields.items() <= sidecar.items()
    np.testing.assert_allclose(series.affine, p.grid.affine)
    assert ("SliceTiming" in sidecar) == bool(p.acquisition.slice_delay.any())
    names = {"cbf": "cbf", "att": "att", "tissue": "dseg", "mask": "desc-brain_mask", "lesion": "desc-lesion_dseg"}
    for name, suffix in names.items():
        path = tmp_path / f"derivatives/truth/sub-01/perf/sub-01_{suffix}.nii.gz"
        assert paths[name] == path
        np.testing.assert_array_equal(nib.load(path).get_fdata(), getattr(p, name))
    assert read_names(tmp_path / "derivatives/truth/sub-01/perf/sub-01_dseg.tsv")[2] == "white matter"
    before = {f: f.read_bytes() for f in sorted(tmp_path.rglob("*")) if f.is_file()}
    write_bids(p, tmp_path)
    assert before == {f: f.read_bytes() for f in before}


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="labeling"):
        make_new((4, 4, 4), labeling="VSASL")
    with pytest.raises(ValueError, match="kernel"):
        make_new((12, 12, 6), dispersion=0.1, kernel="box")


@pytest.mark.parametrize(
    ("shape", "snr", "words"), [((3, 3, 3), 250.0, "no grey matter falls into"), ((12, 14, 8), -1.0, "snr must be above 0")]
)
def test_phantoms_that_cannot_be(shape, snr, words):
    """They had come out as NaN, or with noise of a negative sd."""
    with pytest.raises(ValueError, match=words):
        make(shape, snr=snr)
