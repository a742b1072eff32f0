"""The report: whole in one file, the same every time, true to the fit, unhurt by what is missing or hostile."""

import base64
import doctest
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_fit import fake_fit

from pinn_engine.asl.acquisition import Sourced
from pinn_engine.asl.maps import T1B
from pinn_engine.asl.phantom import make
from pinn_engine.asl.quality import cautions
from pinn_engine.asl.result import ParameterMap
from pinn_engine.files.grid import Grid
from pinn_engine.report import curves, perfusion, pictures, svg, truth, words
from pinn_engine.report.perfusion import demo_table, write_report

fit = lru_cache(maxsize=None)(fake_fit)


class Reader(HTMLParser):
    """Text, tags and addresses of a page; fails where tags do not close in order."""

    VOID = frozenset({"meta", "br", "line", "circle", "image", "rect", "polyline", "polygon"})

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.addresses, self.open = [], set(), [], []
        self.feed(page)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def test_nothing_outside_the_file_is_needed():
    page = write_report(fit())
    read = Reader(page)
    assert not read.tags & {"script", "link", "iframe", "object", "embed", "img"}
    assert {a.split(":")[0] for a in read.addresses} == {"data", "https"}
    assert all(a.startswith("https://doi.org/10.") for a in read.addresses if not a.startswith("data:"))
    assert not re.search(r"url\(|@import", page)
    for drawing in re.findall(r"<svg xmlns.*?</svg>", page, flags=re.S):
        ET.fromstring(drawing)
    assert len(page) < 1_000_000


def test_the_same_fit_gives_the_same_bytes():
    assert write_report(fake_fit()) == write_report(fake_fit())
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", write_report(fit()))


def test_it_shows_units_constants_status_and_settings():
    f = fit()
    text = Reader(write_report(f)).text
    usable = f.usable
    assert f"{np.median(f.maps['cbf'].value[usable]):.1f} mL/100 g/min" in text
    assert f"{np.median(f.maps['att'].value[usable]):.2f} s" in text
    shown = [f"{np.sum(f.status[f.scan.mask] == code):,}" for code in (1, 2, 4)]
    expected = [
        *shown, *f.status_meaning.values(), "0.85", "1.65", "1.33", "0.9", "mL/g", "phantom: grey matter", "Label duration, s 1.8",
        "Post-labelling delay, s 0.25 0.5 1 1.5 2 2.5", "Repeats averaged 3 3", "versions: torch 2.8.0", "research use only",
        f.scan.notes[0],
        "doi:10.1002/mrm.1910400308", "doi:10.1016/j.jcp.2018.10.045", "physics-informed neural network",
    ]  # fmt: skip
    for sentence in expected:
        assert sentence in text, sentence
    assert "simulated" not in text  # only where a truth is given


@pytest.mark.parametrize(
    ("settings", "said", "unsaid"),
    [
        ({"method": "nlls", "model": "buxton"}, "nonlinear least squares", "neural"),
        ({"method": "pinn", "model": "simplified"}, "T1 of blood alone", "carried away"),
        ({}, "general kinetic model", "neural"),
    ],
)
def test_the_method_says_what_was_done_and_no_more(settings, said, unsaid):
    text = Reader(write_report(replace(fit(), settings=settings))).text
    assert said in text
    assert unsaid not in text


def test_hostile_text_stays_text():
    bad = '<script>alert("x")</script>&\'"'
    f = fit()
    a = replace(f.scan.acquisition, origins={bad: Sourced(bad, bad, bad)})
    hostile = replace(
        f,
        scan=replace(f.scan, prefix=bad, source=bad, notes=(bad,), acquisition=a),
        status_meaning=dict.fromkeys(f.status_meaning, bad),
        settings={bad: bad, "method": bad, "deep": {bad: [bad]}},
    )
    page = write_report(hostile)
    read = Reader(page)
    assert "script" not in read.tags
    assert "<script" not in page.lower()
    assert read.text.count('alert("x")') > 10


def test_one_delay_has_no_arrival_time():
    text = Reader(write_report(fit(single=True))).text
    assert "Arterial transit time" not in text
    assert "Typical perfusion" in text


def test_relative_perfusion_claims_no_unit():
    text = Reader(write_report(fit(relative=True))).text
    assert "arbitrary" not in text  # "5.9 arbitrary" is no quantity; the names say relative
    assert "Median relative perfusion" in text
    assert "Standard deviation of relative CBF" in text
    assert "mL/100 g/min" not in text
    assert "compare places within this scan" in text


def test_all_failed_is_said_not_drawn():
    f = fit(failed=True)
    text = Reader(write_report(f)).text
    assert "No voxel could be fitted: the maps hold zeros only." in text
    assert "Converged 0 %" in text
    assert "nan" not in text.lower().split()


def test_more_maps_empty_mask_gaps_and_many_delays():
    f = fit()
    extra = ParameterMap(T1B, np.where(f.scan.mask, 1.7, 0).astype(np.float32), np.where(f.scan.mask, 0.1, 0).astype(np.float32))
    assert "T1 of arterial blood" in Reader(write_report(replace(f, maps=f.maps | {"t1b": extra}))).text
    none = replace(f.scan, mask=np.zeros_like(f.scan.mask))
    assert "0 in the mask" in Reader(write_report(replace(f, scan=none, status=f.status * 0))).text
    difference = f.scan.difference.copy()
    difference[..., 0] = np.nan
    Reader(write_report(replace(f, scan=replace(f.scan, difference=difference), data=np.full_like(f.data, np.nan))))
    many = {k: np.concatenate([getattr(f, k)] * 4, axis=-1) for k in ("pld", "label_duration", "repeats", "data", "fitted", "fitted_std")}
    assert write_report(replace(f, **many)).count("Repeats averaged") == 2
    unknown = replace(f, status=np.where(f.scan.mask, 9, 0).astype(np.uint8))
    assert "No meaning was recorded" in Reader(write_report(unknown)).text


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(1.0, None), (100.0, "another scale"), (-1.0, "negative"), (0.01, "wrong label duration")],
)
def test_implausible_perfusion_is_named(factor, sentence):
    f = fit()
    cbf = replace(f.maps["cbf"], value=f.maps["cbf"].value * factor)
    said = " ".join(cautions(replace(f, maps=f.maps | {"cbf": cbf}, status=np.where(f.scan.mask, 1, 0).astype(np.uint8))))
    assert (sentence in said) if sentence else said == ""


def test_left_and_right_for_any_storage_order():
    """A bright blob in the patient's right front shows top left, however the voxels are stored."""
    mask = np.ones((9, 11, 5), bool)
    volume = np.zeros(mask.shape, np.float32)
    volume[7:, 8:, :] = 1  # right, anterior on a RAS+ grid
    for flip in ((1, 1, 1), (-1, 1, 1), (1, -1, -1)):
        affine = np.diag([*(3.0 * np.array(flip)), 1.0])
        stored = volume[:: flip[0], :: flip[1], :: flip[2]]
        for order in ((0, 1, 2), (2, 0, 1)):
            turned = np.eye(4)
            turned[:3, :3] = affine[:3, :3][:, order]
            grid = Grid(tuple(np.array(mask.shape)[list(order)]), turned)
            view = pictures.view(mask.transpose(order), grid)
            shown = pictures.tiles(view, stored.transpose(order))
            assert shown.shape == (5, 11, 9)
            assert shown[:, :3, :2].all()
            assert shown.sum() == volume.sum()
    assert ">R</text>" in pictures.mosaic(view, stored.transpose(order), mask.transpose(order), (0, 1), "inferno", "s", "")
    blind = pictures.view(mask, Grid(mask.shape, np.eye(4), 0, 0))
    assert ">R</text>" not in pictures.mosaic(blind, volume, mask, (0, 1), "inferno", "s", "")


def test_proportions_follow_the_voxel_size():
    mask = np.ones((10, 10, 2), bool)
    drawing = pictures.mosaic(
        pictures.view(mask, Grid(mask.shape, np.diag([2.0, 4.0, 5.0, 1.0]))), mask * 1.0, mask, (0, 1), "inferno", "s", ""
    )
    width, height = (float(re.search(rf'<image [^>]*{side}="([\d.]+)"', drawing).group(1)) for side in ("width", "height"))
    assert height / width == pytest.approx(2 / 2)  # two tiles side by side, each twice as tall as wide


def test_pixels_survive_the_png():
    import matplotlib.image

    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    raw = base64.b64decode(svg.png_uri(pixels).split(",")[1])
    np.testing.assert_array_equal((matplotlib.image.imread(io.BytesIO(raw), format="png")[..., :3] * 255).round(), pixels)


def test_representative_voxels_are_what_they_say():
    f = fit()
    high, late, low, worst = curves.pick(f)
    cbf, att, usable = f.maps["cbf"].value, f.maps["att"].value, f.usable
    assert cbf[low.voxel] < np.percentile(cbf[usable], 20) < np.percentile(cbf[usable], 90) < cbf[high.voxel]
    assert att[late.voxel] > np.percentile(att[usable & (cbf > np.median(cbf[usable]))], 85)
    assert f.misfit[worst.voxel] == f.misfit[usable].max()
    assert all(usable[p.voxel] for p in (high, late, low, worst))


def test_error_bars_are_the_scatter_of_repeats():
    p = make((20, 24, 8), repeats=40, noise_sd=10.0)
    sd = [curves.data_sd(fake_fit(p), voxel) for voxel in ((8, 9, 4), (10, 12, 3), (5, 6, 4))]
    np.testing.assert_allclose(np.mean(sd), 10 * np.sqrt(2 / 40), rtol=0.1)
    assert curves.data_sd(fit(), (8, 9, 4)).shape == (6,)
    assert curves.data_sd(fake_fit(make((20, 24, 8), repeats=1)), (8, 9, 4)) is None


def test_errors_against_the_truth():
    p = make((20, 24, 8), snr=None)
    f = fake_fit(p)
    known = {"cbf": p.cbf, "att": p.att, "tissue": p.tissue, "lesion": p.lesion}
    rows = demo_table(f, known)
    assert [(r["map"], r["region"].split(",")[0]) for r in rows[:2]] == [("cbf", "Grey matter"), ("cbf", "White matter")]
    grey = (p.tissue == 1) & p.mask
    error = f.maps["cbf"].value[grey] - p.cbf[grey]
    assert rows[0]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert rows[0]["median_abs_error"] == pytest.approx(np.median(np.abs(error)), rel=1e-5)
    assert rows[0]["bias"] == pytest.approx(error.mean(), rel=1e-4)
    assert rows[0]["coverage"] == pytest.approx(0.95, abs=0.03)
    assert rows[0]["constant_rmse"] == pytest.approx(np.sqrt(np.mean((p.cbf[grey] - np.median(p.cbf[grey])) ** 2)), rel=1e-5)
    perfect = replace(f, maps={"cbf": replace(f.maps["cbf"], value=p.cbf)})
    assert demo_table(perfect, known)[0]["rmse"] == 0
    text = Reader(write_report(f, known)).text
    assert "Against the truth" in text
    assert f"{rows[0]['rmse']:.2f}" in text
    relative = demo_table(fit(relative=True), known)
    assert {r["map"] for r in relative} == {"att"}  # relative perfusion has no scale to compare


@pytest.mark.parametrize("module", [svg, words, perfusion, truth, pictures, curves])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_the_headline_keeps_tissues_apart_where_they_are_known():
    """A median over grey and white matter is neither's."""
    p = make((20, 24, 8), repeats=3)
    plain = fake_fit(p)
    assert "Median CBF" in Reader(write_report(plain)).text
    known = replace(plain, scan=replace(plain.scan, tissue=np.stack([p.tissue == k for k in (1, 2, 3)], axis=3).astype(np.float32)))
    text = Reader(write_report(known)).text
    fitted = known.usable
    grey, white = (f"{known.maps['cbf'].value[fitted & (p.tissue == k)].mean():.1f}" for k in (1, 2))
    assert f"Mean CBF, grey matter {grey} mL/100 g/min white matter {white}" in text
    assert "Median CBF" not in text


def test_t1b_is_written_as_people_write_it():
    f = fit()
    t1b = ParameterMap(T1B, f.maps["att"].value + 1, f.maps["att"].std)
    page = write_report(replace(f, maps={**f.maps, "t1b": t1b}))
    assert "Standard deviation of T1b" in page
    assert "T1B" not in Reader(page).text
