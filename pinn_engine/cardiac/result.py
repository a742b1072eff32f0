"""What a heart fit returns: maps on the input's nodes, parameters with errors and correlations, status, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .read import HeartData


class NodeStatus(IntEnum):
    """How each node of the input fared."""

    OUTSIDE = 0
    FITTED = 1
    UNDETERMINED = 2
    START = 3
    COLLISION = 4

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    NodeStatus.OUTSIDE: "No tissue that was fitted: no cell uses the node, or its piece of the mesh has too few observations.",
    NodeStatus.FITTED: "Fitted.",
    NodeStatus.UNDETERMINED: "The data say little about D here: its standard deviation is more than half of D itself.",
    NodeStatus.START: "Where the wave starts: a stimulus sets off tissue at once, so no CV can be read, and from V no LAT (see their std); "
    "D is that of the neighbours.",
    NodeStatus.COLLISION: "The equation does not hold here (fronts meet, break through or are blocked): do not read CV.",
}


@dataclass(frozen=True)
class MapKind:
    """How one map is named and shown."""

    key: str
    title: str
    colormap: str


D_MAP = MapKind("D", "Diffusivity D", "viridis")
CV_MAP = MapKind("CV", "Conduction velocity", "plasma")
LAT_MAP = MapKind("LAT", "Activation time", "turbo")


@dataclass(frozen=True, repr=False)
class NodeMap:
    """`value` and `std` (N,) float32 on the input's nodes in the outside unit: finite, 0 where nothing was fitted."""

    kind: MapKind
    unit: str
    value: np.ndarray
    std: np.ndarray

    def __repr__(self) -> str:
        return f"<{self.kind.key}, {self.unit}, of {len(self.value):,} nodes>"


@dataclass(frozen=True)
class Parameter:
    """One number: fitted, or given. `std` 0 where given; `spread`: 16th and 84th percentile over the tissue, of a map's median."""

    value: float
    std: float
    unit: str
    status: str
    spread: tuple[float, float] | None = None


def usable(status: np.ndarray) -> np.ndarray:
    """(N,) bool, see `HeartFit.usable`."""
    good = status == NodeStatus.FITTED
    return good if good.any() else status != NodeStatus.OUTSIDE


@dataclass(frozen=True, repr=False)
class HeartFit:
    """The result of `cardiac.fit`; N = the input's nodes, in its order."""

    data: HeartData
    maps: dict[str, NodeMap]
    status: np.ndarray  # (N,) uint8, see NodeStatus
    parameters: dict[str, Parameter]
    correlation: dict[str, dict[str, float]]
    identifiability: str
    V: np.ndarray | None = None  # (N, F) fitted, where V was given
    W: np.ndarray | None = None  # (N, F) the hidden variable, never observed
    residual: np.ndarray | None = None  # (R,) data residual over noise
    observed: np.ndarray | None = None  # (R,) activation times, outside unit, where they were the data
    predicted: np.ndarray | None = None  # (R,)
    convergence: list[float] = field(default_factory=list)  # 0.5 |r|^2 after each step of the last stage; networks: held-out rms by stage
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()  # those of the notes that a person must read before using the maps, see `doubts.py`

    def __repr__(self) -> str:
        return f"<HeartFit of {self.data.source}: {', '.join(map(repr, self.maps.values()))}; {self.parameters}>"

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool: nodes of status 1, whose median stands for the heart; where there are none, all that were fitted."""
        return usable(self.status)

    def save(self, folder: str | PathLike[str], *, reference: str | None = None, spacing: float | None = None) -> list[Path]:
        """Write mesh, volumes and parameters; returns the files. Raises InputError where the folder cannot be written."""
        from ..files.output import OutputFolder
        from .save import save

        return save(self, OutputFolder(folder), reference=reference, spacing=spacing)
