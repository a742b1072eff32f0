"""What the Slicer extension costs over the fit itself: from Apply to maps, how long the panel is busy, memory over many runs.

python -m benchmarks.slicer --scan sub-01/perf/sub-01_asl.nii.gz --mask sub-01/perf/sub-01_mask.nii.gz --out benchmarks/results/slicer.md

Needs `pip install ".[test,slicer-test]"`: slicer-core's scene, the panel in the tests' shim, the engine in a subprocess as in Slicer.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .machine import description
from .table import verdict

ROOT = Path(__file__).parents[1]
OVERHEAD, ANSWER, GROWTH = 8.0, 0.1, 20.0  # s, s, MB over the runs after the third


def cpu() -> float:
    """CPU seconds of this process and of its finished children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, before = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - wall, cpu() - before


def panel():
    """The perfusion panel in the shim, with an empty scene."""
    sys.path.insert(0, str(ROOT / "tests" / "slicer"))
    import shim

    shim.start()
    return shim.load_module(ROOT / "slicer_pinn" / "PINNPerfusion" / "PINNPerfusion.py")


class Busy:
    """The longest the event loop was away, with what the application was doing then (by the state of the run)."""

    def __init__(self, run) -> None:
        self.run, self.longest = run, {"running": 0.0, "other": 0.0}

    def spin(self) -> None:
        """Let Qt work until the run is over. Slots are timed in CPU seconds too: other users of the machine must not be measured."""
        import slicer

        while self.run.busy:
            state, begin = self.run.state, time.thread_time()
            slicer.app.processEvents()
            away = time.thread_time() - begin
            kind = "running" if state == "running" and self.run.state == "running" else "other"
            self.longest[kind] = max(self.longest[kind], away)
            time.sleep(0.002)


def apply(loaded, call, out: Path) -> tuple[tuple[float, float], tuple[float, float], float, Busy]:
    """((wall, CPU) of the command line alone, which writes to `out`, of Apply to maps, CPU s of the click itself, the event loop)."""
    command = [sys.executable, "-m", "pinn_engine", "asl", str(call.scan), "--out", str(out), "--device", "cpu", "--progress", "json"]
    if call.mask:
        command += ["--mask", str(call.mask)]
    alone = timed(lambda: subprocess.run(command, check=True, capture_output=True, cwd=ROOT))
    ui, logic = loaded.widget.ui, loaded.widget.logic
    ui.asl.setCurrentNode(logic.load(call.scan))
    if call.mask:
        ui.mask.setCurrentNode(logic.load(call.mask))
    ui.device.currentText = "cpu"
    busy, click = Busy(logic.run), [0.0]

    def work() -> None:
        begin = time.thread_time()
        ui.applyButton.click()
        click[0] = time.thread_time() - begin
        busy.spin()

    whole = timed(work)
    if logic.run.state != "done":
        raise SystemExit(f"the fit failed: {logic.run.message}")
    return alone, whole, click[0], busy


def memory(loaded, runs: int, out: Path) -> list[float]:
    """MB of this process after each of several runs of the same scan. The engine only hands out its earlier output: it is not measured."""
    logic, node = loaded.widget.logic, loaded.widget._parameterNode
    copy = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[sys.argv.index('--out') + 1])"
    logic.run.command = lambda arguments: [sys.executable, "-c", copy, str(out), *arguments]
    sizes = []
    for _ in range(runs):
        logic.processParameterNode(node, waitForCompletion=True)
        gc.collect()
        sizes.append(resident())
    return sizes


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    p.add_argument("--scan", type=Path, required=True, help="ASL series of a BIDS dataset, sub-X/perf/…_asl.nii.gz")
    p.add_argument("--mask", type=Path)
    p.add_argument("--runs", type=int, default=20, help="for memory")
    p.add_argument("--out", type=Path)
    call = p.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lines = ["# The Slicer extension over the command line", "", *[text for line in description() for text in (line, "")]]
    lines += ["`python -m benchmarks.slicer`: slicer-core 5.12.4.0 and the panel in the tests' shim; not the Slicer application.", ""]
    loaded = panel()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        alone, whole, click, busy = apply(loaded, call, out)
        sizes = memory(loaded, call.runs, out)
    over = [b - a for a, b in zip(alone, whole, strict=True)]
    turn, end = 1000 * busy.longest["running"], 1000 * busy.longest["other"]
    grown = sizes[-1] - sizes[2]
    lines += [
        "| bar | found | held |",
        "| --- | --- | --- |",
        f"| real scan, Apply to maps in the scene = fit + <= {OVERHEAD:.0f} s | command line alone {alone[0]:.1f} s wall / "
        f"{alone[1]:.1f} s CPU, Apply to maps {whole[0]:.1f} / {whole[1]:.1f}: {over[0]:+.1f} / {over[1]:+.1f} s | "
        f"{verdict(over[1] <= OVERHEAD)} |",
        f"| panel answers within {1000 * ANSWER:.0f} ms while a fit runs | longest turn of the event loop "
        f"{turn:.0f} ms | {verdict(turn <= 1000 * ANSWER)} |",
        f"| memory does not grow over {call.runs} runs | {sizes[0]:.0f} MB after the first, {sizes[2]:.0f} after the third, "
        f"{sizes[-1]:.0f} after the last: {grown:+.1f} MB in {call.runs - 3} runs | {verdict(grown <= GROWTH)} |",
        "",
        "Overhead and turns are judged in CPU seconds: wall times on a shared machine measure its other users. The click itself, which "
        f"writes the inputs, keeps the panel {1000 * click:.0f} ms; reading the maps at the end keeps it {end:.0f} ms.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if call.out:
        call.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
