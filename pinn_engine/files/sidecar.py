"""Typed, checked reading of the values in a JSON sidecar; each fault names the file and the field."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from ..errors import InputError

Where = str | PathLike[str]
OPTIONS = {"PostLabelingDelay": "give --plds (PASL: --tis)", "LabelingDuration": "give --label-duration"}


def numbers(value: object, where: Where, name: str) -> np.ndarray:
    """Numbers given as a number, a string, or a list of either: () or (K,) float64, finite.

    >>> numbers([1, "1.8"], "x.json", "PostLabelingDelay")
    array([1. , 1.8])
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return np.float64(_number(value, where, name)) * np.ones(())
    entries = [_number(entry, where, name) for entry in value]
    if not entries:
        raise InputError(where, f"{name} is an empty list", fix=f"give {name} as a number or one per volume")
    return np.array(entries)


def _number(value: object, where: Where, name: str) -> float:
    fix = f"give {name} as a number"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, str, np.number)):
        raise InputError(where, f"{name} must be a number", found=repr(value)[:60], fix=fix)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise InputError(where, f"{name} must be a number", found=repr(value)[:60], fix=fix) from None
    if not math.isfinite(number):
        raise InputError(where, f"{name} must be finite", found=number, fix=fix)
    return number


@dataclass(frozen=True)
class Sidecar:
    """The merged fields of an image's JSON sidecars; `home` is the file to name when a field is absent."""

    home: str
    fields: dict[str, object] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # field -> the file that gave it
    label: str = ""  # what origins name in place of the file
    doubts: dict[str, str] = field(default_factory=dict)  # field -> what contradicts it: it must be given by option

    def __bool__(self) -> bool:
        return bool(self.fields)

    def over(self, other: Sidecar) -> Sidecar:
        """These fields over those of `other`; a field given here is no longer in doubt."""
        doubts = {name: doubt for name, doubt in other.doubts.items() if name not in self.fields}
        return Sidecar(other.home, other.fields | self.fields, other.files | self.files, other.label, doubts)

    def where(self, name: str) -> str:
        """The file to name in an error about `name`."""
        return self.files.get(name, self.home)

    def origin(self, name: str) -> str:
        """Where a value came from, without the folder, so that outputs do not depend on where the data stand."""
        file = self.where(name) if name in self.files or not self.label else self.label
        return f"{file.replace(chr(92), '/').rsplit('/', 1)[-1]}: {name}"

    def get(self, name: str) -> object:
        """The raw value; None where absent, null, empty or n/a. InputError where the value is in doubt."""
        if name in self.doubts:
            fix = OPTIONS.get(name, f"give {name} by option") + " in seconds"
            raise InputError(self.where(name), f"{name} in the files contradicts itself", found=self.doubts[name], fix=fix)
        value = self.fields.get(name)
        return None if isinstance(value, str) and value.strip().lower() in ("", "n/a") else value

    def numbers(self, name: str) -> np.ndarray | None:
        """() or (K,) float64, or None where absent."""
        value = self.get(name)
        return None if value is None else numbers(value, self.where(name), name)

    def number(self, name: str) -> float | None:
        """One number; a list of one entry counts as one number."""
        values = self.numbers(name)
        if values is None:
            return None
        if values.size != 1:
            raise InputError(
                self.where(name), f"{name} must be one number", found=f"{values.size} entries", fix=f"give {name} as one number"
            )
        return float(values.reshape(()))

    def flag(self, name: str) -> bool | None:
        """true or false, also as 0/1 or a string."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return value
        known = {"true": True, "1": True, "false": False, "0": False}
        word = str(value).strip().lower()
        if word not in known:
            raise InputError(self.where(name), f"{name} must be true or false", found=repr(value)[:60], fix=f"give {name} as true or false")
        return known[word]

    def word(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """One of `allowed`, whatever its upper and lower case, spelt as in `allowed`."""
        value = self.get(name)
        if value is None:
            return None
        for choice in allowed:
            if str(value).strip().lower() == choice.lower():
                return choice
        raise InputError(self.where(name), f"{name} is unknown", found=repr(value)[:60], fix=f"give one of {', '.join(allowed)}")
