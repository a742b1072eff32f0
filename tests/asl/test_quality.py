"""Regions, tissue figures, the quality index, plausibility checks and the methods paragraph: against hand calculation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import fitted, phantom

from pinn_engine.asl.acquisition import Sourced
from pinn_engine.asl.maps import RELATIVE_CBF
from pinn_engine.asl.methods import paragraph
from pinn_engine.asl.phantom import write_bids
from pinn_engine.asl.quality import plausibility, qei, qei_parts, quality, tissue_of
from pinn_engine.asl.regions import Regions, read_names, read_regions, region_table
from pinn_engine.asl.result import ExtraVolume
from pinn_engine.cli import main
from pinn_engine.errors import InputError
from pinn_engine.files.grid import Grid

NAMED = {1: "Grey matter", 2: "WM", 3: "CSF"}


def labelled(names=NAMED):
    """A fit with the phantom's tissue as its regions and no T1 map."""
    f = fitted(t1_map=False)
    return replace(f, scan=replace(f.scan, regions=Regions(phantom().tissue.astype(np.int64), names, "tissue.nii.gz")))


def with_cbf(f, change):
    """The fit with other CBF values."""
    cbf = f.maps["cbf"]
    value = np.where(f.scan.mask, change(cbf.value), 0).astype(np.float32)
    return replace(f, maps=f.maps | {"cbf": replace(cbf, value=value)})


def test_the_region_table_is_what_the_maps_say():
    f = labelled({1: "Grey matter"})
    columns, rows = region_table(f)
    assert [row["name"] for row in rows] == ["Grey matter", "label 2", "label 3"][: len(rows)]
    grey = (phantom().tissue == 1) & f.scan.mask & (f.maps["cbf"].std > 0)
    for name in ("cbf", "att"):
        value, std = (a[grey].astype(float) for a in (f.maps[name].value, f.maps[name].std))
        assert rows[0][f"{name}_mean"] == pytest.approx(value.mean())
        assert rows[0][f"{name}_median"] == pytest.approx(np.median(value))
        assert rows[0][f"{name}_sd"] == pytest.approx(value.std(ddof=1))
        assert rows[0][f"{name}_se"] == pytest.approx(np.sqrt((std**2).sum()) / grey.sum())
        assert rows[0][f"{name}_se_together"] == pytest.approx(std.mean())
    assert rows[0]["voxels"] == grey.sum()
    assert set(rows[0]) == set(columns)


def test_standard_errors_of_independent_voxels_hold():
    """Means of many draws of the noise scatter as the table says."""
    f = labelled()
    grey = (phantom().tissue == 1) & f.scan.mask & (f.maps["cbf"].std > 0)
    rng = np.random.default_rng(5)
    draws = [with_cbf(f, lambda v: v + f.maps["cbf"].std * rng.standard_normal(v.shape)).maps["cbf"].value[grey].mean() for _ in range(200)]
    assert np.std(draws) == pytest.approx(region_table(f)[1][0]["cbf_se"], rel=0.15)


def test_a_region_without_fitted_voxels_has_a_row_and_no_values():
    f = labelled()
    labels = np.zeros_like(f.scan.regions.labels)
    labels[0, 0, 0] = 7  # outside the mask
    (row,) = region_table(replace(f, scan=replace(f.scan, regions=Regions(labels, {}, "x"))))[1]
    assert (row["voxels"], row["share_fitted"], row["cbf_mean"]) == (0, 0.0, None)


def test_tissue_is_named_given_or_fitted_and_never_guessed():
    assert tissue_of(fitted(t1_map=False)) is None
    assert tissue_of(labelled({})) is None  # labels without names are no tissue
    assert tissue_of(labelled()).origin == "labels of tissue.nii.gz"
    assert quality(fitted(t1_map=False))["gm_cbf_mean"] is None
    f = fitted(t1_map=False)
    joint = ExtraVolume("desc-tissue_dseg", phantom().tissue, "", "1", labels=True)
    by_fit = tissue_of(replace(f, extras={"tissue": joint}, settings=f.settings | {"tissue_classes": "M0 and difference signal"}))
    assert by_fit.origin == "joint fit, from M0 and difference signal"
    freesurfer = Regions(phantom().tissue.astype(np.int64), {1: "Left-Cerebral-Cortex", 2: "Right-Cerebral-White-Matter"}, "aseg").tissue()
    np.testing.assert_array_equal(freesurfer, phantom().tissue * (phantom().tissue < 3))


def test_tissue_figures_are_what_the_maps_say():
    f = labelled()
    row, used = quality(f), f.scan.mask & (f.maps["cbf"].std > 0)
    grey, white = (used & (phantom().tissue == k) for k in (1, 2))
    cbf = f.maps["cbf"].value.astype(float)
    assert row["gm_cbf_mean"] == pytest.approx(cbf[grey].mean(), rel=1e-5)
    assert row["wm_att_mean"] == pytest.approx(f.maps["att"].value[white].mean(), rel=1e-5)
    assert row["gm_wm_ratio"] == pytest.approx(cbf[grey].mean() / cbf[white].mean(), rel=1e-5)
    assert row["gm_spatial_cov"] == pytest.approx(cbf[grey].std() / cbf[grey].mean(), rel=1e-5)
    assert row["gm_share_negative"] == np.mean(cbf[grey] < 0)
    assert row["cbf_spatial_cov"] == pytest.approx(cbf[used].std() / cbf[used].mean(), rel=1e-5)


def test_the_quality_index_is_dolui_s_formula():
    """Piecewise constant maps: likeness 1 and no dispersion; by hand where they disperse."""
    assert qei(1, 0, 0) == pytest.approx((1 - np.exp(-3.0126)) ** (1 / 3))
    assert qei(0.8, 2.0, 0.05) == pytest.approx(
        ((1 - np.exp(-3.0126 * 0.8**2.4419)) * np.exp(-(0.054 * 2.0**0.9272 + 2.8478 * 0.05**0.5196))) ** (1 / 3)
    )
    tissue = np.zeros((20, 20, 20), np.uint8)
    tissue[2:-2, 2:-2, 2:10], tissue[2:-2, 2:-2, 10:-2] = 1, 2
    tiny = np.full(3, 1000.0)  # mm: voxels so large that 5 mm smooths nothing
    structure, dispersion, negative = qei_parts(60.0 * (tissue == 1) + 24 * (tissue == 2), tissue, tiny)
    assert (structure, dispersion, negative) == (pytest.approx(1), pytest.approx(0), 0)
    rng = np.random.default_rng(2)
    noisy = (60.0 * (tissue == 1) + 24 * (tissue == 2) + 12 * rng.standard_normal(tissue.shape)) * (tissue > 0)
    _, dispersion, _ = qei_parts(noisy, tissue, tiny)
    assert dispersion == pytest.approx(12**2 / 60, rel=0.06)
    assert qei_parts(noisy, tissue, np.full(3, 3.0))[1] < dispersion / 2  # smoothed
    assert qei_parts(-noisy, tissue, tiny)[0] == 0


def test_noise_lowers_the_index():
    f = labelled()
    rng = np.random.default_rng(0)
    values = [quality(with_cbf(f, lambda v, s=s: v + s * rng.standard_normal(v.shape)))["qei"] for s in (0, 40, 160)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[2] + 0.2


SPOILT = {  # what is done to CBF: the figure that is flagged, a word of the sentence
    "scale": (lambda v: 50 * v, "gm_cbf_mean", "M0 on another scale"),
    "exchanged": (lambda v: -v, "cbf_share_negative", "control and label exchanged"),
    "flat": (lambda v: 0 * v + 50, "gm_wm_ratio", "tissue map"),
    "vessels": (lambda v: v + 400 * (np.arange(v.size).reshape(v.shape) % 8 == 0), "cbf_share_above_150", "arteries"),
}


@pytest.mark.parametrize(("change", "figure", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_what_is_not_plausible_is_said(change, figure, words):
    true = with_cbf(labelled(), lambda v: phantom().cbf)
    sound, spoilt = ({row["figure"]: row for row in plausibility(f)} for f in (true, with_cbf(true, change)))
    assert sound[figure]["plausible"]
    assert not spoilt[figure]["plausible"]
    assert words in spoilt[figure]["sentence"]
    assert "outside" in spoilt[figure]["sentence"]


def test_relative_perfusion_is_not_judged_by_its_level():
    f = with_cbf(labelled(), lambda v: 50 * v)
    f = replace(f, maps=f.maps | {"cbf": replace(f.maps["cbf"], kind=RELATIVE_CBF)})
    assert not {"gm_cbf_mean", "cbf_share_above_150"} & {row["figure"] for row in plausibility(f)}
    assert "cbf_share_above_150" not in quality(f)


def test_the_methods_paragraph_says_what_was_used_with_its_sources():
    text = paragraph(labelled())
    for words in (
        "pseudo-continuous", "post-labelling delays 0.25, 0.5, 1, 1.5, 2, 2.5 s", "label duration 1.8 s", "doi:10.1002/mrm.1910400308",
        "doi:10.1016/j.jcp.2018.10.045", "labelling efficiency 0.85", "T1 of arterial blood 1.65 s", "doi:10.1002/jmri.29308",
        "Regions are those of tissue.nii.gz", "doi:10.1002/mrm.25197", "model error of",
    ):  # fmt: skip
        assert words in text, words
    assert "\n" not in text
    assert "Given by the user" not in text
    f = labelled()
    origins = f.scan.acquisition.origins | {
        "alpha": Sourced(0.7, "option --alpha, used as given"),
        "post_labeling_delay": Sourced("0.5, 1", "option --plds", "s"),
    }
    given = paragraph(replace(f, scan=replace(f.scan, acquisition=replace(f.scan.acquisition, origins=origins))))
    assert "labelling efficiency 0.7 (option --alpha, used as given)" in given
    assert "Given by the user and not by the scan's own description: --alpha, --plds." in given
    closed = paragraph(fitted(t1_map=False, method="nlls"))
    assert "nonlinear least squares" in closed
    assert "neural" not in closed
    assert "quality evaluation index" not in closed  # no tissue is known


# --- from files ---------------------------------------------------------------------------------------------------------

GRID = Grid((4, 5, 3), np.diag([3.0, 3, 5, 1]))


def label_image(path: Path, data, affine=GRID.affine) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def test_names_from_a_table_beside_it_a_given_table_or_a_colour_table(tmp_path):
    path = label_image(tmp_path / "atlas_dseg.nii.gz", np.arange(60).reshape(4, 5, 3) % 3)
    assert read_regions(path, GRID).name(2) == "label 2"
    (tmp_path / "atlas_dseg.tsv").write_text("index\tabbreviation\tname\n1\tP\tPutamen\n2\tC\tCaudate nucleus\n")
    assert read_regions(path, GRID).names == {1: "Putamen", 2: "Caudate nucleus"}
    (tmp_path / "lut.txt").write_text("# a comment\n0  Unknown  0 0 0 0\n1  Left-Putamen  12 48 255 0\n")
    assert read_regions(path, GRID, tmp_path / "lut.txt").name(1) == "Left-Putamen"


BAD = {
    "missing": (lambda f: (f / "no.nii.gz", None), "no.nii.gz: label image does not exist"),
    "another shape": (lambda f: (label_image(f / "l.nii.gz", np.ones((4, 5, 2))), None), "l.nii.gz.*4 x 5 x 3.*found 4 x 5 x 2"),
    "elsewhere": (lambda f: (label_image(f / "l.nii.gz", np.ones(GRID.shape), np.diag([-3.0, 3, 5, 1])), None), "l.nii.gz.*position"),
    "a map": (lambda f: (label_image(f / "l.nii.gz", np.full(GRID.shape, 0.4)), None), "l.nii.gz.*whole numbers.*0.4"),
    "negative": (lambda f: (label_image(f / "l.nii.gz", np.full(GRID.shape, -1)), None), "l.nii.gz.*whole numbers.*-1"),
    "NaN": (lambda f: (label_image(f / "l.nii.gz", [[[np.nan, 1, 1]] * 5] * 4), None), "l.nii.gz.*whole numbers.*nan"),
    "empty": (lambda f: (label_image(f / "l.nii.gz", np.zeros(GRID.shape)), None), "l.nii.gz.*zero everywhere"),
    "a picture": (
        lambda f: (label_image(f / "l.nii.gz", np.arange(2001 * 3).reshape(3, 23, 87) + 1), Grid((3, 23, 87), GRID.affine)),
        "l.nii.gz.*label image.*6002 different values",
    ),
    "4-D": (lambda f: (label_image(f / "l.nii.gz", np.ones((*GRID.shape, 2))), None), "l.nii.gz.*3-D"),
    "names missing": (lambda f: (label_image(f / "l.nii.gz", np.ones(GRID.shape)), f / "n.tsv"), "n.tsv.*cannot be read"),
}


@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD.keys())
def test_bad_labels_are_one_line(make, says, tmp_path):
    path, other = make(tmp_path)
    grid, names = (other, None) if isinstance(other, Grid) else (GRID, other)
    with pytest.raises(InputError, match=says) as caught:
        read_regions(path, grid, names)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("content", ["", "index\tname\n", "region\tvolume\nPutamen\t3\n", "index\tname\none\tPutamen\n"])
def test_bad_names_are_one_line(content, tmp_path):
    (tmp_path / "names.tsv").write_text(content)
    with pytest.raises(InputError, match=r"names\.tsv.*no label names.*index"):
        read_names(tmp_path / "names.tsv")


def test_the_command_writes_the_table_and_the_report_shows_it(tmp_path, capsys):
    paths = write_bids(phantom(), tmp_path / "in")
    (tmp_path / "names.tsv").write_text("index\tname\n1\tGrey matter\n2\tWhite matter\n")
    plain = ["asl", str(paths["asl"]), "--method", "nlls", "--out"]
    assert main([*plain, str(tmp_path / "a")]) == 0
    assert not (tmp_path / "a" / "sub-01_desc-roi_cbf.tsv").exists()
    bare = shutil.copy(paths["tissue"], tmp_path / "bare.nii.gz")  # no table of names beside it
    for labels, name in ((bare, "label 1"), (paths["tissue"], "grey matter")):
        assert main([*plain, str(tmp_path / "b"), "--labels", str(labels)]) == 0
        assert name in (tmp_path / "b" / "sub-01_desc-roi_cbf.tsv").read_text()
    named = ["--labels", str(paths["tissue"]), "--label-names", str(tmp_path / "names.tsv")]
    assert main([*plain, str(tmp_path / "c"), *named]) == 0
    lines = (tmp_path / "c" / "sub-01_desc-roi_cbf.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines] == ["name", "Grey matter", "White matter", "label 3"][: len(lines)]
    report = (tmp_path / "c" / "sub-01_report.html").read_text()
    assert all(
        words in report for words in ("White matter", "Quality evaluation index", "labels of sub-01_dseg.nii.gz", "paste into a paper")
    )
    assert "are not known for this scan" in (tmp_path / "a" / "sub-01_report.html").read_text()
    named, bare = (json.loads((tmp_path / name / "sub-01_cbf.json").read_text()) for name in ("c", "a"))
    assert len(named.pop("Cautions")) > len(bare.pop("Cautions"))  # more can be checked where tissue is known
    assert named == bare  # labels change no map
    assert main([*plain, str(tmp_path / "d"), "--label-names", str(tmp_path / "names.tsv")]) == 2
    assert "--label-names needs --labels" in capsys.readouterr().err
