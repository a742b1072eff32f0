"""What counts as a measurement on a mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pinn_engine.cardiac.observations import activation, activation_name, other_activations, voltage
from pinn_engine.cardiac.shapes import sphere
from pinn_engine.cardiac.units import MS_PER_TU, TimeUnit
from pinn_engine.errors import InputError
from pinn_engine.files.mesh import Mesh

MESH = sphere(30.0, 1)
N = len(MESH.points)
LAT = np.arange(float(N))
V = np.random.default_rng(0).random((N, 12))


def with_times(mesh: Mesh, times: np.ndarray) -> Mesh:
    return replace(mesh, field_data={"times": times})


@pytest.mark.parametrize("name", ["LAT", "lat", "Activation_Times"])
def test_activation_times(name):
    values = LAT.copy()
    values[:2] = -10000.0, np.nan
    found = activation(MESH.with_data(**{name: values}))
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2:], LAT[2:] / MS_PER_TU)
    np.testing.assert_allclose(activation(MESH.with_data(**{name: values}), unit=TimeUnit("tu"))[2:], LAT[2:])


@pytest.mark.parametrize("data", [{"V": V}, {f"V_{i:02d}": V[:, i] for i in range(12)}, {f"v{i}": V[:, i] for i in range(12)}])
def test_frames(data):
    found, times = voltage(with_times(MESH.with_data(**data), 12.9 * np.arange(12)))
    np.testing.assert_array_equal(found, V)
    np.testing.assert_allclose(times, np.arange(12))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "has no point data called LAT, found no point data at all; give activation times on the points"),
        (np.full(N, np.nan), "no node has a valid LAT"),
        (np.full(N, -10000.0), "no node has a valid LAT"),
        (np.where(LAT < 4, LAT, np.nan), "too few nodes have a LAT, found 4; at least 10"),
        (0 * LAT, "every LAT is the same"),
        (V, "is not one number per node"),
    ],
)
def test_bad_activation(values, words):
    with pytest.raises(InputError, match=words):
        activation(MESH if values is None else MESH.with_data(LAT=values))


@pytest.mark.parametrize(
    ("values", "times", "words"),
    [
        (None, None, "has no point data called V"),
        (V, None, "the frames have no times"),
        (V, np.arange(5.0), "not as many times as frames, found 5 for 12"),
        (V, np.zeros(12), "do not increase"),
        (V[:, 0], np.arange(12.0), "one frame only"),
        (V * np.nan, np.arange(12.0), "no valid value"),
    ],
)
def test_bad_frames(values, times, words):
    mesh = MESH if values is None else MESH.with_data(V=values)
    with pytest.raises(InputError, match=words):
        voltage(mesh, times)


@pytest.mark.parametrize("mark", [9999.0, -500.0])
def test_a_mark_for_missing_is_no_time(mark):
    """One value at several nodes, farther from all others than those from each other. -10000 and less count as missing anyhow."""
    values = np.where(np.arange(N) < 6, mark, 50.0 + LAT)
    with pytest.raises(InputError, match=f"a mark for missing, found {mark:g} at 6 nodes, all others from 56 to .* ms; give NaN"):
        activation(MESH.with_data(LAT=values))
    activation(MESH.with_data(LAT=np.where(np.arange(N) < 6, 50.0, 50.0 + LAT)))  # tissue that a stimulus sets off at once


def test_which_array_is_taken():
    mesh = MESH.with_data(activation_times=LAT, activation_times_scar=LAT, scar=LAT, Vm=V)
    assert activation_name(mesh) == "activation_times"
    assert other_activations(mesh, "activation_times") == ["activation_times_scar"]
    assert activation_name(mesh, "SCAR") == "scar"
    assert activation_name(MESH) is None


def test_a_map_without_its_measured_points_names_their_file():
    """CARTO: the activation times may stand in N-Map_car.txt alone."""
    with pytest.raises(InputError, match=r"2-Map_car\.txt was expected beside it and is not there"):
        activation(replace(MESH, missing="2-Map_car.txt"))
    few = replace(MESH, field_data={"measured_LAT": np.array([1.0, np.nan, 3.0])})
    with pytest.raises(InputError, match="too few measured activation times, found 2 of 3"):
        activation(few)
