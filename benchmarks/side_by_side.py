"""Rows of `benchmarks.compare`: one method on one data set, and how they become a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import peers


@dataclass(frozen=True)
class Entry:
    """One row. `made` is what the method's process told (seconds, wall, peak, before, version); `items`: how many voxels share its time."""

    who: str
    errors: tuple[str, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)
    items: int = 1
    reference: bool = False  # our default: the others' times are told in units of its time
    headline: str = ""  # words for the README's table; empty: not in it
    note: str = ""

    @property
    def seconds(self) -> float | None:
        return float(self.made["seconds"]) / self.items if "seconds" in self.made else None

    @property
    def version(self) -> str:
        return str(self.made.get("version", ""))


@dataclass(frozen=True)
class Section:
    """Rows on the same data. `measures` say what the errors are; `unit`: what a time is for, as "voxel" or "fit"."""

    title: str
    measures: tuple[str, ...]
    unit: str
    entries: tuple[Entry, ...]

    def table(self) -> list[str]:
        head = [
            "method",
            "version",
            *self.measures,
            f"CPU s a {self.unit}",
            "times ours",
            "wall s in all",
            "peak GiB (before the work)",
            "note",
        ]
        return _markdown(head, [self._row(entry) for entry in self.entries])

    def headlines(self) -> list[str]:
        """The rows for the README, in the same figures."""
        rows = [[e.headline, *e.errors, _time(e.seconds, self.unit), self._ratio(e)] for e in self.entries if e.headline and e.errors]
        if not rows:
            return []
        return _markdown([self.title, *self.measures, "time, one thread", "times ours"], rows)

    def _row(self, e: Entry) -> list[str]:
        errors = [*e.errors, *[""] * (len(self.measures) - len(e.errors))]
        if "seconds" not in e.made:
            return [e.who, e.version, *errors, "", "", "", "", e.note]
        memory = f"{float(e.made['peak']):.2f} ({float(e.made['before']):.2f})"
        return [e.who, e.version, *errors, _time(e.seconds, self.unit), self._ratio(e), f"{float(e.made['wall']):.1f}", memory, e.note]

    def _ratio(self, e: Entry) -> str:
        ours = next((x.seconds for x in self.entries if x.reference), None)
        return "" if e.seconds is None or not ours else f"{_three(e.seconds / ours)} x"


def attempt(who: str, work: Callable[[], dict[str, Any]], score: Callable[[dict[str, Any]], Sequence[str]], **settings: Any) -> Entry:
    """The row of a method, or the row that says why it could not be run."""
    try:
        made = work()
    except peers.CannotRun as reason:
        return Entry(who, note=f"not run: {reason}")
    return Entry(who, tuple(score(made)), made, **settings)


def _time(seconds: float | None, unit: str) -> str:
    if seconds is None:
        return ""
    return f"{_three(1e6 * seconds)} us" if seconds < 1e-2 and unit == "voxel" else f"{_three(seconds)} s"


def _three(value: float) -> str:
    """Three significant digits, without exponent."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1g}"


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
