"""Units of the heart: the one place where TU become ms, conductivities diffusivities, and voltages numbers.

Inside the engine: mm, TU (1 TU = 12.9 ms), mm^2/TU, V without dimension (0 = rest, 1 = peak). Outside: what --time-unit says.
Scales of the Aliev-Panfilov model: Aliev & Panfilov 1996, doi:10.1016/0960-0779(95)00089-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError

MS_PER_TU = 12.9
MV_SCALE, MV_REST = 100.0, -80.0  # V_mV = 100 V - 80
SURFACE_TO_VOLUME = 140.0  # chi, 1/mm (Niederer 2011, doi:10.1098/rsta.2011.0139)
CAPACITANCE = 0.01  # Cm, uF/mm^2 (the same)


@dataclass(frozen=True)
class TimeUnit:
    """Converts times, speeds and diffusivities between the engine (TU) and the outside (`name`). Numbers, arrays and tensors alike."""

    name: Literal["ms", "tu"] = "ms"

    def __post_init__(self) -> None:
        """InputError for another unit: taken for TU, times in s would be wrong by a factor of ten without a word."""
        if self.name not in ("ms", "tu"):
            raise InputError("--time-unit", "is no unit this program knows", found=self.name, fix="give ms or tu")

    @property
    def per_tu(self) -> float:
        """How many of this unit make 1 TU."""
        return MS_PER_TU if self.name == "ms" else 1.0

    @property
    def time(self) -> str:
        return "ms" if self.name == "ms" else "TU"

    @property
    def speed(self) -> str:
        """m/s is mm/ms."""
        return "m/s" if self.name == "ms" else "mm/TU"

    @property
    def diffusivity(self) -> str:
        return f"mm^2/{self.time}"

    def to_tu(self, time: Any) -> Any:
        return time / self.per_tu

    def from_tu(self, time: Any) -> Any:
        return time * self.per_tu

    def rate_to_tu(self, rate: Any) -> Any:
        """Speeds and diffusivities: something per time."""
        return rate * self.per_tu

    def rate_from_tu(self, rate: Any) -> Any:
        return rate / self.per_tu


def millivolts(V: Any) -> Any:
    """V without dimension -> mV."""
    return MV_SCALE * V + MV_REST


def from_millivolts(voltage: Any) -> Any:
    """mV -> V without dimension."""
    return (voltage - MV_REST) / MV_SCALE


def diffusivity_from_conductivity(sigma: Any) -> Any:
    """Monodomain conductivity, S/m -> D, mm^2/TU: D = sigma / (chi Cm)."""
    per_ms = sigma / (SURFACE_TO_VOLUME * CAPACITANCE)  # S/m / (1/mm uF/mm^2) = mm^2/ms: the powers of ten cancel
    return per_ms * MS_PER_TU


def conductivity_from_diffusivity(D: Any) -> Any:
    """D, mm^2/TU -> monodomain conductivity, S/m (what openCARP and TorchCor take)."""
    return D / MS_PER_TU * SURFACE_TO_VOLUME * CAPACITANCE


def monodomain_conductivity(intracellular: Any, extracellular: Any) -> Any:
    """Bidomain conductivities, S/m -> the monodomain one: their harmonic combination, not their sum."""
    return intracellular * extracellular / (intracellular + extracellular)
