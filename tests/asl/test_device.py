"""Every fit runs on another device than the CPU and gives the same maps; shown on any machine by a device that is not there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, elsewhere
from small_scans import phantom, some_voxels

from pinn_engine import asl
from pinn_engine.asl.spatial.model import BrainModel

FITS = {  # settings, and how many voxels
    "closed form": ({"method": "nlls"}, 200),
    "features": ({}, 200),
    "T1 of blood in every voxel": ({"unknown": ("cbf", "att", "t1b")}, 200),
    "arterial blood": ({"unknown": ("cbf", "att", "abv")}, 200),
    "networks": ({"network": "mlp"}, 40),
    "together, arterial blood": ({"spatial": True, "unknown": ("cbf", "att", "abv")}, None),
    "infant": ({"preset": "infant"}, 40),
}


def same(here, there) -> bool:
    """Maps, standard deviations and status of two fits, up to rounding."""
    mask, pairs = here.scan.mask, [(here.maps[key], there.maps[key]) for key in here.maps]
    values = [(one.value, other.value) for one, other in pairs] + [(one.std, other.std) for one, other in pairs]
    close = (np.allclose(one, other, rtol=1e-3, atol=1e-3 * np.median(np.abs(one[mask]))) for one, other in values)
    return all(close) and np.array_equal(here.status, there.status)


@pytest.mark.parametrize("name", FITS)
def test_another_device_gives_the_same_maps(name):
    settings, voxels = FITS[name]
    scan = phantom(seed=26).scan(t1_map=True)
    scan = scan if voxels is None else some_voxels(scan, voxels)
    with elsewhere() as reads:
        there = asl.fit(scan, device=DEVICE, **settings)
    assert reads  # it was there
    assert there.settings["device"] == DEVICE
    assert same(asl.fit(scan, device="cpu", **settings), there)


def test_the_joint_fit_too_and_its_turns_read_little_back(monkeypatch):
    """Whatever is read back waits for the device: nothing in the model, one number an iteration of the solver."""
    scan = phantom(seed=26).scan()
    inside, linearise = [], BrainModel.linearise

    def watched(self, x):
        before = len(reads)
        out = linearise(self, x)
        inside.append(len(reads) - before)
        return out

    here = asl.fit(scan, device="cpu", spatial=True)
    monkeypatch.setattr(BrainModel, "linearise", watched)
    with elsewhere() as reads:
        there = asl.fit(scan, device=DEVICE, spatial=True)
    assert same(here, there)
    assert len(inside) > 12
    assert not any(inside)
    assert len(reads) < 1000


def test_fits_together_leave_mps(monkeypatch):
    monkeypatch.setattr("pinn_engine.asl.choices.resolve_device", lambda device, source: device)
    scan = phantom(seed=26).scan(t1_map=True)
    fit = asl.fit(replace(scan, notes=()), device="mps", spatial=True)
    assert fit.settings["device"] == "cpu"
    assert any("on the CPU" in note for note in fit.scan.notes)


@pytest.mark.parametrize("device", ["auto", DEVICE])
def test_a_device_that_fails_leaves_the_fit_to_the_cpu_unless_it_was_asked_for(monkeypatch, device):
    """A GPU that is full, or lacks an operation."""
    linearise = BrainModel.linearise

    def fails(self, x):
        if x.device.type != "cpu":
            raise torch.OutOfMemoryError("out of memory\nwhat to do about it")
        return linearise(self, x)

    monkeypatch.setattr(BrainModel, "linearise", fails)
    monkeypatch.setattr("pinn_engine.asl.choices.resolve_device", lambda device, source: DEVICE)
    scan = phantom(seed=26).scan(t1_map=True)
    with elsewhere():
        if device != "auto":
            with pytest.raises(torch.OutOfMemoryError):
                asl.fit(scan, device=device, spatial=True)
            return
        there = asl.fit(scan, device=device, spatial=True)
    assert there.settings["device"] == "cpu"
    assert sum("failed on elsewhere:0 (out of memory), so it was made on the CPU" in note for note in there.scan.notes) == 1
