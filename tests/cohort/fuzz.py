"""Damaged inputs by the thousand: headers, sidecars, tables, meshes, movies and manifests, mutated at random.

    python tests/cohort/fuzz.py --number 10000

Each must end in an outcome of one line (done or bad input), within the time allowed, with nothing written outside the output folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LIMIT = 30.0  # s for one input; the machine may be busy
WORDS = [b"nan", b"inf", b"-1", b"0", b"1e308", b"99999999999999999999", b"-9223372036854775808", b"", b"\x00", b"../../x", b"\xff\xfe"]
VALUES = [None, [], {}, "", "x", -1, 0, 1e308, 10**30, True, [1, "a"], [0.1] * 3, {"a": 1}, "../../etc", [None], 1800, [[1]], "\x00"]


def seeds(home: Path) -> dict[str, Path]:
    """A folder of good files for each kind of input; the file to open comes first in the name."""
    from pinn_engine.asl.phantom import make, write_bids
    from pinn_engine.files.grid import Grid
    from pinn_engine.files.mesh import Mesh
    from pinn_engine.files.movie import write_movie
    from pinn_engine.files.opencarp import write as write_opencarp
    from pinn_engine.files.vtkmesh import write as write_vtk

    kinds = {}
    for labeling in ("PCASL", "PASL"):
        plds = (0.7, 1.2, 1.7) if labeling == "PASL" else (0.3, 1.1, 1.9)
        write_bids(make((10, 12, 6), seed=1, repeats=2, labeling=labeling, plds=plds), home / labeling)
        kinds[labeling] = home / labeling / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 9, 10), np.linspace(0, 9, 10), indexing="ij"))
    points = np.stack([x, y, np.zeros_like(x)], 1)
    quads = np.array([[10 * i + j, 10 * i + j + 1, 10 * i + j + 11, 10 * i + j + 10] for i in range(9) for j in range(9)])
    cells = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
    lat = np.where(np.arange(100) % 3, 1.4 * x + 5, np.nan)
    mesh = Mesh(points, cells, {"LAT": lat}, {}, {}, None, "RAS", "mesh")
    for suffix, text in ((".vtp", True), (".vtp", False), (".vtu", True)):
        kind = f"{suffix[1:]}{'-text' if text else ''}"
        (home / kind).mkdir()
        kinds[kind] = write_vtk(mesh, home / kind / f"mesh{suffix}", ascii_text=text)
    (home / "vtk").mkdir()
    kinds["vtk"] = home / "vtk" / "mesh.vtk"
    kinds["vtk"].write_text(legacy(points, cells, lat))
    (home / "pts").mkdir()
    write_opencarp(mesh, home / "pts" / "mesh")
    kinds["pts"] = home / "pts" / "mesh.pts"
    (home / "pts" / "mesh.LAT.dat").write_text("\n".join(f"{v:g}" for v in lat) + "\n")
    (home / "movie").mkdir()
    kinds["movie"] = home / "movie" / "movie.nii.gz"
    V = 0.5 * (1 + np.tanh(np.arange(12.0)[None] - points[:, :1]))
    write_movie(kinds["movie"], V.reshape(10, 10, 1, 12).astype(np.float32), Grid((10, 10, 1), np.eye(4), 1, 1), 1.0, "tu")
    (home / "table").mkdir()
    kinds["table"] = home / "table" / "study.csv"
    kinds["table"].write_text(f'id,input,plds,m0,spatial\n1,{kinds["PCASL"]},,1000,false\nÄ b,none.nii,"0.3,1.1",,\n', encoding="utf-8")
    return kinds


def legacy(points: np.ndarray, cells: np.ndarray, lat: np.ndarray) -> str:
    rows = ["# vtk DataFile Version 3.0", "mesh", "ASCII", "DATASET POLYDATA", f"POINTS {len(points)} float"]
    rows += [" ".join(f"{v:g}" for v in p) for p in points] + [f"POLYGONS {len(cells)} {4 * len(cells)}"]
    rows += ["3 " + " ".join(map(str, cell)) for cell in cells] + [
        f"POINT_DATA {len(points)}",
        "SCALARS LAT float 1",
        "LOOKUP_TABLE default",
    ]
    return "\n".join(rows + [f"{v:g}" for v in lat]) + "\n"


def mutate(content: bytes, name: str, chance: random.Random) -> bytes:
    """One or a few faults of the kinds that disks, editors and converters make."""
    if name.endswith(".gz"):
        import gzip

        if chance.random() < 0.15:
            return _bytes(content, chance)
        return gzip.compress(_header(gzip.decompress(content), chance), 1)
    if name.endswith(".json") and chance.random() < 0.8:
        return _json(content, chance)
    for _ in range(chance.choice((1, 1, 2, 5))):
        content = chance.choice((_bytes, _word, _line))(content, chance)
    return content


def _bytes(content: bytes, chance: random.Random) -> bytes:
    data, at = bytearray(content), chance.randrange(len(content) or 1)
    way = chance.randrange(5)
    if way == 0:
        return bytes(data[:at])
    if way == 1:
        return bytes(data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:])
    if way == 2:
        return bytes(data[:at] + data[at + chance.randrange(1, 200) :])
    if way == 3:
        return b""
    for _ in range(chance.randrange(1, 20)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _header(content: bytes, chance: random.Random) -> bytes:
    """A NIfTI header's fields: dimensions, types, scales, matrices; or the voxels themselves."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        way = chance.randrange(4)
        if way == 0:
            struct.pack_into("<h", data, 40 + 2 * chance.randrange(8), chance.choice((-1, 0, 1, 2, 3, 5, 7, 300, 32767)))
        elif way == 1:
            at = chance.choice((*range(76, 108, 4), 108, 112, 116, 140, *range(256, 328, 4)))
            struct.pack_into("<f", data, at, chance.choice((float("nan"), float("inf"), 0.0, -1.0, 1e30, 1e-30, 3.7)))
        elif way == 2:
            data[chance.randrange(348)] = chance.randrange(256)
        else:
            at = 352 + 4 * chance.randrange(max((len(data) - 352) // 4, 1))
            if at + 4 <= len(data):
                struct.pack_into("<f", data, at, chance.choice((float("nan"), float("inf"), -1e30, 1e30)))
    return bytes(data[: chance.randrange(len(data))]) if chance.random() < 0.1 else bytes(data)


def _json(content: bytes, chance: random.Random) -> bytes:
    fields = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        key = chance.choice([*fields] or ["x"])
        if chance.random() < 0.3:
            fields.pop(key, None)
        else:
            fields[key] = chance.choice(VALUES)
    return json.dumps(fields).encode()


def _word(content: bytes, chance: random.Random) -> bytes:
    spans = [match.span() for match in re.finditer(rb"[^\s,;<>=\"]+", content[:200_000])]
    if not spans:
        return content
    begin, end = chance.choice(spans)
    return content[:begin] + chance.choice(WORDS) + content[end:]


def _line(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    way = chance.randrange(3)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(at, lines[at])
    else:
        lines.insert(at, lines.pop(chance.randrange(len(lines))))
    return b"\n".join(lines)


def damaged(kinds: dict[str, Path], number: int, seed: int) -> Iterator[tuple[str, int]]:
    names = sorted(kinds)
    for i in range(number):
        yield names[i % len(names)], seed * 1_000_003 + i


def attempt(kind: str, good: Path, seed: int, home: Path) -> str:
    """`done` or `bad input`, or what went wrong."""
    from pinn_engine.cli import main
    from pinn_engine.cohort.one import BAD_INPUT, DONE, Task, run_one
    from pinn_engine.cohort.study import make_job

    chance = random.Random(seed)  # a negative seed damages nothing
    folder, out = home / "in", home / "out"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(good.parent, folder)
    if seed >= 0:
        victim = chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))
        victim.write_bytes(mutate(victim.read_bytes(), victim.name, chance))
    path = folder / good.name
    if kind == "table":
        with open(os.devnull, "w") as nowhere:
            said, sys.stdout, told, sys.stderr = sys.stdout, nowhere, sys.stderr, nowhere
            try:
                code = main(["cohort", str(path), str(out), "--task", "asl", "--method", "nlls", "--dry-run"])
            finally:
                sys.stdout, sys.stderr = said, told
        outcome = {0: "done", 2: "bad input"}.get(code, f"exit {code}")
    else:
        if kind in ("PCASL", "PASL"):
            result = run_one(make_job("x", "x", out, Task(str(path), "", fit={"method": "nlls"})).task)
        else:
            result = _read_heart(path)  # its fit takes seconds: ten thousand of them are for another test
        outcome = {DONE: "done", BAD_INPUT: "bad input"}.get(result.code, result.detail or result.message)
        if result.code == BAD_INPUT and ("\n" in result.message or not result.message):
            outcome = f"no line: {result.message!r}"
    strangers = {path.name for path in home.iterdir()} - {"in", "out"}
    return f"wrote outside: {strangers}" if strangers else outcome


def _read_heart(path: Path):
    from pinn_engine.cardiac.read import read
    from pinn_engine.cohort.one import BAD_INPUT, DONE, FAULT, Outcome
    from pinn_engine.errors import InputError

    try:
        read(str(path), time_unit="tu" if path.suffix == ".gz" else "ms")
    except InputError as error:
        return Outcome(BAD_INPUT, str(error))
    except Exception:
        return Outcome(FAULT, "", detail=traceback.format_exc())
    return Outcome(DONE, "read")


def _serve(line, kinds: dict[str, Path], home: Path) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        kind, seed = line.recv()
        try:
            line.send(attempt(kind, kinds[kind], seed, home))
        except SystemExit as stop:
            line.send("bad input" if stop.code == 2 else f"exit {stop.code}")
        except BaseException:
            line.send(traceback.format_exc())


def run(number: int, seed: int = 0, tell: Callable[[str], None] = lambda text: None) -> tuple[Counter[str], list[str]]:
    """How the attempts ended, and a line or traceback for each that must not be. A process that dies or hangs is named and replaced."""
    context = multiprocessing.get_context("spawn")
    ends: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz") as place:
        kinds = seeds(Path(place) / "good")
        process = line = None
        for at, (kind, one) in enumerate(damaged(kinds, number, seed)):
            if process is None or line is None:
                line, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, kinds, Path(place) / "try"), daemon=True)
                process.start()
                theirs.close()
            line.send((kind, one))
            try:
                end = line.recv() if line.poll(LIMIT) else f"hang of more than {LIMIT:g} s"
            except (EOFError, OSError):
                process.join()
                end = f"died: {process.exitcode}"
            if end in ("done", "bad input"):
                ends[f"{kind}: {end}"] += 1
            else:
                faults.append(f"{kind} {one}: {end}")
                tell(faults[-1])
            if end.startswith(("died", "hang")):
                process.kill()
                process.join()
                process = line = None
            if at % 500 == 499:
                tell(f"{at + 1} of {number}, {len(faults)} fault(s)")
        if process is not None:
            process.kill()
    return ends, faults


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--number", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=0)
    call = p.parse_args()
    ends, faults = run(call.number, call.seed, lambda text: print(text, flush=True))
    for name, count in sorted(ends.items()):
        print(f"{count:6d}  {name}")
    print(f"{len(faults)} fault(s) in {call.number}")
    sys.exit(bool(faults))
