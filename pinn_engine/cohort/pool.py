"""Jobs over processes of this machine. A process may die, however it does: its job is tried once more, the others never notice."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from .ledger import Ledger, Result
from .study import Job

TRIES = 3  # how often a job may take its process down


@dataclass
class Worker:
    process: Any
    line: Connection
    number: int
    job: Job | None = None


def serve(line: Connection, alive: Connection, out: str, work: str | None, retry_failed: bool, environment: Mapping[str, str]) -> None:
    """A worker's life: jobs in, results out, until the line closes. It ends with the process that began it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    ledger = Ledger(out, work)
    while True:
        try:
            job, patient = line.recv()
            line.send(ledger.run(job, retry_failed=retry_failed, wait=patient))
        except (EOFError, OSError):
            return


def _end_with_parent(alive: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)  # files under their final names are whole at any moment


def run_processes(
    jobs: Sequence[Job],
    ledger: Ledger,
    count: int,
    *,
    retry_failed: bool = False,
    environment: Callable[[int], Mapping[str, str]] = lambda number: {},
) -> Iterator[Result]:
    """Each job's result as it comes. `environment(k)`: variables of worker k, such as the GPU it owns."""
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch or CUDA hangs
    waiting, patient, strikes = deque(jobs), deque[Job](), Counter[str]()
    alive, kept = context.Pipe(duplex=False)
    workers: list[Worker] = []

    def start(number: int) -> Worker:
        ours, theirs = context.Pipe()
        arguments = (theirs, alive, *ledger.place, retry_failed, dict(environment(number)))
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours, number)

    def employ(worker: Worker) -> None:
        queue = waiting or patient  # what another run is fitting comes last, and is then waited for
        worker.job = queue.popleft() if queue else None
        if worker.job is not None:
            with contextlib.suppress(OSError):  # it died while idle: seen below, the job is given again
                worker.line.send((worker.job, queue is patient))

    try:
        workers = [start(number) for number in range(min(count, max(len(jobs), 1)))]
        for worker in workers:
            employ(worker)
        while any(worker.job for worker in workers):
            wait([w.line for w in workers if w.job] + [w.process.sentinel for w in workers if w.job])
            for at, worker in enumerate(workers):
                job = worker.job
                if job is None:
                    continue
                try:
                    result = worker.line.recv() if worker.line.poll() else None
                except (EOFError, OSError):
                    result = None
                if result is not None:
                    if result.state == "busy":
                        patient.append(job)
                    else:
                        yield result
                elif not worker.process.is_alive():
                    strikes[job.id] += 1
                    how = _how(worker.process.exitcode)
                    if strikes[job.id] < TRIES:
                        waiting.append(job)
                    else:
                        yield ledger.died(job, f"{job.task.input}: ended the process that fitted it {TRIES} times ({how})")
                    worker.line.close()
                    workers[at] = worker = start(worker.number)
                else:
                    continue
                employ(worker)
            for worker in workers:  # a job that came back to the queue while others were idle
                if worker.job is None and (waiting or patient):
                    employ(worker)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.line.close()
        alive.close()
        kept.close()


def _how(code: int | None) -> str:
    if code == -9:
        return "killed: most often for want of memory; try it alone with fewer --threads, or on a larger machine"
    return f"signal {-code}" if code is not None and code < 0 else f"exit {code}"
