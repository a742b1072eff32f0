"""One markdown table for figures of several kinds: a row fills the columns that it has something for."""

from __future__ import annotations

from collections.abc import Iterable

Row = dict[str, str]

WHAT, SPEED, OTHER, BAR, HELD = "what", "voxels/s", "other figures", "bar", "held"
GM_CBF, GM_ATT, GM_COVERS = "GM CBF error: median / RMSE / bias", "GM ATT error, s", "GM 95 % covers CBF / ATT"
WM_CBF, WM_ATT, WM_COVERS = "WM CBF error", "WM ATT error, s", "WM covers"
LESIONS = "lesion contrast kept, large / small"
COLUMNS = (WHAT, SPEED, GM_CBF, GM_ATT, GM_COVERS, WM_CBF, WM_ATT, WM_COVERS, LESIONS, OTHER, BAR, HELD)


def heading(text: str) -> Row:
    return {WHAT: f"**{text}**"}


def verdict(held: bool) -> str:
    return "yes" if held else "**NO**"


def markdown(rows: Iterable[Row]) -> str:
    """The table; cells that a row does not name stay empty."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(tuple(row.get(name, "") for name in COLUMNS) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def count(value: float) -> str:
    """A rate with three significant digits and thousands separators."""
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"
