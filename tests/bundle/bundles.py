"""What the tests of the bundles share: small studies on disk, a run in this process as `python -m monai.bundle run` makes it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from runs import write_scan, written

ROOT = Path(__file__).parents[2] / "monai_bundle"
ASL, HEART = ROOT / "asl_perfusion_pinn", ROOT / "cardiac_ep_pinn"
SCHEMA = Path(__file__).parent / "meta_schema_20240725.json"

__all__ = ["ASL", "HEART", "ROOT", "SCHEMA", "add_subject", "config", "run_bundle", "write_scan", "written"]


def config(bundle: Path, *names: str) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in names or ("inference",)]


def run_bundle(bundle: Path, *names: str, **overrides: object) -> int:
    """The exit code of one run."""
    overrides = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    try:
        run(config_file=config(bundle, *names), bundle_root=str(bundle), logging_file=False, **overrides)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def add_subject(dataset: Path, name: str, like: str = "01") -> Path:
    """A copy of a subject under another name; its ASL series."""
    target = dataset / f"sub-{name}" / "perf"
    target.mkdir(parents=True)
    for file in (dataset / f"sub-{like}" / "perf").iterdir():
        text = file.name.replace(f"sub-{like}", f"sub-{name}")
        if file.suffix == ".json":
            (target / text).write_text(file.read_text().replace(f"sub-{like}", f"sub-{name}"))
        else:
            shutil.copy(file, target / text)
    return target / f"sub-{name}_asl.nii.gz"
