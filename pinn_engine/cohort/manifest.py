"""The manifest of a study: a table (CSV or TSV) with the columns `id`, `input` and any options of the fit."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..errors import InputError
from .study import checked_identifier

LARGEST = 64 << 20  # bytes; a hundred thousand subjects take ten million


@dataclass(frozen=True)
class Row:
    """One subject: options as written, without those left empty; `line` is where it stands in the file."""

    id: str
    input: str
    options: Mapping[str, str]
    line: int


def read_manifest(path: str | os.PathLike[str], known: Collection[str]) -> list[Row]:
    """The rows; `input` relative to the manifest's folder. `known`: the option names. Raises InputError that names the line."""
    table = list(_rows(path))
    head = [cell.strip() for cell in table[0][1]] if table else []
    for needed in ("id", "input"):
        if needed not in head:
            found = ", ".join(head)[:120] or "an empty file"
            fix = "begin with a line id,input and any option names"
            if ";" in found:
                fix += "; cells are parted by commas or tabs, not by semicolons, and decimals written with a point"
            raise InputError(path, f"has no column {needed}", found=found, fix=fix)
    names = [name.removeprefix("--").replace("_", "-") for name in head]
    for name in names:
        if names.count(name) > 1:
            raise InputError(path, "has a column twice", found=name, fix="keep one")
        if name not in {"id", "input", *known}:
            near = get_close_matches(name, [*known], 1)
            raise InputError(
                path, "has an unknown column", found=name or "an empty name", fix=f"did you mean {near[0]}?" if near else "use option names"
            )
    rows = []
    for line, cells in table[1:]:
        if len(cells) != len(names):
            raise InputError(path, f"line {line} has {len(cells)} cells for {len(names)} columns", fix="quote cells that hold commas")
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
        where = f"{path}: line {line}"
        if not row["input"] or "\0" in row["input"]:
            raise InputError(where, "has no input", fix="give the path of the scan")
        options = {name: value for name, value in row.items() if name not in ("id", "input") and value}
        rows.append(Row(checked_identifier(row["id"], f"{where}: id"), str(Path(path).parent / row["input"]), options, line))
    if not rows:
        raise InputError(path, "has no subjects", fix="give a line for each")
    return rows


def _rows(path: str | os.PathLike[str]):
    """Line number and cells of every line that is not blank."""
    try:
        if Path(path).stat().st_size > LARGEST:
            raise InputError(path, f"is larger than {LARGEST >> 20} MiB", fix="give a table of text")
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, "is not UTF-8 text", found=str(error)[:120], fix="save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(path, "cannot be read", found=getattr(error, "strerror", None) or error, fix="check the path") from None
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first and "," not in first else ",")
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(path, f"line {reader.line_num} is no line of a table", found=error, fix="save it as CSV") from None
