"""`python -m pinn_engine.bundle monai_bundle`: write models/model.pt of both bundles, the state dict of their network_def as it is made."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from . import HeartNetwork, PerfusionNetwork


def main(folder: Path) -> None:
    for name, network in (("asl_perfusion_pinn", PerfusionNetwork), ("cardiac_ep_pinn", HeartNetwork)):
        file = folder / name / "models" / "model.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network().state_dict(), file)
        print(f"wrote {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
