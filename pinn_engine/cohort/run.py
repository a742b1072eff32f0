"""Run a study: one after the other in this process, over processes, or on a Dask cluster; the same ledger, hence the same files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .ledger import Ledger, Result
from .one import Progress
from .study import Job

Workers = Callable[[int], Mapping[str, str]]


@dataclass(frozen=True)
class Way:
    """How the jobs are run. `processes` 1: in this process. `cluster`: "", "dask" (local, or a given scheduler) or "slurm"."""

    processes: int = 1
    retry_failed: bool = False
    cluster: str = ""
    scheduler: str | None = None  # address of a Dask scheduler that runs
    slurm: Mapping[str, str] = field(default_factory=dict)
    environment: Workers = lambda number: {}


def run_study(jobs: Sequence[Job], ledger: Ledger, way: Way, progress: Progress | None = None) -> list[Result]:
    """Every job's result, in the order of `jobs`. Jobs that a run died on before come last."""
    deaths = {job.id: ledger.begun(job) for job in jobs}
    ordered = sorted(jobs, key=lambda job: deaths[job.id])
    clock = _Clock(len(jobs), progress)
    for job in ordered:
        if deaths[job.id]:
            clock.say(f"{job.id}: {deaths[job.id]} run(s) ended abruptly while fitting it; it is taken last")
    results = {}
    for result in _results(ordered, ledger, way, clock):
        results[result.id] = result
        clock.count(result)
    return [results[job.id] for job in jobs]


def _results(jobs: Sequence[Job], ledger: Ledger, way: Way, clock: _Clock) -> Iterator[Result]:
    if way.cluster:
        from .cluster import run_cluster

        return run_cluster(jobs, ledger, way)
    if way.processes > 1:
        from .pool import run_processes

        return run_processes(jobs, ledger, way.processes, retry_failed=way.retry_failed, environment=way.environment)
    return _serial(jobs, ledger, way, clock)


def _serial(jobs: Sequence[Job], ledger: Ledger, way: Way, clock: _Clock) -> Iterator[Result]:
    busy = []
    for job in jobs:
        result = ledger.run(job, clock.part, retry_failed=way.retry_failed)
        if result.state == "busy":
            busy.append(job)
            clock.say(f"{job.id}: {result.message}")
        else:
            yield result
    for job in busy:
        yield ledger.run(job, clock.part, retry_failed=way.retry_failed, wait=True)


def gpus(device: str) -> int:
    """How many GPUs the workers may share out: 0 where the fit runs on the CPU."""
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


def one_gpu_each(count: int) -> Workers:
    """Worker k sees GPU k alone."""
    return lambda number: {"CUDA_VISIBLE_DEVICES": str(number % count)} if count else {}


def refuse_impossible(way: Way) -> None:
    """InputError for a way that cannot be gone."""
    if way.processes < 1:
        raise InputError("--nprocs", "must be at least 1", found=way.processes, fix="give the number of processes")
    if way.scheduler and way.cluster != "dask":
        raise InputError("--scheduler", "is for --cluster dask", found=way.cluster or "no --cluster", fix="add --cluster dask")
    if way.slurm and way.cluster != "slurm":
        raise InputError("--slurm", "is for --cluster slurm", found=way.cluster or "no --cluster", fix="add --cluster slurm")


class _Clock:
    """One bar for the whole study, with the time left: from the jobs that this run fitted."""

    def __init__(self, total: int, progress: Progress | None):
        self.total, self.progress = max(total, 1), progress
        self.done = self.failed = self.fitted = 0
        self.begin = time.monotonic()

    def count(self, result: Result) -> None:
        self.done += 1
        self.failed += result.state == "failed"
        self.fitted += not result.again
        self._tell(0.0)

    def part(self, stage: str, done: float, message: str) -> None:
        """Of the one job in hand: reading, fitting, writing are taken as a tenth, eight tenths, a tenth."""
        begin, share = {"read": (0.0, 0.1), "fit": (0.1, 0.8)}.get(stage, (0.9, 0.1))
        self._tell(begin + share * done)

    def say(self, line: str) -> None:
        if self.progress:
            self.progress("note", self.done / self.total, line)

    def _tell(self, part: float) -> None:
        if self.progress and self.done + part < self.total + 1e-9:
            self.progress("study", min((self.done + part) / self.total, 1.0), self._words())

    def _words(self) -> str:
        words = f"{self.done} of {self.total} done" + (f", {self.failed} failed" if self.failed else "")
        if self.fitted and self.done < self.total:
            words += f", {_duration((time.monotonic() - self.begin) / self.fitted * (self.total - self.done))} left"
        return words


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
