"""Physiological constants with their sources: what is used where neither the scan nor the user gives a value."""

from __future__ import annotations

from dataclasses import dataclass

ALSOP_2015 = "doi:10.1002/mrm.25197"
WANG_2005 = "doi:10.1148/radiol.2351031663"
ZHANG_2013 = "doi:10.1002/mrm.24550"
WANSAPURA_1999 = "doi:10.1002/(SICI)1522-2586(199904)9:4<531::AID-JMRI4>3.0.CO;2-L"
WRIGHT_2008 = "doi:10.1007/s10334-008-0104-8"


@dataclass(frozen=True)
class Sourced:
    """A value and where it came from: a sidecar field, an option, or a cited default."""

    value: float | str | bool | None
    origin: str
    unit: str = ""

    @property
    def number(self) -> float:
        """The value as a float; TypeError where it is not a number."""
        if not isinstance(self.value, int | float):
            raise TypeError(f"{self.value!r} ({self.origin}) is not a number")
        return float(self.value)


PARTITION = Sourced(0.90, f"default, whole brain ({ALSOP_2015})", "mL/g")

LABELING_EFFICIENCY = {
    "PCASL": Sourced(0.85, f"default for PCASL ({ALSOP_2015})"),
    "PASL": Sourced(0.98, f"default for PASL ({ALSOP_2015})"),
    "CASL": Sourced(0.68, f"default for CASL ({WANG_2005})"),
}

# One inversion pulse of the background suppression leaves this share of the labelled signal; ASLPrep uses the same number.
SUPPRESSION_PULSE = Sourced(0.95, f"default, each background-suppression pulse ({ALSOP_2015})")

FIELD_STRENGTH = 3.0  # T, assumed where the sidecar says nothing; the reader then says so
SAME_FIELD = 0.25  # T; scanners sold as 3 T run at 2.89 T

_T1_BLOOD = {1.5: (1.35, ALSOP_2015), 3.0: (1.65, ALSOP_2015), 7.0: (2.087, ZHANG_2013)}
_T1_TISSUE = {1.5: (1.197, WRIGHT_2008), 3.0: (1.33, WANSAPURA_1999), 7.0: (1.939, WRIGHT_2008)}  # grey matter


def t1_blood(field_strength: float) -> Sourced:
    """T1 of arterial blood (s) at a field strength in tesla."""
    for field, (seconds, source) in _T1_BLOOD.items():
        if abs(field - field_strength) <= SAME_FIELD:
            return Sourced(seconds, f"default at {field:g} T ({source})", "s")
    return Sourced(round((110 * field_strength + 1316) / 1000, 4), f"default at {field_strength:g} T, linear in field ({ZHANG_2013})", "s")


def t1_tissue(field_strength: float) -> Sourced:
    """T1 of grey matter (s) at the nearest field strength that a value is cited for."""
    field = min(_T1_TISSUE, key=lambda known: abs(known - field_strength))
    seconds, source = _T1_TISSUE[field]
    return Sourced(seconds, f"default for grey matter at {field:g} T ({source})", "s")
