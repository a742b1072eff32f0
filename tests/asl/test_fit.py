"""The fit of a whole scan: truth recovered, honest intervals, the same answer however it is asked, and nothing harmed by bad voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scans import GM, LONG_AND_SHORT, fitted, phantom, plan, scan, some_voxels

from pinn_engine.asl.fit import fit, solve
from pinn_engine.asl.plan import Plan
from pinn_engine.core import Status
from pinn_engine.errors import InputError

METHODS = {"nlls": {"method": "nlls"}, "features": {}, "mlp": {"network": "mlp"}}


def frozen(made: dict) -> tuple:
    return tuple(made.items())


def errors(name: str, method: str, made: dict, tissue: int = GM) -> np.ndarray:
    p = phantom(**made)
    where = p.tissue == tissue
    return (fitted(made=frozen(made), **METHODS[method]).maps[name].value - getattr(p, name))[where]


# --- truth -------------------------------------------------------------------------------------------------------------

CLEAN = {
    "pcasl": {"snr": None},
    "pasl": {"snr": None, "labeling": "PASL"},
    "slices": {"snr": None, "slice_time": 0.04},
    "label durations": {"snr": None, **LONG_AND_SHORT},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLEAN)
def test_noise_free_grey_matter_is_recovered(name, method):
    cbf = phantom(**CLEAN[name]).cbf[phantom(**CLEAN[name]).tissue == GM]
    assert np.median(np.abs(errors("cbf", method, CLEAN[name])) / cbf) <= 0.01
    assert np.median(np.abs(errors("att", method, CLEAN[name]))) <= 0.005


@pytest.mark.parametrize("method", ["nlls", "features"])
def test_white_matter_with_a_t1_map_too_and_biased_without(method):
    p = phantom(**CLEAN["pcasl"])
    where = p.tissue == 2
    with_map, without = (fitted(t1, frozen(CLEAN["pcasl"]), **METHODS[method]) for t1 in (True, False))
    off = [np.median(((f.maps["cbf"].value - p.cbf) / p.cbf)[where]) for f in (with_map, without)]
    assert abs(off[0]) < 0.01
    assert -0.5 < off[1] < -0.15
    assert any("white-matter CBF" in note for note in without.scan.notes)
    assert not any("white-matter CBF" in note for note in with_map.scan.notes)


def test_t1_of_blood_is_fitted_where_asked():
    """Its prior is 1.65 +- 0.1 s; without noise PASL data find 1.5 in a phantom made with that (in PCASL it is one with the flow)."""
    p = phantom(snr=None, t1_blood=1.5, labeling="PASL")
    s = p.scan(t1_map=True)
    wrong = replace(s, acquisition=replace(s.acquisition, t1_blood=replace(s.acquisition.t1_blood, value=1.65)))
    where = p.tissue == GM
    found = fit(wrong, unknown=("cbf", "att", "t1b"), method="nlls")
    assert np.median(found.maps["t1b"].value[where]) == pytest.approx(1.5, abs=0.02)
    assert np.median(np.abs(found.maps["cbf"].value - p.cbf)[where] / p.cbf[where]) < 0.02
    assert np.median(np.abs(fit(wrong, method="nlls").maps["cbf"].value - p.cbf)[where] / p.cbf[where]) > 0.02


NOISY = {"pcasl": {"seed": 21, "repeats": 4}, "pasl": {"seed": 22, "repeats": 4, "labeling": "PASL", "snr": 500.0}}
LARGE = {name: {**made, "shape": (20, 24, 14)} for name, made in NOISY.items()}
LEAST = {"pcasl": 0.90, "pasl": 0.87}  # PASL's arrival time has several minima in some voxels, which a standard deviation cannot tell


@pytest.mark.parametrize("method", ["nlls", "features"])
@pytest.mark.parametrize("name", NOISY)
def test_intervals_cover_the_truth(name, method):
    where = phantom(**LARGE[name]).tissue == GM
    for key in ("cbf", "att"):
        std = fitted(made=frozen(LARGE[name]), **METHODS[method]).maps[key].std[where]
        inside = np.abs(errors(key, method, LARGE[name])) < 1.96 * std
        assert (LEAST[name] if key == "att" else 0.90) <= inside.mean() <= 0.98, key


@pytest.mark.parametrize("name", NOISY)
def test_physics_informed_is_no_worse_than_the_closed_form_on_the_right_model(name):
    for key in ("cbf", "att"):
        pinn, closed = (np.median(np.abs(errors(key, method, LARGE[name]))) for method in ("features", "nlls"))
        assert pinn <= 1.05 * closed, key


def test_on_a_dispersed_bolus_it_is_better_or_more_honest():
    made = {"seed": 23, "repeats": 8, "snr": 800.0, "dispersion": 0.3}
    where = phantom(**made).tissue == GM
    error, cover = {}, {}
    for method in ("nlls", "features"):
        e = np.abs(errors("cbf", method, made))
        error[method] = np.median(e)
        cover[method] = np.mean(e < 1.96 * fitted(made=frozen(made), **METHODS[method]).maps["cbf"].std[where])
    assert error["features"] < error["nlls"] or (error["features"] < 1.05 * error["nlls"] and cover["features"] > cover["nlls"])
    assert abs(cover["features"] - 0.95) < abs(cover["nlls"] - 0.95)


# --- the physics is real -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["features", "mlp"])
def test_the_equation_s_weight_changes_the_maps(method):
    """Model error is the weight of the equation rows: taken away (very large), the data alone say almost nothing about flow."""
    made = {"seed": 24}
    s = some_voxels(phantom(**made).scan(t1_map=True), 4)
    where = (phantom(**made).tissue == GM) & s.mask
    strict, usual, loose, none = (fit(s, **METHODS[method], model_error=e) for e in (0.01, 0.1, 0.5, 10.0))
    for key in ("cbf", "att"):
        assert np.median(np.abs(strict.maps[key].value - loose.maps[key].value)[where]) > 0.02 * np.median(strict.maps[key].value[where])
        widths = [float(np.median(f.maps[key].std[where])) for f in (strict, usual, loose, none)]
        assert widths == sorted(widths), key
    assert widths[0] < 0.7 * widths[3]
    assert np.median(np.abs(none.maps["cbf"].value - strict.maps["cbf"].value)[where]) > 0.3 * np.median(strict.maps["cbf"].value[where])


def test_with_a_perfect_equation_it_is_the_closed_form():
    """model_error -> 0 leaves the closed form, but for the prior on arrival time (and the network's intervals)."""
    s = some_voxels(phantom(seed=24, snr=2000.0).scan(t1_map=True), 3)
    where = (phantom(seed=24, snr=2000.0).tissue == GM) & s.mask
    exact, closed = fit(s, model_error=1e-4), fit(s, method="nlls")
    assert np.median(np.abs(exact.maps["cbf"].value / closed.maps["cbf"].value - 1)[where]) < 0.01
    assert np.median(np.abs(exact.maps["cbf"].std / closed.maps["cbf"].std - 1)[where]) < 0.05


def test_the_fitted_curve_lies_between_the_closed_form_and_the_data():
    made = {"seed": 23, "repeats": 8, "snr": 800.0, "dispersion": 0.3}
    p = phantom(**made)
    where = p.tissue == GM
    distance = {}
    for error in (0.005, 0.1, 3.0):
        f = fit(p.scan(t1_map=True), model_error=error)
        distance[error] = np.sqrt(np.mean((f.fitted - f.data)[where] ** 2))
    assert distance[0.005] > distance[0.1] > 3 * distance[3.0]


# --- however it is asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"method": "nlls"}, {}, {"network": "mlp"}], ids=METHODS)
def test_voxels_do_not_depend_on_each_other_or_on_chunks(settings):
    """Every scan-wide number held, some voxels alone, in another order and chunk, give what they give among all."""
    s = some_voxels(phantom(seed=25, slice_time=0.04).scan(), 6)
    whole = plan(s, dtype=torch.float64, **settings)
    pick = np.random.default_rng(0).permutation(len(whole.c))[: len(whole.c) // 2]
    c = whole.c
    part = replace(
        c, voxels=tuple(v[pick] for v in c.voxels), data=c.data[pick], noise=c.noise[pick], delay=c.delay[pick], scale=c.scale[pick]
    )
    among = solve(whole, 0.1)
    alone = solve(Plan(part, s, replace(whole.s, chunk=17)), 0.1)
    tolerance = 1e-3 if "network" in settings else 1e-6
    for name in ("cbf", "att"):
        torch.testing.assert_close(alone.values[name], among.values[name][pick], rtol=tolerance, atol=tolerance)
    assert (alone.status == among.status[pick]).float().mean() > 0.97


def test_a_smaller_mask_gives_nearly_the_same_voxels():
    """Scan-wide numbers (typical signal, shrunk noise) move a little with the mask; the maps hardly."""
    s = phantom(seed=25).scan(t1_map=True)
    half = some_voxels(s, 2)
    whole, part = fit(s, model_error=0.05), fit(half, model_error=0.05)
    sure = half.mask & (whole.maps["att"].std < 0.3)
    for name in ("cbf", "att"):
        apart = np.abs(part.maps[name].value - whole.maps[name].value)[sure] / whole.maps[name].std[sure]
        assert np.percentile(apart, 90) < 0.2
    assert not part.maps["cbf"].value[~half.mask].any()


@pytest.mark.parametrize("made", [{}, {"slice_time": 0.04}], ids=["3-D", "slices"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_call_gives_the_same_bytes_and_threads_agree(method, made):
    settings = METHODS[method]
    s = some_voxels(phantom(seed=26, **made).scan(t1_map=bool(made)), 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, again = fit(s, **settings), fit(s, **settings)
        torch.set_num_threads(2)
        two = fit(s, **settings)
    finally:
        torch.set_num_threads(threads)
    for name in ("cbf", "att"):
        for kind in ("value", "std"):
            a, b, c = (getattr(f.maps[name], kind) for f in (one, again, two))
            assert a.tobytes() == b.tobytes()
            assert np.mean(np.isclose(a, c, rtol=1e-3, atol=0)[s.mask]) >= 0.999
    assert one.status.tobytes() == again.status.tobytes()


def test_the_seed_reaches_the_networks():
    s = some_voxels(phantom(seed=26).scan(t1_map=True), 8)
    a, b = (fit(s, network="mlp", seed=seed) for seed in (0, 1))
    assert not np.array_equal(a.maps["cbf"].value, b.maps["cbf"].value)
    where = (phantom(seed=26).tissue == GM) & s.mask
    apart = np.abs(a.maps["cbf"].value - b.maps["cbf"].value)[where] / a.maps["cbf"].std[where]
    assert np.median(apart) < 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("settings", [{"method": "nlls"}, {}, {"network": "mlp"}, {"spatial": True}], ids=[*METHODS, "together"])
def test_a_gpu_gives_the_same_maps(settings):
    s = phantom(seed=26).scan(t1_map=True)
    cpu, cuda = (fit(s, device=device, **settings) for device in ("cpu", "cuda"))
    assert np.mean(np.isclose(cpu.maps["cbf"].value, cuda.maps["cbf"].value, rtol=1e-3, atol=0)[s.mask]) >= 0.999
    assert np.mean(cpu.status == cuda.status) >= 0.999


def test_what_the_closed_form_cannot_tell_is_marked():
    """No prior stands in for the data there: an arrival no better known than by its range is not determined."""
    f = fit(phantom(seed=26).scan(t1_map=True), method="nlls")
    sd, mask = f.maps["att"].std, f.scan.mask
    widest = (max(f.pld + f.label_duration) - 0.1) / 12**0.5
    assert 0 < np.mean(sd[mask] > widest) < 0.5
    assert not (f.status[mask & (sd > widest)] == Status.CONVERGED).any()
    assert np.mean(f.status[mask & (sd < widest)] == Status.CONVERGED) > 0.9


# --- bad voxels --------------------------------------------------------------------------------------------------------


def spoiled(kind: str, where: tuple[int, int, int]):
    """A noisy scan with one voxel spoiled, and the same scan whose mask leaves it out."""
    s = some_voxels(phantom(seed=27).scan(t1_map=True), 8)
    without = s.mask.copy()
    without[where] = False
    difference, m0 = s.difference.copy(), s.m0.copy()
    if kind == "nan":
        difference[where][3] = np.nan
    elif kind == "inf":
        difference[where][3] = np.inf
    else:
        m0[where] = 0
    return replace(s, difference=difference, m0=m0), replace(s, mask=without)


@pytest.mark.parametrize("settings", [{"method": "nlls"}, {}, {"network": "mlp"}], ids=METHODS)
@pytest.mark.parametrize(("kind", "status"), [("nan", 6), ("inf", 6), ("m0", 7)])
def test_one_bad_voxel_is_left_out_counted_and_harms_no_other(kind, status, settings):
    s = some_voxels(phantom(seed=27).scan(t1_map=True), 8)
    bad = tuple(int(i[40]) for i in np.nonzero(s.mask))
    with_bad, without = spoiled(kind, bad)
    a, b = fit(with_bad, **settings), fit(without, **settings)
    assert a.status[bad] == status
    assert any(note.startswith(f"1 of {int(s.mask.sum())} ") for note in a.scan.notes)
    for name in ("cbf", "att"):
        assert a.maps[name].value[bad] == a.maps[name].std[bad] == 0
        assert a.maps[name].value.tobytes() == b.maps[name].value.tobytes()
        assert a.maps[name].std.tobytes() == b.maps[name].std.tobytes()
    a.status[bad] = 0
    np.testing.assert_array_equal(a.status, b.status)


@pytest.mark.parametrize("settings", [{"method": "nlls"}, {}, {"network": "mlp"}], ids=METHODS)
@pytest.mark.parametrize("value", [1e12, -1e30, 0.0])
def test_a_voxel_of_any_finite_value_leaves_maps_finite(settings, value, tmp_path):
    s = some_voxels(phantom(seed=27).scan(t1_map=True), 12)
    bad = tuple(int(i[10]) for i in np.nonzero(s.mask))
    difference = s.difference.copy()
    difference[bad] = value
    f, clean = fit(replace(s, difference=difference), **settings), fit(s, **settings)
    for one in f.maps.values():
        assert np.isfinite(one.value).all()
        assert np.isfinite(one.std).all()
    others = (s.mask & (phantom(seed=27).tissue == GM)).copy()
    others[bad] = False
    apart = np.abs(f.maps["cbf"].value - clean.maps["cbf"].value)[others] / clean.maps["cbf"].std[others]
    assert np.median(apart) < 0.2
    assert f.save(tmp_path)  # sidecars hold only finite numbers


def test_maps_are_zero_outside_the_mask_and_float32():
    f = fitted(made=frozen(NOISY["pcasl"]))
    for one in f.maps.values():
        assert one.value.dtype == one.std.dtype == np.float32
        assert not one.value[~f.scan.mask].any()
        assert not one.std[~f.scan.mask].any()
    assert not f.status[~f.scan.mask].any()
    for volume in (f.misfit, f.data, f.fitted, f.fitted_std):
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()
        assert not volume[~f.scan.mask].any()
    assert set(np.unique(f.status)) <= set(f.status_meaning)


def test_misfit_is_one_where_the_model_is_right():
    f = fitted(made=frozen(NOISY["pcasl"]), method="nlls")
    assert np.sqrt(np.mean(f.misfit[f.scan.mask & (phantom(**NOISY["pcasl"]).tissue == GM)] ** 2)) == pytest.approx(1, abs=0.08)


def test_the_data_are_the_averaged_differences_in_scanner_units():
    p, f = phantom(**NOISY["pcasl"]), fitted(made=frozen(NOISY["pcasl"]))
    a = p.acquisition
    expected = np.stack([p.difference[..., (a.pld == pld)].mean(axis=-1) for pld in f.pld], axis=-1)
    np.testing.assert_allclose(f.data[p.mask], expected[p.mask], rtol=1e-4, atol=1e-3)
    assert f.repeats.tolist() == [4] * 6


# --- one delay ---------------------------------------------------------------------------------------------------------

CONSENSUS = [  # reference/asl.md 2.9: the consensus formula on the golden signals (M0 of tissue 1): no shorter than the truth of 60
    ("PCASL", 1.8, 1.8, 0.85, 5.477270e-3, 47.269),
    ("PASL", 1.8, 0.8, 0.98, 5.246929e-3, 53.793),
]


@pytest.mark.parametrize(("method", "tolerance"), [("nlls", 1e-4), ("pinn", 2e-3)])
@pytest.mark.parametrize(("labeling", "pld", "duration", "alpha", "signal", "cbf"), CONSENSUS)
def test_one_delay_is_the_consensus_formula(labeling, pld, duration, alpha, signal, cbf, method, tolerance):
    s = scan(np.full((3, 1, 1, 4), signal), [pld] * 4, duration, labeling, m0=1 / 0.9, alpha=alpha)
    f = fit(s, method=method)
    np.testing.assert_allclose(f.maps["cbf"].value, cbf, rtol=tolerance)
    assert list(f.maps) == ["cbf"]
    assert any("consensus formula" in note for note in f.scan.notes)


@pytest.mark.parametrize("method", ["nlls", "pinn"])
def test_one_delay_without_repeats(method):
    """The noise cannot be known: a tenth of the signal is assumed, and the weak prior on flow takes 0.1 %."""
    f = fit(scan(np.full((3, 1, 1, 1), 5.477270e-3), [1.8], m0=1 / 0.9), method=method)
    np.testing.assert_allclose(f.maps["cbf"].value, 47.269, rtol=2.5e-3)
    np.testing.assert_allclose(f.maps["cbf"].std, 4.7, rtol=0.2)


def test_one_delay_with_networks_says_that_there_are_none():
    f = fit(scan(np.full((3, 1, 1, 1), 5.477270e-3), [1.8], m0=1 / 0.9), network="mlp")
    assert f.settings["network"] == "features"
    assert any("shared-feature network" in note for note in f.scan.notes)


def test_without_m0_perfusion_is_relative():
    s = some_voxels(phantom(seed=27).scan(t1_map=True), 6)
    absolute, relative = fit(s, method="nlls"), fit(replace(s, m0=None), method="nlls")
    assert relative.maps["cbf"].kind.suffix == "desc-relative_cbf"
    assert absolute.maps["cbf"].kind.suffix == "cbf"
    ratio = relative.maps["cbf"].value[s.mask] * 6000 / s.m0[s.mask] / absolute.maps["cbf"].value[s.mask]
    assert np.median(np.abs(ratio - 1)) < 0.02


# --- wrong calls -------------------------------------------------------------------------------------------------------

WRONG = {
    "unknown without cbf": ({"unknown": ("att",)}, "must include cbf"),
    "unknown nothing": ({"unknown": ()}, "must include cbf"),
    "unknown unknown": ({"unknown": ("cbf", "t2")}, "--unknown.*t2"),
    "model": ({"model": "grase"}, "--model.*grase"),
    "method": ({"method": "bayes"}, "--method.*bayes"),
    "network": ({"network": "transformer"}, "--network.*transformer"),
    "model error 0": ({"model_error": 0.0}, "--model-error.*0"),
    "model error negative": ({"model_error": -1.0}, "--model-error"),
    "model error nan": ({"model_error": float("nan")}, "--model-error"),
    "device": ({"device": "tpu0"}, "--device tpu0"),
    "device that is not here": ({"device": "cuda:97"}, "--device cuda:97"),
}


@pytest.mark.parametrize(("settings", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_calls_are_one_clear_line(settings, words):
    with pytest.raises(InputError, match=words) as caught:
        fit(some_voxels(phantom().scan(), 50), **settings)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_nothing_to_fit_is_an_error():
    with pytest.raises(InputError, match="no voxel can be fitted"):
        fit(scan(np.full((2, 2, 1, 4), np.nan), [1.0, 1.0, 1.5, 1.5]))
    with pytest.raises(InputError, match="no voxel can be fitted"):
        fit(scan(np.ones((2, 2, 1, 2)), [1.0, 1.5], m0=0.0))
    with pytest.raises(InputError, match="2 delays cannot determine 3 unknowns"):
        fit(scan(np.ones((2, 2, 1, 2)), [1.0, 1.5]), unknown=("cbf", "att", "t1b"))


@pytest.mark.parametrize(
    ("unknown", "settings"),
    [
        pytest.param(unknown, METHODS[m], id=f"{'+'.join(unknown)}-{m}")
        for unknown in [("cbf",), ("cbf", "t1b"), ("cbf", "att", "t1b"), ("CBF", " att")]
        for m in METHODS
    ],
)
def test_every_choice_of_unknowns_runs(unknown, settings):
    f = fit(some_voxels(phantom(seed=27).scan(t1_map=True), 30), unknown=unknown, **settings)
    assert sorted(f.maps) == sorted({name.strip().lower() for name in unknown})


@pytest.mark.parametrize("voxels", [1, 2, 3])
@pytest.mark.parametrize("settings", [{"method": "nlls"}, {}, {"network": "mlp"}], ids=METHODS)
def test_few_voxels(voxels, settings):
    s = phantom(snr=None).scan(t1_map=True)
    grey = np.flatnonzero(phantom(snr=None).tissue == GM)[:voxels]
    mask = np.isin(np.arange(s.mask.size), grey).reshape(s.mask.shape)
    f = fit(replace(s, mask=mask), **settings)
    np.testing.assert_allclose(f.maps["cbf"].value[mask], phantom(snr=None).cbf[mask], rtol=0.1)


def test_progress_goes_from_zero_to_one():
    told = []
    fit(some_voxels(phantom().scan(), 20), progress=lambda stage, done: told.append((stage, done)))
    assert [stage for stage, _ in told] == ["fit"] * len(told)
    assert told[-1][1] == 1
    assert [done for _, done in told] == sorted(done for _, done in told)


def test_unknown_may_be_a_text_and_other_things_are_told():
    s = phantom(seed=61).scan()
    text, names = (fit(s, unknown=given, method="nlls") for given in ("cbf,att", ("cbf", "att")))
    np.testing.assert_array_equal(text.maps["cbf"].value, names.maps["cbf"].value)
    with pytest.raises(TypeError, match=r"what asl.read returns, not str: asl.fit\(asl.read\(path\)\)"):
        fit("sub-01_asl.nii.gz")
    assert "\n" not in repr(text) + repr(s)  # a thousand lines of numbers in a notebook help nobody
    assert f"{s.mask.sum():,} in mask" in repr(s)
    assert "median" in repr(text)
