"""What a run of the MONAI bundle costs over the command line on the same scan: whole processes, from the prompt to the prompt.

python -m benchmarks.bundle --scan sub-01/perf/sub-01_asl.nii.gz --mask sub-01/perf/sub-01_mask.nii.gz --out benchmarks/results/bundle.md
"""

from __future__ import annotations

import argparse
import filecmp
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .machine import description
from .table import verdict

BUNDLE = Path(__file__).parents[1] / "monai_bundle" / "asl_perfusion_pinn"
SHARE, SECONDS = 0.2, 8.0  # the overhead must not exceed the larger of these


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds (of the process and its children) of one command that must succeed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(scan: Path, dataset: Path, options: dict[str, str], out: Path) -> dict[str, list[str]]:
    flags = [f"--{key}={value}" for key, value in options.items()]
    bundle = ["run", "--config_file", str(BUNDLE / "configs" / "inference.json"), "--bundle_root", str(BUNDLE)]
    return {
        "command line": [sys.executable, "-m", "pinn_engine", "asl", str(scan), "--out", str(out / "cli"), *flags],
        "bundle": [
            sys.executable,
            "-m",
            "monai.bundle",
            *bundle,
            "--dataset_dir",
            str(dataset),
            "--output_dir",
            str(out / "bundle"),
            *flags,
        ],
    }


def compare(scan: Path, options: dict[str, str], repeats: int) -> list[str]:
    """The rows of the table for one set of options."""
    with tempfile.TemporaryDirectory() as folder:
        dataset, out = Path(folder) / "bids", Path(folder) / "out"
        perf = dataset / scan.parent.parent.name / "perf"
        shutil.copytree(scan.parent, perf)
        both = commands(perf / scan.name, dataset, options, out)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in both}
        for _ in range(repeats):
            for name, command in both.items():
                times[name].append(timed(command))
        a, b = out / "cli", out / "bundle" / scan.parent.parent.name / "perf"
        names = [path.name for path in a.iterdir() if path.is_file() and path.name.startswith("sub-")]
        equal = filecmp.cmpfiles(a, b, names, shallow=False)[0] == names
    middle = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in times.items()}
    (wall, cpu), (bundle_wall, bundle_cpu) = middle["command line"], middle["bundle"]
    held = bundle_cpu - cpu <= max(SHARE * cpu, SECONDS)
    said = " ".join(f"--{key} {value}" for key, value in options.items() if key not in ("mask", "threads")) or "defaults"
    row = [said, f"{wall:.1f} / {cpu:.1f}", f"{bundle_wall:.1f} / {bundle_cpu:.1f}"]
    row += [
        f"{bundle_wall - wall:+.1f} / {bundle_cpu - cpu:+.1f} ({bundle_cpu / cpu - 1:+.0%} CPU)",
        "yes" if equal else "**NO**",
        verdict(held),
    ]
    return ["| " + " | ".join(row) + " |"]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    p.add_argument("--scan", type=Path, required=True, help="ASL series of a BIDS dataset, sub-X/perf/…_asl.nii.gz")
    p.add_argument("--mask", type=Path)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--mlp", action="store_true", help="also with --network mlp, some minutes")
    p.add_argument("--out", type=Path)
    call = p.parse_args()
    standing = {"threads": "1"} | ({"mask": str(call.mask)} if call.mask else {})
    lines = ["# The MONAI bundle over the command line", "", *[text for line in description() for text in (line, "")]]
    lines += [
        f"`python -m benchmarks.bundle`: one whole scan, whole processes taking turns, median of {call.repeats}; wall / CPU seconds. "
        "The overhead is the import of MONAI and ignite; it does not grow with the data. The bar is judged by CPU seconds of one thread: "
        "wall times on a shared machine measure its other users.",
        "",
        "| fit | `pinn-engine asl` | `monai.bundle run` | overhead | same bytes | <= 20 % or 8 s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for options in [{}, {"network": "mlp"}] if call.mlp else [{}]:
        flags = standing | options
        lines += compare(call.scan, flags, call.repeats)
    text = "\n".join(lines) + "\n"
    print(text)
    if call.out:
        call.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
