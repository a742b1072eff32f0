"""From the log of a failed run to one sentence for the person, and what the panel can do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

RETRY_ON_CPU, INSTALL = "retry on CPU", "install"


class Problem(Exception):
    """What is wrong with the inputs, in one sentence for the person."""


@dataclass(frozen=True)
class Explanation:
    sentence: str
    action: str = ""  # RETRY_ON_CPU, INSTALL or nothing


TABLE = (  # pattern in the log, sentence, action; the first that is found counts
    (
        r"out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: can't allocate",
        "The device ran out of memory.",
        RETRY_ON_CPU,
    ),
    (r"No module named '?torch", "PyTorch is not installed.", INSTALL),
    (
        r"compiled using NumPy 1|_ARRAY_API not found|numpy\.dtype size changed",
        "This PyTorch was built for another numpy: reinstall it with the PyTorch Utils module, then restart Slicer.",
        "",
    ),
    (r"No module named '?(?P<name>[\w.]+)", "The Python package {name} is not installed.", INSTALL),
    (
        r"CUDA error|CUDNN_STATUS|no kernel image is available|MPS backend",
        "The graphics device failed; choose cpu as device.",
        RETRY_ON_CPU,
    ),
)
SHEARED = "If its axes are not at right angles (a sheared affine), resample it first."


def explain(lines: Sequence[str], code: int) -> Explanation:
    """`lines`: what the engine said besides progress. The engine's own `error: …` is the sentence unless the table knows better."""
    log = "\n".join(lines)
    for pattern, sentence, action in TABLE:
        found = re.search(pattern, log)
        if found:
            return Explanation(sentence.format(**found.groupdict()), action)
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return Explanation(errors[-1].removeprefix("error: "))
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    if code < 0:
        return Explanation(f"The fit was stopped from outside (signal {-code}), perhaps for want of memory; its last words: {last}")
    return Explanation(f"The fit ended with code {code}: {last}")
