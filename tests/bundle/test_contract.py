"""What MONAI and its model zoo ask of a bundle, checked offline: files, metadata, properties, shapes, documentation."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import warnings
from pathlib import Path

import jsonschema
import pytest
import torch
from bundles import ASL, HEART, ROOT, SCHEMA, config
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

import pinn_engine
from pinn_engine.bundle import HeartWorkflow, PerfusionWorkflow
from pinn_engine.bundle.settings import CONFIG, STUDY, options

BUNDLES = {"asl": ASL, "cardiac": HEART}
CONFIGS = [(ASL, "inference"), (HEART, "inference"), (HEART, "inference_mesh")]


def metadata(bundle: Path) -> dict:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


@pytest.mark.parametrize("bundle", BUNDLES.values())
def test_files(bundle):
    names = "LICENSE configs/metadata.json configs/inference.json configs/evaluate.json configs/logging.conf models/model.pt docs/README.md"
    for name in names.split():
        assert (bundle / name).is_file(), name
    assert (bundle / "LICENSE").read_text() == (ROOT.parent / "LICENSE").read_text()
    assert (bundle / "models" / "model.pt").stat().st_size < 10_000
    assert not (bundle / "scripts").exists()  # code is in the package: it need not be found beside the config


@pytest.mark.parametrize("bundle", BUNDLES.values())
def test_verify_metadata(bundle, tmp_path):
    """With the schema in place there is no download."""
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


def test_the_schema_refuses(tmp_path):
    schema = json.loads(SCHEMA.read_text())
    for key in schema["required"]:
        with pytest.raises(jsonschema.ValidationError, match=key):
            jsonschema.validate({k: v for k, v in metadata(ASL).items() if k != key}, schema)


@pytest.mark.parametrize("bundle", BUNDLES.values())
def test_metadata_is_complete(bundle):
    meta = metadata(bundle)
    assert meta["version"] in meta["changelog"]
    assert "esearch only" in meta["intended_use"]
    assert all("doi:" in text for text in meta["references"])
    assert meta["references"]
    assert meta["required_packages_version"]["pinn-engine"] == pinn_engine.__version__
    for part, name in (("inputs", "image"), ("outputs", "pred")):
        one = meta["network_data_format"][part][name]
        assert sorted(map(int, one["channel_def"])) == list(range(one["num_channels"]))
        assert next(iter(meta["network_data_format"][part])) == name  # consumers take the first
    assert any(unit in meta["pred_classes"] for unit in ("mL/100 g/min", "mm^2/ms"))
    for other in ("pytorch-ignite", "fire"):
        importlib.metadata.version(other)


@pytest.mark.parametrize("bundle", BUNDLES.values())
@pytest.mark.parametrize("seed", [0, 1])
def test_verify_net_in_out(bundle, seed):
    torch.manual_seed(seed)
    settings = {} if bundle == ASL else {"strength": 1.0, "noise": 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        verify_net_in_out(
            "network_def", meta_file=str(bundle / "configs" / "metadata.json"), config_file=config(bundle), device="cpu", **settings
        )


def test_verify_net_in_out_of_more_voxels():
    verify_net_in_out("network_def", meta_file=str(ASL / "configs" / "metadata.json"), config_file=config(ASL), device="cpu", any=4)


@pytest.mark.parametrize(("bundle", "name"), CONFIGS)
def test_properties(bundle, name, monkeypatch, tmp_path):
    """From any folder, without data, without output."""
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(config(bundle, name), workflow_type="infer", logging_file=False)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.version == metadata(bundle)["version"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [PerfusionWorkflow, HeartWorkflow])
def test_properties_of_the_python_workflows(kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    workflow = kind()
    workflow.initialize()
    assert workflow.check_properties() == []
    assert isinstance(workflow.network_def, torch.nn.Module)
    assert workflow.version == "0.1.0"


@pytest.mark.parametrize(("organ", "bundle"), BUNDLES.items())
def test_every_key_of_the_configs_is_known(organ, bundle):
    for file in (bundle / "configs").glob("*.json"):
        if file.name == "metadata.json":
            continue
        for key in ConfigParser.load_config_file(str(file)):
            assert key.startswith("_") or key.split("::")[0] in {*options(organ), *STUDY, *CONFIG}, (file.name, key)


@pytest.mark.parametrize("bundle", BUNDLES.values())
def test_the_readme_has_the_zoos_form(bundle):
    text = (bundle / "docs" / "README.md").read_text()
    for heading in (
        "# Model Overview",
        "## Data",
        "## Performance",
        "## MONAI Bundle Commands",
        "## Limitations",
        "# References",
        "# License",
    ):
        assert heading in text, heading
    assert "Research only" in text
    assert "TorchScript" in text


@pytest.mark.parametrize(("bundle", "name"), CONFIGS)
def test_a_consumer_that_only_parses_the_config_gets_its_parts(bundle, name):
    """As MONAI Label does: no metadata, no initialize, bundle_root and device set in the config."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    parser.config.update({"bundle_root": str(bundle), "device": "cpu"})
    network = parser.get_parsed_content("network_def", instantiate=True)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=True)
    assert callable(parser.get_parsed_content("inferer"))
    if parser.get("preprocessing"):
        assert len(parser.get_parsed_content("preprocessing").transforms) == 1
