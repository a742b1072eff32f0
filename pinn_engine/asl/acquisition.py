"""What was acquired: labelling, timings and constants of one perfusion scan, each with its origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Labeling = Literal["PCASL", "CASL", "PASL"]


@dataclass(frozen=True)
class Sourced:
    """A value and where it came from: a sidecar field, an option, or a cited default."""

    value: float | str | bool | None
    origin: str
    unit: str = ""


@dataclass(frozen=True)
class Acquisition:
    """Timings of N control-label differences, in seconds from the start of labelling.

    `pld` is the post-labelling delay of p/CASL; for PASL it is the inversion time (BIDS: PASL's PostLabelingDelay is the TI).
    `label_duration` is the label duration of p/CASL or the bolus duration (TI1) of PASL.
    `slice_delay` has one entry per slice along `slice_axis`: how much later than the first slice it was read (zeros for 3-D).
    """

    labeling: Labeling
    pld: np.ndarray  # (N,)
    label_duration: np.ndarray  # (N,)
    slice_delay: np.ndarray  # (slices,)
    slice_axis: int
    alpha: Sourced  # labelling efficiency, background suppression included
    t1_blood: Sourced  # s
    t1_tissue: Sourced  # s
    partition: Sourced  # lambda, mL/g
    origins: dict[str, Sourced] = field(default_factory=dict)  # every value used, alpha … partition included

    @property
    def times(self) -> np.ndarray:
        """(N,) time from the start of labelling to the readout of the first slice, s."""
        return self.pld if self.labeling == "PASL" else self.pld + self.label_duration
