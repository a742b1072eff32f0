"""Voxels that may stand apart while the fields are fitted."""

import numpy as np
import pytest
import torch

from benchmarks.spatial_kinds import with_vessels
from pinn_engine import asl
from pinn_engine.asl.phantom.brain import GM
from pinn_engine.asl.spatial.loose import SLABS, Loose, likely
from pinn_engine.asl.spatial.model import BrainModel

SHAPE, SPACING, SNR = (24, 30, 19), 6.0, 280.0


def linearised(tissues, voxels, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(voxels, 7, 2 * tissues, generator=g, dtype=torch.float64)
    residual = torch.randn(voxels, 7, generator=g, dtype=torch.float64)
    gradient = torch.einsum("vkf,vk->fv", rows, residual)
    return (gradient, torch.einsum("vkf,vkg->fgv", rows, rows), 0.5 * residual.square().sum(dim=1)), rows, residual


@pytest.mark.parametrize("tissues", [1, 2])
@pytest.mark.parametrize("slab", [0, 1])
@pytest.mark.parametrize("excess", [1.0, 2.5])
def test_a_change_that_is_sure_is_integrated_out_as_by_the_whole_covariance(tissues, slab, excess):
    """Data of covariance excess (I + J S J'), J the slopes by the change: the definition, with a dense inverse."""
    data, rows, residual = linearised(tissues, 5)
    data = (data[0] / excess, data[1] / excess, data[2] / excess)
    sure = torch.zeros(5, 1 + len(SLABS), dtype=torch.float64)
    sure[:, 1 + slab] = 1
    gradient, information, cost = Loose(sure, excess, tissues).freed(data)
    for v in range(5):
        change = rows[v].unflatten(1, (2, tissues)).sum(dim=2)
        prior = torch.diag(torch.tensor(SLABS[slab], dtype=torch.float64) ** 2)
        precision = torch.linalg.inv(torch.eye(7, dtype=torch.float64) + change @ prior @ change.T) / excess
        torch.testing.assert_close(information[:, :, v], rows[v].T @ precision @ rows[v])
        torch.testing.assert_close(gradient[:, v], rows[v].T @ precision @ residual[v])
        torch.testing.assert_close(cost[v], 0.5 * residual[v] @ precision @ residual[v])


def test_nothing_apart_changes_nothing():
    data, _, _ = linearised(2, 4)
    none = torch.zeros(4, 1 + len(SLABS), dtype=torch.float64)
    none[:, 0] = 1
    for before, after in zip(data, Loose(none, 1.0, 2).freed(data), strict=True):
        torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("apart", "most", "share"), [(0.02, 1.0, 0.02), (0.3, 1.0, 0.3), (0.3, 0.05, 0.05), (0.02, 0.05, 0.02), (0.0, 1.0, 0.0)]
)
def test_shares_are_learnt_up_to_the_most(apart, most, share):
    """A share of 10,000 voxels is surely apart, the others are surely not; one of which the data say nothing shows what was learnt."""
    evidence = torch.zeros(10_001, 2)
    evidence[:-1, 1] = -15.0
    evidence[: round(apart * 10_000), 1] = 15.0
    kinds = likely(evidence, most)
    assert float(kinds[-1, 1]) == pytest.approx(share, abs=1e-3)
    assert float(kinds[-2, 1]) < 1e-3
    torch.testing.assert_close(kinds.sum(dim=1), torch.ones(10_001))


def test_vessels_do_not_shine_into_grey_matter_beside_them(monkeypatch):
    p = asl.phantom(SHAPE, SPACING, 321, snr=SNR, lesions=False)
    vessels = with_vessels(p, 321)
    grey, vessel = vessels.tissue == GM, (vessels.tissue == 0) & (p.tissue == GM)

    def error(scan):
        cbf = asl.fit(scan, spatial=True).maps["cbf"].value
        return np.sqrt(np.square(cbf - p.cbf)[grey].mean()), np.median(cbf[vessel] / p.cbf[vessel])

    without, _ = error(p.scan())
    apart, flow = error(vessels.scan())
    monkeypatch.setattr(BrainModel, "linearise", BrainModel.linearise_data)
    bound, _ = error(vessels.scan())
    assert apart < 1.15 * without
    assert bound > 1.3 * apart
    assert flow == pytest.approx(4, rel=0.1)
