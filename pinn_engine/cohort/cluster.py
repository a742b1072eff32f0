"""Jobs on dask.distributed: processes of this machine, a scheduler that already runs, or SLURM through dask-jobqueue."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError
from .ledger import Ledger, Result
from .run import Way
from .study import Job

TRIES = 3  # workers that a job may take down
MALLOC = {"MALLOC_TRIM_THRESHOLD_": None}  # not Dask's 64 KiB: every array would be mapped and given back, half of a fit's time
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}
SLURM = {"queue": None, "account": None, "walltime": "02:00:00", "memory": "8GB", "cores": "1", "gpus": None}  # option: its default


def run_cluster(jobs: Sequence[Job], ledger: Ledger, way: Way) -> Iterator[Result]:
    """Each job's result as it comes; a job that takes TRIES workers down fails alone."""
    _needed("distributed")
    import dask
    from distributed import Client, KilledWorker, as_completed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it prints every failure's traceback; we log our own
    with dask.config.set(settings()), contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(way.scheduler or stack.enter_context(_cluster(way)), timeout="30s"))
        asked = {
            client.submit(work_one, job, *ledger.place, way.retry_failed, key=f"{job.id}-{os.getpid()}", pure=False): job for job in jobs
        }
        for future in as_completed(asked):
            job = asked[future]
            if future.status == "finished":
                yield future.result()
                continue
            error = future.exception()
            why = (
                f"ended the worker that fitted it {TRIES} times" if isinstance(error, KilledWorker) else f"was lost by the cluster: {error}"
            )
            yield ledger.died(job, f"{job.task.input}: {why}")


def settings() -> dict[str, Any]:
    """What Dask is told of the workers it starts here: no job of ours kills more than TRIES, none chatters, each keeps its memory."""
    import dask

    given = dask.config.get("distributed.nanny.pre-spawn-environ")
    return {
        "distributed.scheduler.allowed-failures": TRIES - 1,
        "distributed.worker.daemon": True,
        "distributed.nanny.pre-spawn-environ": {**given, **MALLOC, **QUIET},
    }


def work_one(job: Job, out: str, work: str | None, retry_failed: bool) -> Result:
    """On a worker: the ledger is in the study's folder, which every worker sees."""
    return Ledger(out, work).run(job, retry_failed=retry_failed, wait=True)


def _cluster(way: Way):
    if way.cluster == "slurm":
        cluster = slurm_cluster(way.slurm)
        cluster.scale(jobs=way.processes)
        return cluster
    from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

    if any(way.environment(k) for k in range(way.processes)):  # each worker its own GPU
        workers = {
            k: {"cls": Nanny, "options": {"nthreads": 1, "env": dict(way.environment(k)), "local_directory": _scratch()}}
            for k in range(way.processes)
        }
        return SpecCluster(scheduler={"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}}, workers=workers)
    return LocalCluster(
        n_workers=way.processes,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
        local_directory=_scratch(),
        silence_logs=logging.CRITICAL,
    )


def slurm_cluster(options: Mapping[str, str]):
    """The dask-jobqueue cluster of --slurm queue=…,walltime=…; its `job_script()` is what sbatch gets."""
    _needed("dask_jobqueue")
    from dask_jobqueue import SLURMCluster

    asked = {name: options.get(name, default) for name, default in SLURM.items()}
    if unknown := set(options) - set(SLURM):
        raise InputError("--slurm", "has an unknown part", found=", ".join(sorted(unknown)), fix=f"use {', '.join(SLURM)}")
    try:
        cores = int(asked["cores"] or 1)
    except ValueError:
        raise InputError("--slurm", "cores is no number", found=asked["cores"], fix="give a whole number") from None
    directives = [f"--gres=gpu:{asked['gpus']}"] if asked["gpus"] else []
    return SLURMCluster(
        queue=asked["queue"],
        account=asked["account"],
        walltime=asked["walltime"],
        memory=asked["memory"],
        cores=1,  # of Dask: one subject at a time, which takes all the job's processors
        job_cpu=cores,
        processes=1,
        nanny=True,
        job_extra_directives=directives,
        job_script_prologue=[f"export OMP_NUM_THREADS={cores}", f'export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{MALLOC}"'],
        worker_extra_args=["--no-dashboard"],
        scheduler_options={"dashboard_address": None},
        local_directory=_scratch(),
        log_directory=None,
    )


def _scratch() -> str:
    import tempfile

    return tempfile.gettempdir()


def _needed(module: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise InputError("--cluster", f"needs {module}, which is not installed", fix="pip install 'pinn-engine[cluster]'")
