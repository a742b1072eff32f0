"""`PerfusionNetwork`: forward is the fit, wherever and however it is called."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from bundles import ASL, config, write_scan
from elsewhere import DEVICE, elsewhere
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor

from pinn_engine import asl
from pinn_engine.asl.phantom import make
from pinn_engine.bundle import FitInferer, PerfusionNetwork, PerfusionWorkflow
from pinn_engine.errors import InputError


@pytest.fixture(scope="module")
def scan():
    return make((12, 14, 8), seed=31, repeats=1).scan()


@pytest.fixture(scope="module")
def image(scan) -> torch.Tensor:
    """(1, T, X, Y, Z)"""
    return torch.from_numpy(np.moveaxis(scan.difference, -1, 0)[None].copy())


@pytest.fixture(scope="module")
def expected(scan) -> np.ndarray:
    maps = asl.fit(scan).maps
    return np.stack([maps["cbf"].value, maps["att"].value, maps["cbf"].std, maps["att"].std])


def extras(scan) -> dict[str, torch.Tensor]:
    return {"m0": torch.from_numpy(scan.m0[None, None]), "mask": torch.from_numpy(scan.mask[None, None])}


def with_t1(scan, arguments: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return arguments if scan.t1_tissue is None else arguments | {"t1_tissue": torch.from_numpy(scan.t1_tissue[None, None])}


def test_forward_is_the_fit(scan, image, expected):
    found = PerfusionNetwork()(image, scan.acquisition, **with_t1(scan, extras(scan)))
    assert found.shape == (1, 4, *scan.mask.shape)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[0].numpy(), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_where_gradients_are_off(mode, scan, image, expected):
    """MONAI's engines switch gradients off; `--network mlp` differentiates."""
    with mode():
        given = {key: value.clone() for key, value in with_t1(scan, extras(scan)).items()}  # inference tensors under inference_mode
        found = PerfusionNetwork()(image.clone() * 1, scan.acquisition, **given)
        np.testing.assert_array_equal(found[0].numpy(), expected)
    assert not found.requires_grad


def test_a_network_a_voxel_under_inference_mode():
    small = make((8, 8, 5), spacing=20.0, seed=3, repeats=1).scan()
    data = torch.from_numpy(np.moveaxis(small.difference, -1, 0)[None].copy())
    some = torch.from_numpy(small.mask)
    some[:, :, :2] = some[:, :, 3:] = False
    with torch.inference_mode():
        found = PerfusionNetwork({"network": "mlp"})(data.clone(), small.acquisition, mask=some[None, None])
    assert found[0, 1][some].median() > 0.5


def test_a_batch_of_two_is_two_fits(scan, image, expected):
    other = make((12, 14, 8), seed=32, repeats=1).scan()
    both = torch.cat([image, torch.from_numpy(np.moveaxis(other.difference, -1, 0)[None].copy())])
    given = {key: torch.cat([a, b]) for (key, a), b in zip(extras(scan).items(), extras(other).values(), strict=True)}
    found = PerfusionNetwork()(both, [scan.acquisition, other.acquisition], **given)
    for n, one in enumerate((scan, other)):
        alone = PerfusionNetwork()(both[n : n + 1], one.acquisition, **extras(one))
        np.testing.assert_array_equal(found[n].numpy(), alone[0].numpy())
    assert not torch.equal(found[0], found[1])


def test_geometry_goes_past_the_network(scan, image):
    """For one image and for two; MetaTensor(pred, meta=…) fails for two, and a prediction without meta would be saved at the origin."""
    affines = [torch.diag(torch.tensor([-3.0, 3.0, 5.0, 1.0], dtype=torch.float64)), torch.eye(4, dtype=torch.float64) * 2]
    for count in (1, 2):
        batch = MetaTensor(image.repeat(count, 1, 1, 1, 1), affine=torch.stack(affines[:count]))
        found = FitInferer()(batch, PerfusionNetwork({"method": "nlls"}), acquisition=scan.acquisition, m0=None)
        assert isinstance(found, MetaTensor)
        assert torch.equal(found.affine, torch.stack(affines[:count]))
    assert type(FitInferer()(image, PerfusionNetwork({"method": "nlls"}), scan.acquisition)) is torch.Tensor


def test_without_an_acquisition_the_buffers_protocol_is_meant(scan, image):
    network = PerfusionNetwork({"alpha": 0.7, "t1b": 1.5, "lambda": 0.98})
    reference = network.reference(8)
    assert (reference.alpha.number, reference.t1_blood.number, reference.partition.number) == (0.7, 1.5, 0.98)
    found = network(image)
    assert torch.equal(found, network(image, reference))
    network.pld += 0.3  # what model.pt holds decides
    assert not torch.equal(found, network(image))
    pulsed = PerfusionNetwork({"model": "simplified"}).reference()
    assert (pulsed.labeling, len(pulsed.pld)) == ("PASL", 6)


def test_the_reference_has_the_packages_cited_constants():
    reference = PerfusionNetwork().reference()
    assert [getattr(reference, name).number for name in ("alpha", "t1_blood", "t1_tissue", "partition")] == [0.85, 1.65, 1.33, 0.9]


def test_the_checkpoint_is_the_state_dict():
    state = torch.load(ASL / "models" / "model.pt", weights_only=True)
    fresh = PerfusionNetwork().state_dict()
    assert list(state) == list(fresh)
    assert state
    for name, value in fresh.items():
        assert torch.equal(state[name], value), name
    PerfusionNetwork().load_state_dict(state, strict=True)


def test_one_voxel_and_no_signal():
    torch.manual_seed(0)
    assert torch.isfinite(PerfusionNetwork()(torch.rand(1, 6, 1, 1, 1))).all()
    with pytest.warns(UserWarning, match="image 1 of the batch was not fitted, its maps are 0: image: no voxel can be fitted"):
        found = PerfusionNetwork()(torch.stack([torch.rand(6, 1, 1, 1), torch.zeros(6, 1, 1, 1)]))
    assert found[0].any()
    assert not found[1].any()
    with pytest.warns(UserWarning, match="not fitted"):
        assert PerfusionNetwork()(torch.zeros(1, 6, 1, 1, 1)).shape == (1, 4, 1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "count", "says"),
    [((6, 2, 2, 2), 1, "batch, differences"), ((1, 5, 2, 2, 2), 1, "5 differences for 6 delays"), ((1, 6, 2, 2, 2), 2, "found 2 for 1")],
)
def test_shapes_that_do_not_go_together(shape, count, says):
    network = PerfusionNetwork()
    with pytest.raises(InputError, match=says):
        network(torch.rand(shape), None if count == 1 else [network.reference(2)] * count)


def test_dataset_inferer_and_network_give_what_the_run_writes(tmp_path):
    """With M0, and without: a missing volume is no KeyError."""
    import nibabel as nib

    write_scan(tmp_path / "data")
    for n, extra in enumerate(({}, {"m0_scale": 2.0, "unknown": ("att", "cbf")})):
        given = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / f"out{n}"), **extra}
        config_run = ConfigWorkflow(config(ASL), logging_file=False, workflow_type="infer", **given)
        for workflow in (config_run, PerfusionWorkflow(**given)):
            workflow.initialize()
            item = workflow.dataset[0]
            volumes = {key: item[key][None] for key in ("m0", "mask") if key in item}
            found = workflow.inferer(item["image"][None], workflow.network_def, acquisition=item["acquisition"], **volumes)
            workflow.run()
            written = nib.load(tmp_path / f"out{n}" / "sub-01" / "perf" / "sub-01_cbf.nii.gz")
            np.testing.assert_array_equal(found[0, 0].numpy(), written.get_fdata(dtype=np.float32))
            np.testing.assert_allclose(found.affine.reshape(-1, 4, 4)[0], written.affine, atol=1e-5)
    relative = {key: value for key, value in item.items() if key != "m0"}
    found = workflow.inferer(relative["image"][None], workflow.network_def, acquisition=relative["acquisition"], m0=relative.get("m0"))
    assert found[0, 0].any()


def test_single_slice_and_one_difference(tmp_path):
    one = make((12, 14, 1), seed=31, repeats=1).scan()
    data = torch.from_numpy(np.moveaxis(one.difference, -1, 0)[None].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PerfusionNetwork()(data, one.acquisition).shape == (1, 4, 12, 14, 1)


def test_on_a_device_that_is_not_there(scan, image, expected):
    """What a GPU would ask of the code, on any machine."""
    with elsewhere(), torch.no_grad():
        given = {key: value.to(DEVICE) for key, value in with_t1(scan, extras(scan)).items()}
        found = PerfusionNetwork().to(DEVICE)(image.to(DEVICE), scan.acquisition, **given)
        assert found.device == torch.device(DEVICE)
        close = np.isclose(found[0].cpu().numpy(), expected, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(scan, image, expected):
    given = {key: value.cuda() for key, value in with_t1(scan, extras(scan)).items()}
    with torch.inference_mode():
        found = PerfusionNetwork().cuda()(image.cuda(), scan.acquisition, **given)
    assert found.device.type == "cuda"
    close = np.isclose(found[0].cpu().numpy(), expected, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.999


def test_a_preset_decides_what_the_network_knows():
    """Infants: pulsed reference, T1 of blood among the channels of an image that cannot be fitted."""
    network = PerfusionNetwork({"preset": "infant"})
    assert network.reference().labeling == "PASL"
    with pytest.warns(UserWarning, match="not fitted"):
        assert network(torch.zeros(1, 6, 2, 2, 2)).shape == (1, 6, 2, 2, 2)
