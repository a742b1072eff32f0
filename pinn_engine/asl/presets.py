"""Named settings for a kind of study: what is fitted, with which model, and what is known beforehand about T1 of blood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core import Gaussian
from ..errors import InputError
from .constants import Sourced

T1B_SD = 0.1  # s, BASIL's prior width for a fitted T1 of blood


@dataclass(frozen=True)
class Preset:
    """Values of the options that are not given, and the prior of T1 of blood (s), of which there is one a subject."""

    model: str = "buxton"
    unknown: tuple[str, ...] = ("cbf", "att")
    t1b: Gaussian | None = None
    flow: Gaussian | None = None  # of the region's mean CBF, mL/100 g/min; used where M0 gives an absolute scale


STANDARD = Preset()
PRESETS = {
    # SUPINN's setting (Galazis 2025, doi:10.3389/fnetp.2025.1488349). Arterial T1 of newborns' blood at 3 T is 1.83 +- 0.18 s at one
    # haematocrit and changes with it and with oxygenation (Liu, Magn Reson Med 2016, cord blood in vitro), so the prior is wider.
    # Global CBF of infants: 24 to 56 mL/100 g/min (Varela 2015, J Magn Reson Imaging 41:1591), read as 1.6 sd to either side.
    "infant": Preset("simplified", ("cbf", "att", "t1b"), Gaussian(1.85, 0.35), Gaussian(40.0, 10.0)),
}


def preset_of(name: str | None, source: str = "--preset") -> Preset:
    """The preset of a name, the standard values for None; InputError for a name that is not known."""
    if name is None:
        return STANDARD
    if name not in PRESETS:
        raise InputError(source, "--preset is unknown", found=name, fix=f"give {' or '.join(PRESETS)}")
    return PRESETS[name]


def is_given(t1_blood: Sourced) -> bool:
    """True where the user gave T1 of blood: then it is not sought unless asked for by name."""
    return t1_blood.origin.startswith("option")


def unknowns(preset: Preset, asked: Sequence[str] | str | None, t1_blood: Sourced) -> tuple[str, ...]:
    """What is fitted: as asked, else the preset's, less a T1 of blood that was given."""
    if asked is not None:
        return tuple(asked.split(",") if isinstance(asked, str) else asked)
    return tuple(name for name in preset.unknown if name != "t1b" or not is_given(t1_blood))


def t1b_prior(preset: Preset, t1_blood: Sourced) -> Gaussian:
    """Around a given or default T1 of blood, or the preset's."""
    if preset.t1b is None or is_given(t1_blood):
        return Gaussian(t1_blood.number, T1B_SD)
    return preset.t1b
