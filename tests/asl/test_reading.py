"""A series is read into the differences, times, calibration and mask that were put into it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bids_series import PLDS, SHAPE, brain, cycle, save, truth, write, write_m0

from pinn_engine.asl.acquisition import AcquisitionOptions
from pinn_engine.asl.scan import read


def by_delay(scan) -> dict[float, np.ndarray]:
    """Sorted differences of one voxel for each delay: what must not depend on the order of acquisition."""
    pld = scan.acquisition.pld
    return {float(delay): np.sort(scan.difference[5, 5, 1, pld == delay]) for delay in np.unique(pld)}


def shuffled(rows, seed=3):
    """Any order; the k-th control and the k-th label of a delay still belong together."""
    order = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]
    seen: dict[tuple[str, float], int] = {}
    result = []
    for kind, pld, _ in order:
        result.append((kind, pld, seen.get((kind, pld), 0)))
        seen[kind, pld] = result[-1][2] + 1
    return result


ORDERS = {
    "cycled, control first": cycle("CL"),
    "cycled, label first": cycle("LC"),
    "grouped by delay": sorted(cycle("LC"), key=lambda row: row[1]),
    "all labels, then all controls": sorted(cycle("LC"), key=lambda row: row[0], reverse=True),
    "shuffled": shuffled(cycle("CL")),
    "differences": cycle("D"),
    "with m0scan and n/a": [("m0scan", 0.0, 0), *cycle("CL"), ("n/a", 0.0, 0)],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_differences_do_not_depend_on_order(tmp_path, order):
    scan = read(write(tmp_path, order, M0Type="Included" if order[0][0] == "m0scan" else "Absent"))
    assert scan.difference.shape == (*SHAPE, 6)
    assert scan.difference.dtype == np.float32
    found = by_delay(scan)
    assert list(found) == list(PLDS)
    for pld in PLDS:
        np.testing.assert_array_equal(found[pld], [truth(pld, repeat)[5, 5, 1] for repeat in (0, 1)])
    # Not only the values: each difference stands under its own delay.
    for index, pld in enumerate(scan.acquisition.pld):
        assert any(np.array_equal(scan.difference[..., index], truth(pld, repeat)) for repeat in (0, 1))


def test_grid_and_names(tmp_path):
    scan = read(write(tmp_path))
    assert (scan.prefix, scan.source) == ("sub-01", "sub-01_asl.nii.gz")
    assert (scan.grid.shape, scan.grid.qform_code, scan.grid.sform_code) == (SHAPE, 0, 2)
    np.testing.assert_allclose(scan.grid.spacing, [3, 3, 5])
    assert scan.mask[brain()].mean() > 0.9
    assert scan.mask[~brain()].mean() < 0.1


TIMES = {  # sidecar fields -> (pld, label duration, time from the start of labelling) of the first difference
    "scalars": ({"PostLabelingDelay": 1.8}, (1.8, 1.8, 3.6)),
    "integers and strings": ({"PostLabelingDelay": "2", "LabelingDuration": 1}, (2, 1, 3)),
    "list of one": ({"PostLabelingDelay": [1.5], "LabelingDuration": [1.8]}, (1.5, 1.8, 3.3)),
    "delay 0": ({"PostLabelingDelay": 0}, (0, 1.8, 1.8)),
    "duration per volume": ({"LabelingDuration": [1.0, 1.0, 1.5, 1.5, 1.8, 1.8] * 2}, (0.5, 1.0, 1.5)),
    "PASL": ({"ArterialSpinLabelingType": "PASL", "BolusCutOffFlag": True, "BolusCutOffDelayTime": 0.4}, (0.5, 0.4, 0.5)),
    "Q2TIPS": ({"ArterialSpinLabelingType": "PASL", "BolusCutOffTechnique": "Q2TIPS", "BolusCutOffDelayTime": [0.4, 1.2]}, (0.5, 0.4, 0.5)),
}


@pytest.mark.parametrize(("fields", "expected"), TIMES.values(), ids=TIMES.keys())
def test_times(tmp_path, fields, expected):
    acquisition = read(write(tmp_path, **fields)).acquisition
    np.testing.assert_allclose([acquisition.pld[0], acquisition.label_duration[0], acquisition.times[0]], expected)


def test_same_delay_with_two_label_durations_is_not_mixed(tmp_path):
    order = [("control", 1.0, 0), ("control", 1.0, 1), ("label", 1.0, 1), ("label", 1.0, 0)]
    scan = read(write(tmp_path, order, LabelingDuration=[0.5, 1.5, 1.5, 0.5]))
    np.testing.assert_array_equal(scan.acquisition.label_duration, [0.5, 1.5])
    np.testing.assert_array_equal(scan.difference[..., 1], truth(1.0, 1))


SLICES = {  # fields, options, expected delays of the four slices, axis
    "2D": ({"MRAcquisitionType": "2D", "SliceTiming": [0, 0.1, 0.2, 0.3]}, {}, [0, 0.1, 0.2, 0.3], 2),
    "2D, interleaved": ({"SliceTiming": [0, 0.2, 0.1, 0.3]}, {}, [0, 0.2, 0.1, 0.3], 2),
    "reversed": ({"MRAcquisitionType": "2D", "SliceTiming": [0, 0.1, 0.2, 0.3], "SliceEncodingDirection": "k-"}, {}, [0.3, 0.2, 0.1, 0], 2),
    "3D ignores": ({"SliceTiming": [0, 0.1, 0.2, 0.3], "MRAcquisitionType": "3D"}, {}, [0, 0, 0, 0], 2),
    "one number by option": ({"MRAcquisitionType": "2D"}, {"slice_timing": 0.05}, [0, 0.05, 0.1, 0.15], 2),
    "along j": (
        {"MRAcquisitionType": "2D", "SliceTiming": list(np.arange(10.0) / 10), "SliceEncodingDirection": "j"},
        {},
        np.arange(10) / 10,
        1,
    ),
}


@pytest.mark.parametrize(("fields", "options", "expected", "axis"), SLICES.values(), ids=SLICES.keys())
def test_slice_delays(tmp_path, fields, options, expected, axis):
    drop = () if "MRAcquisitionType" in fields else ("MRAcquisitionType",)
    acquisition = read(write(tmp_path, drop=drop, **fields), options=AcquisitionOptions(**options)).acquisition
    np.testing.assert_allclose(acquisition.slice_delay, expected, atol=1e-12)
    assert acquisition.slice_axis == axis


CONSTANTS = {  # fields, options, constant, value, part of its origin
    "alpha default": ({}, {}, "alpha", 0.85, "10.1002/mrm.25197"),
    "alpha CASL": ({"ArterialSpinLabelingType": "CASL"}, {}, "alpha", 0.68, "radiol.2351031663"),
    "alpha measured, no BS factor": (
        {"LabelingEfficiency": 0.7, "BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2},
        {},
        "alpha",
        0.7,
        "sub-01_asl.json: LabelingEfficiency",
    ),
    "alpha with 2 BS pulses": (
        {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2},
        {},
        "alpha",
        0.85 * 0.95**2,
        "NumberPulses",
    ),
    "BS pulses counted by their times": (
        {"BackgroundSuppression": True, "BackgroundSuppressionPulseTime": [1, 2, 3, 4]},
        {},
        "alpha",
        0.692330,
        "Time",
    ),
    "alpha by option": ({"LabelingEfficiency": 0.7}, {"alpha": 0.9}, "alpha", 0.9, "option --alpha"),
    "T1b 3 T": ({"MagneticFieldStrength": 2.89}, {}, "t1_blood", 1.65, "at 3 T"),
    "T1b 1.5 T": ({"MagneticFieldStrength": 1.5}, {}, "t1_blood", 1.35, "at 1.5 T"),
    "T1b 7 T": ({"MagneticFieldStrength": "7"}, {}, "t1_blood", 2.087, "mrm.24550"),
    "T1b 5 T": ({"MagneticFieldStrength": 5}, {}, "t1_blood", 1.866, "mrm.24550"),
    "T1 tissue": ({}, {}, "t1_tissue", 1.33, "AID-JMRI4"),
    "lambda": ({}, {}, "partition", 0.9, "default"),
    "lambda by option": ({}, {"partition": 0.98}, "partition", 0.98, "option --lambda"),
}


@pytest.mark.parametrize(("fields", "options", "name", "value", "origin"), CONSTANTS.values(), ids=CONSTANTS.keys())
def test_constants_and_their_origins(tmp_path, fields, options, name, value, origin):
    acquisition = read(write(tmp_path, **fields), options=AcquisitionOptions(**options)).acquisition
    constant = getattr(acquisition, name)
    assert constant.value == pytest.approx(value, abs=1e-6)
    assert origin in constant.origin
    assert acquisition.origins[name] == constant


def test_options_alone_are_enough_and_every_value_has_an_origin(tmp_path):
    path = save(tmp_path / "perfusion.nii", np.stack([truth(pld, 0) for pld in PLDS], axis=-1))
    options = AcquisitionOptions(labeling="pcasl", plds=PLDS, label_duration=1.4, volumes="deltam", slice_timing=0.0)
    scan = read(path, options=options)
    assert scan.prefix == "perfusion"
    np.testing.assert_array_equal(scan.acquisition.pld, PLDS)
    assert scan.acquisition.origins["post_labeling_delay"].origin == "option --plds"
    assert scan.acquisition.origins["label_duration"].value == 1.4


OPTION_LISTS = {
    "per volume": [0.6, 0.6, 1.1, 1.1, 1.6, 1.6] * 2,
    "per pair": [0.6, 1.1, 1.6] * 2,
}


@pytest.mark.parametrize("plds", OPTION_LISTS.values(), ids=OPTION_LISTS.keys())
def test_delays_by_option_override_the_sidecar(tmp_path, plds):
    order = [("m0scan", 0.0, 0), *cycle("CL")]
    scan = read(write(tmp_path, order, M0Type="Included"), options=AcquisitionOptions(plds=plds))
    np.testing.assert_array_equal(scan.acquisition.pld, [0.6, 1.1, 1.6] * 2)


def test_volumes_option_overrides_the_context_but_keeps_m0scans(tmp_path):
    order = [("m0scan", 0.0, 0), *cycle("LC")]
    right = read(write(tmp_path, order, M0Type="Included"))
    wrong = read(write(tmp_path, order, M0Type="Included"), options=AcquisitionOptions(volumes="control-label"))
    np.testing.assert_array_equal(wrong.difference, -right.difference)
    assert any("negative" in note for note in wrong.notes)
    assert not any("negative" in note for note in right.notes)


RELAXED_2S = 1 - np.exp(-2 / 1.33)
M0 = {  # m0scan fields (None: no m0scan), sidecar fields, read's arguments -> M0 of blood
    "separate, long TR": ({}, {"M0Type": "Separate"}, {}, 1800 / 0.9),
    "separate, short TR": ({"RepetitionTimePreparation": 2}, {"M0Type": "Separate"}, {}, 1800 / 0.9 / RELAXED_2S),
    "TR 0 falls back": ({"RepetitionTimePreparation": 0, "RepetitionTime": 2}, {"M0Type": "Separate"}, {}, 1800 / 0.9 / RELAXED_2S),
    "scaled, other lambda": ({}, {}, {"m0_scale": 10, "options": AcquisitionOptions(partition=0.98)}, 18000 / 0.98),
    "intended for by URI": ({"IntendedFor": ["bids::sub-01/perf/sub-01_asl.nii.gz"]}, {}, {}, 1800 / 0.9),
    "estimate is blood": (None, {"M0Type": "Estimate", "M0Estimate": 1500}, {}, 1500),
    "a number": (None, {}, {"m0": "1500"}, 1500 / 0.9),
    "a number over an image": ({}, {"M0Type": "Separate"}, {"m0": 900.0}, 1000),
}


@pytest.mark.parametrize(("m0scan", "fields", "arguments", "expected"), M0.values(), ids=M0.keys())
def test_m0_of_blood(tmp_path, m0scan, fields, arguments, expected):
    path = write(tmp_path, **fields)
    if m0scan is not None:
        write_m0(path, **m0scan)
    scan = read(path, **arguments)
    np.testing.assert_allclose(scan.m0[brain()], expected, rtol=1e-6)
    assert scan.acquisition.origins["m0"].value is not None


def test_m0_included_takes_its_own_repetition_time(tmp_path):
    order = [("m0scan", 0.0, 0), *cycle("CL")]
    scan = read(write(tmp_path, order, M0Type="Included", RepetitionTimePreparation=[2, *[6] * 12]))
    np.testing.assert_allclose(scan.m0[brain()], 2000 / 0.9 / RELAXED_2S, rtol=1e-6)


def test_mean_control_is_m0_only_without_background_suppression(tmp_path):
    controls = 800 + 16 * np.mean(PLDS)
    plain = read(write(tmp_path / "a"))
    np.testing.assert_allclose(plain.m0[brain()], controls / 0.9, rtol=1e-6)
    suppressed = read(write(tmp_path / "b", BackgroundSuppression=True))
    assert suppressed.m0 is None
    assert any("relative" in note for note in suppressed.notes)
    unknown = read(write(tmp_path / "c", drop=("BackgroundSuppression",)))
    assert unknown.m0 is None


def test_tiny_m0_is_zero_and_noted(tmp_path):
    path = write(tmp_path)
    image = brain() * 1800.0
    image[4, 4, 1], image[5, 4, 1], image[6, 4, 1] = -5, np.nan, 1e-3
    scan = read(path, m0=save(tmp_path / "m0.nii.gz", image))
    np.testing.assert_array_equal(scan.m0[4:7, 4, 1], 0)
    assert np.isfinite(scan.m0).all()
    assert any("3 voxels" in note for note in scan.notes)


def test_t1_map_and_mask_are_taken(tmp_path):
    t1 = np.full(SHAPE, 1.2)
    t1[0, 0, 0] = 0
    scan = read(write(tmp_path), t1_map=save(tmp_path / "t1.nii.gz", t1), mask=save(tmp_path / "mask.nii.gz", brain()))
    np.testing.assert_allclose(scan.t1_tissue[brain()], 1.2, rtol=1e-6)
    assert scan.t1_tissue[0, 0, 0] == pytest.approx(1.33)
    np.testing.assert_array_equal(scan.mask, brain())


def test_single_bad_values_stay_nan_and_are_counted(tmp_path):
    path = write(tmp_path, cycle("D"))
    data = np.stack([truth(pld, repeat) for _, pld, repeat in cycle("D")], axis=-1)
    data[5, 5, 1, 0], data[6, 5, 1, 2] = np.nan, np.inf
    scan = read(save(path, data))
    assert np.argwhere(np.isnan(scan.difference)).tolist() == [[5, 5, 1, 0], [6, 5, 1, 2]]
    assert any("2 differences in 2 voxels" in note for note in scan.notes)


def test_sidecar_fields_are_inherited_and_the_nearer_wins(tmp_path):
    path = write(tmp_path, drop=("LabelingDuration",))
    (tmp_path / "asl.json").write_text(json.dumps({"LabelingDuration": 1.5, "MagneticFieldStrength": 7}))
    acquisition = read(path).acquisition
    assert acquisition.label_duration[0] == 1.5
    assert acquisition.origins["label_duration"].origin == "asl.json: LabelingDuration"
    assert acquisition.t1_blood.value == 1.65


def test_total_pairs_and_a_single_difference_image(tmp_path):
    assert any("TotalAcquiredPairs is 40" in note for note in read(write(tmp_path / "a", TotalAcquiredPairs=40)).notes)
    scan = read(write(tmp_path / "b", [("deltam", 1.8, 0)], data=truth(1.8, 0)))
    assert scan.difference.shape == (*SHAPE, 1)


def test_simplified_model_implies_pasl(tmp_path):
    path = save(tmp_path / "infant.nii.gz", np.stack([truth(ti, 0) for ti in PLDS], axis=-1))
    scan = read(path, model="simplified", options=AcquisitionOptions(tis=PLDS, bolus_duration=0.6, volumes="deltam"))
    assert scan.acquisition.labeling == "PASL"
    np.testing.assert_array_equal(scan.acquisition.times, PLDS)
