"""Which device a fit or a simulation runs on."""

from __future__ import annotations

import torch

from .errors import InputError


def resolve_device(device: str, source: str = "--device") -> str:
    """The torch device of "auto", "cpu", "cuda[:i]" or "mps"; InputError where it is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        found = "CUDA with torch.cuda.device_count() = " + str(torch.cuda.device_count())
        raise InputError(source, f"--device {device} cannot be used here", found=found, fix="give --device cpu or auto") from None
    return device
