"""What VTK's reader leaves of a .ply: the further numbers of its vertices (LAT, quality, …), and the counts that its header gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import InputError

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"}
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
KNOWN = {"x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "alpha", "u", "v", "s", "t", "texture_u", "texture_v"}
LONGEST = 1000  # lines of a header


@dataclass
class Header:
    """`counts`: entries by element; `vertex`: (name, type) of each number of a vertex; `first`: the element that comes first."""

    order: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    vertex: list[tuple[str, str]] = field(default_factory=list)
    lists: bool = False  # of vertices: then they have no fixed size

    @property
    def first(self) -> str:
        return next(iter(self.counts), "")


def vertex_data(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """{name: (N,)} of the vertices' numbers beyond place, normal, colour and texture; and the counts of the header, by element.

    Nothing where the file is laid out as none that we know writes it. Raises InputError where it ends before its vertices do.
    """
    with open(path, "rb") as stream:
        header = _header(stream)
        wanted = [name for name, _ in header.vertex if name.lower() not in KNOWN]
        if header.order is None or header.first != "vertex" or header.lists or not wanted:
            return {}, header.counts
        table = _table(stream, header, path)
    return {name: table[name] for name in wanted}, header.counts


def _header(stream: BinaryIO) -> Header:
    header, element = Header(), ""
    for line in islice(stream, LONGEST):
        words = line.decode("latin-1").split()
        if words[:1] == ["end_header"]:
            return header
        if words[:1] == ["format"] and len(words) > 1:
            header.order = ORDERS.get(words[1])
        elif words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            element = words[1]
            header.counts[element] = int(words[2])
        elif words[:1] == ["property"] and element == "vertex":
            header.lists |= words[1:2] == ["list"] or len(words) != 3 or words[1] not in TYPES
            header.vertex.append((words[-1], TYPES.get(words[1], "")))
    return Header()


def _table(stream: BinaryIO, header: Header, path: Path) -> dict[str, np.ndarray]:
    """Every number of every vertex, by name."""
    count, names = header.counts["vertex"], [name for name, _ in header.vertex]
    if header.order:
        kind = np.dtype([(str(i), header.order + code) for i, (_, code) in enumerate(header.vertex)])
        content = stream.read(min(count * kind.itemsize, path.stat().st_size))
        rows = np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)
        columns = [rows[str(i)] for i in range(len(names))]
    else:
        lines = [line.split() for line in islice(stream, count)]
        if any(len(words) < len(names) for words in lines):
            raise InputError(path, "could not be read whole", found="a vertex without all its numbers", fix="export it again")
        try:
            columns = [np.array([float(words[i]) for words in lines]) for i in range(len(names))]
        except ValueError as error:
            raise InputError(path, "could not be read whole", found=str(error)[:80], fix="export it again") from None
    if len(columns[0]) < count:
        raise InputError(path, "is cut short", found=f"{len(columns[0])} vertices where the header says {count}", fix="export it again")
    return {name: np.array(column, column.dtype.newbyteorder("=")) for name, column in zip(names, columns, strict=True)}
