"""Studies: what many subjects cost beside one, whether anything is lost when processes die, how fast a dataset is indexed.

    python -m benchmarks.cohort [--rows index,processes,dask,kills,memory] [--subjects 100] [--kills 200]

Run it on an otherwise idle machine. Phantoms of 4 mm (20,982 voxels each), made in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROWS = ("index", "processes", "dask", "kills", "memory")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def dataset(home: Path, subjects: int, spacing: float, distinct: int = 4) -> Path:
    """`subjects` folders; every `distinct`-th is the same phantom under another name, which no run can know."""
    from pinn_engine.asl.phantom import make, write_bids
    from pinn_engine.cli.phantom import shape_of

    for seed in range(min(distinct, subjects)):
        made = home / "made" / str(seed)
        write_bids(make(shape_of(spacing), spacing, seed, repeats=4), made)
        for number in range(seed + 1, subjects + 1, distinct):
            for file in (made / "sub-01" / "perf").iterdir():
                target = home / "bids" / f"sub-{number:04}" / "perf" / file.name.replace("sub-01", f"sub-{number:04}")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    return home / "bids"


def bids(data: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "pinn_engine", "bids", str(data), str(out), "participant", "--progress", "none", *options]


def timed(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def results(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and "logs" not in path.relative_to(out).parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def index(home: Path, call: argparse.Namespace) -> list[str]:
    from pinn_engine.files.dataset import find_series

    for number in range(1000):
        perf = home / "many" / f"sub-{number:04}" / "ses-1" / "perf"
        perf.mkdir(parents=True)
        for end in ("asl.nii.gz", "asl.json", "aslcontext.tsv", "m0scan.nii.gz", "m0scan.json"):
            (perf / f"sub-{number:04}_ses-1_{end}").touch()
    begin = time.perf_counter()
    found = len(find_series(home / "many"))
    return [f"| index of 1,000 subjects | {time.perf_counter() - begin:.3f} s, {found} found | <= 1 s |"]


def processes(home: Path, call: argparse.Namespace) -> list[str]:
    """The bar: 1.1 x (subjects x single-thread time / 2) + 10 s on 2 cores; one subject's time is that of a warm serial run."""
    data = dataset(home / "study", call.subjects, 4.0)
    few = min(10, call.subjects)
    labels = ["--participant-label", *(f"{n:04}" for n in range(1, few + 1))]
    one, ten = timed(bids(data, home / "one", *labels[:2])), timed(bids(data, home / "few", *labels))
    each = (ten - one) / (few - 1)
    wall = timed(bids(data, home / "two", "--nprocs", "2"))
    bar = 1.1 * call.subjects * each / 2 + 10
    return [
        f"| {call.subjects} subjects, 2 processes | {wall:.1f} s; one subject {each:.2f} s warm, {one:.1f} s cold | <= {bar:.1f} s |",
    ]


def dask(home: Path, call: argparse.Namespace) -> list[str]:
    data = dataset(home / "dask", min(call.subjects, 40), 4.0)
    plain = timed(bids(data, home / "plain", "--nprocs", "2"))
    other = timed(bids(data, home / "cluster", "--cluster", "dask", "--nprocs", "2"))
    same = results(home / "plain") == results(home / "cluster")
    return [f"| the same on Dask, {min(call.subjects, 40)} subjects | {other:.1f} s against {plain:.1f} s; same bytes: {same} | <= +10 % |"]


def kills(home: Path, call: argparse.Namespace) -> list[str]:
    """Random SIGKILLs of whole runs, of the parent alone or of one worker; then one run to the end."""
    data = dataset(home / "kills", 12, 8.0)
    subprocess.run(bids(data, home / "calm"), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    calm, out, chance, done, rounds, failed = results(home / "calm"), home / "disturbed", random.Random(1), 0, 0, 0
    while done < call.kills:
        rounds += 1
        ways = ([], ["--nprocs", "2"], ["--nprocs", "2"])[rounds % 3]
        run = subprocess.Popen(
            bids(data, out, *ways), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(2.0 + 4.0 * chance.random())
        while run.poll() is None and done < call.kills:
            done += 1
            children = _children(run.pid)
            if rounds % 3 == 1 and children:
                os.kill(run.pid, signal.SIGKILL)
            elif rounds % 3 == 2 and children and chance.random() < 0.7:
                _kill(chance.choice(children))
                time.sleep(1.0 + 3.0 * chance.random())
                continue
            else:
                os.killpg(run.pid, signal.SIGKILL)
            break
        if run.poll() is None and done >= call.kills:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        failed += run.returncode == 3
        if results(out).keys() == calm.keys():  # all done: begin anew, else nothing is left to disturb
            assert results(out) == calm
            shutil.rmtree(out)
    subprocess.run(bids(data, out), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    after = results(out)
    lost, half = len(calm.keys() - after.keys()), sum(after[name] != calm[name] for name in calm.keys() & after.keys())
    odd = len([*out.rglob("*.tmp")])
    ends = f"{lost} files lost, {half} differ, {odd} left over; {failed} run(s) with a failure"
    return [f"| {done} random kills in {rounds} runs | {ends} | 0, 0 |"]


def memory(home: Path, call: argparse.Namespace) -> list[str]:
    """Peak of one warm process over 2 and over 20 subjects."""
    data = dataset(home / "memory", 20, 4.0)
    peaks = [_peak(bids(data, home / f"m{n}", "--participant-label", *(f"{i:04}" for i in range(1, n + 1)))) for n in (2, 20)]
    return [f"| memory of one process, 2 and 20 subjects | {peaks[0]:.0f} and {peaks[1]:.0f} MiB | no growth |"]


def _peak(command: list[str]) -> float:
    run = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(run.pid, 0)
    assert status == 0
    return used.ru_maxrss / 1024


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split()]


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rows", default=",".join(ROWS))
    p.add_argument("--subjects", type=int, default=100)
    p.add_argument("--kills", type=int, default=200)
    call = p.parse_args()
    rows: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {
        "index": index,
        "processes": processes,
        "dask": dask,
        "kills": kills,
        "memory": memory,
    }
    print("| what | measured | bar |\n|---|---|---|")
    for name in call.rows.split(","):
        with tempfile.TemporaryDirectory(prefix="cohort") as place:
            for line in rows[name](Path(place), call):
                print(line, flush=True)


if __name__ == "__main__":
    main()
