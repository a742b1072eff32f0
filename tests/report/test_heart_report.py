"""The heart's report: flat meshes face on, constants as words, waves as pictures, traces with samples, settings as a person reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pinn_engine.cardiac import shapes
from pinn_engine.cardiac.beat import beats
from pinn_engine.cardiac.fit import flat_map, number_maps
from pinn_engine.cardiac.model import AlievPanfilov
from pinn_engine.cardiac.read import from_mesh
from pinn_engine.cardiac.result import D_MAP, LAT_MAP, HeartFit, NodeMap, Parameter
from pinn_engine.cardiac.save import quality
from pinn_engine.cardiac.units import TimeUnit
from pinn_engine.report import heart_pictures
from pinn_engine.report.heart import said, write_report
from pinn_engine.report.heart_pictures import neighbours, trace_nodes, viewpoints, views

MODEL, TU = AlievPanfilov(), TimeUnit("tu")
NUMBER = Parameter(0.1, 0.002, "mm^2/TU", "fitted")


@pytest.fixture(scope="module")
def beat() -> HeartFit:
    """One D fitted to a plane beat on 6 x 3 mm, 4 % of V seen."""
    mesh, _ = shapes.rectangle((6.0, 3.0), 0.2)
    times, random = np.arange(0.0, 60.0), np.random.default_rng(0)
    T = mesh.points[:, 0] / float(MODEL.speed(0.1))
    V = beats([MODEL])[0].V_and_slope(torch.from_numpy(times[None, :] - T[:, None] - 2.0))[0].numpy()
    seen = np.where(random.random(V.shape) < 0.04, V, np.nan)
    data = from_mesh(mesh, TU, V=seen, times=times)
    data = replace(data, inside=np.ones(len(T), bool))
    maps = number_maps(data, NUMBER, MODEL, 0.01) | {
        "LAT": NodeMap(LAT_MAP, "TU", (T + 2.0).astype(np.float32), np.full(len(T), 0.1, np.float32))
    }
    settings = {"CV_of": "a plane front into tissue at rest", "solver": {"status": "The fit converged.", "steps": 4}}
    return HeartFit(data, maps, np.ones(len(T), np.uint8), {"D": NUMBER}, {}, "said.", V, V, settings=settings)


def test_a_flat_mesh_is_seen_along_its_normal_and_a_closed_one_from_four_sides():
    flat, _ = shapes.rectangle((6.0, 3.0), 0.5)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, -0.8], [0.0, 0.8, 0.6]])
    for turn in (np.eye(3), tilt, tilt @ tilt, np.eye(3)[[1, 2, 0]]):
        ((name, right, up),) = viewpoints(flat.points @ turn.T)
        assert name == ""
        assert abs(np.cross(right, up) @ (turn @ np.array([0.0, 0.0, 1.0]))) == pytest.approx(1.0)
        assert np.ptp(flat.points @ turn.T @ right) * np.ptp(flat.points @ turn.T @ up) == pytest.approx(18.0, rel=0.01)
    sides = {name: (right, np.cross(right, up)) for name, right, up in viewpoints(shapes.sphere(5.0, 2).points)}
    assert list(sides) == list(heart_pictures.SIDES)
    for name, right, toward in (("front", (-1, 0, 0), (0, 1, 0)), ("left", (0, -1, 0), (-1, 0, 0)), ("back", (1, 0, 0), (0, -1, 0))):
        np.testing.assert_allclose(sides[name], (right, toward), atol=1e-12)  # RAS: x to the patient's right, y to the front


def test_the_picture_of_a_flat_mesh_is_filled_by_it(beat):
    drawn = views(beat, beat.maps["LAT"].value, (0.0, 12.0), "turbo")
    assert drawn.shape[0] == pytest.approx(0.5 * drawn.shape[1], rel=0.05)
    assert (drawn.max(axis=2) > 40).mean() > 0.9


def test_a_constant_is_words_and_a_map_a_picture(beat):
    page = write_report(beat)
    assert "Diffusivity D: 0.100 ± 0.002 mm²/TU, one number for all the tissue." in page
    assert "one number for all the tissue: that of a plane front into tissue at rest" in page
    assert "Diffusivity D <span>" not in page
    assert "Activation time <span>" in page
    uneven = replace(beat.maps["D"], value=np.linspace(0.1, 0.2, len(beat.status), dtype=np.float32))
    assert "Diffusivity D <span>" in write_report(replace(beat, maps={**beat.maps, "D": uneven}))


def test_V_is_shown_while_the_front_passes_and_over_the_record_where_waves_return(beat):
    front = heart_pictures.frames_shown(beat)
    assert (np.diff(front) > 0).all()
    assert (front[:3] < 14).all()
    assert front[3] > 30
    waves = {"D": flat_map(beat.data, D_MAP, "mm^2/TU", 0.1, 0.002)}
    page = write_report(replace(beat, maps=waves))
    assert "V, fitted" in page
    np.testing.assert_array_equal(heart_pictures.frames_shown(replace(beat, maps=waves)), [0, 20, 39, 59])


def test_traces_show_samples(beat):
    """Nodes with the most samples; the neighbours' fill them up, moved to where they would be seen at the node."""
    count = np.isfinite(beat.data.V).sum(axis=1)
    nodes = trace_nodes(beat, beat.maps["LAT"].value)
    assert len(nodes) == 6
    assert count[nodes].min() >= np.percentile(count, 95)
    at, _, far = neighbours(beat, int(nodes[3]), 20, beat.maps["LAT"].value)
    assert 20 <= len(at) < 40
    assert 0 < far < 1.5

    def off(node, LAT):
        at, value, _ = neighbours(beat, node, 60, LAT)
        inside = (at > 0) & (at < 59)
        return np.mean((value[inside] - np.interp(at[inside], beat.data.times, beat.V[node])) ** 2)

    moved, plain = (np.mean([off(int(n), LAT) for n in nodes]) for LAT in (beat.maps["LAT"].value, None))
    assert moved < 0.5 * plain
    assert "Pale dots" in write_report(beat)


def test_traces_of_a_full_record_are_spread_over_the_wave(beat):
    """Every node has all its samples: the first by number would all stand where the wave starts."""
    full = replace(beat, data=replace(beat.data, V=beat.V))
    LAT = beat.maps["LAT"].value
    at = LAT[trace_nodes(full, LAT)]
    assert len(at) == 6
    np.testing.assert_allclose([at.min(), at.max()], [LAT.min(), LAT.max()])
    assert np.diff(at).max() < 0.3 * np.ptp(LAT)


def test_notes_are_sentences_status_has_numbers_and_a_map(beat):
    page = write_report(replace(beat, notes=("1 hole: no flux crosses it", "Is it so?")))
    assert "<p>1 hole: no flux crosses it.</p>" in page
    assert "<p>Is it so?</p>" in page
    assert '<th scope="row">4</th><td>collision</td>' in page
    assert "<h3>Status" not in page  # one status only
    status = np.where(beat.maps["LAT"].value < 4, 3, 1).astype(np.uint8)
    page = write_report(replace(beat, status=status))
    assert "<h3>Status" in page
    assert 'aria-label="Status of the nodes"' in page
    ball = shapes.sphere(5.0, 2)
    data = replace(from_mesh(ball, TU, V=np.zeros((len(ball.points), 2)), times=np.arange(2.0)), V=None)
    maps = {"LAT": NodeMap(LAT_MAP, "TU", ball.points[:, 0].astype(np.float32), np.ones(len(ball.points), np.float32))}
    around = HeartFit(data, maps, np.ones(len(ball.points), np.uint8), {"D": NUMBER}, {}, "said.")
    assert "the file does not say it" in write_report(around)
    assert "RAS" not in page  # a flat mesh is seen along its normal: there is no front


def test_the_median_of_a_map_is_called_so(beat):
    page = write_report(replace(beat, parameters={"D": replace(NUMBER, spread=(0.05, 0.2))}))
    assert '<th scope="row">D, median</th>' in page
    assert "0.002 (of the median)" in page
    assert "0.050 to 0.200" in page


def test_settings_are_words(beat):
    page = write_report(beat)
    assert "The fit converged, 4 steps." in page
    assert "{" not in page.split("Settings", 1)[1]
    assert said([{"strength": 1.0, "D": 0.05}, {"strength": 10.0, "D": 0.1}]) == "strength 1, D 0.05; strength 10, D 0.1"


def test_the_group_takes_the_median_that_the_report_shows(beat):
    """Where the wave starts D is its neighbours' at best: such nodes moved the group's median away from the subject's."""
    value = np.where(beat.maps["LAT"].value < 6, 0.3, 0.1).astype(np.float32)
    status = np.where(value > 0.2, 3, 1).astype(np.uint8)
    one = replace(beat, status=status, maps=beat.maps | {"D": replace(beat.maps["D"], value=value)})
    row = quality(one)
    assert (row["D_median"], row["D_unit"], row["CV_unit"]) == (pytest.approx(0.1), "mm^2/TU", "mm/TU")
    assert '<div class="value">0.100 <span class="unit">mm²/TU' in write_report(one)
