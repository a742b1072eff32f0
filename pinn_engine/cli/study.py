"""`pinn-engine bids` and `pinn-engine cohort`: many subjects into one folder, none of them lost."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from .. import __version__
from ..cohort.one import DONE, SOME_FAILED
from ..errors import InputError
from . import Parser, heart, perfusion
from .perfusion import set_threads
from .progress import reporter

if TYPE_CHECKING:
    from ..cohort.run import Way

ORGANS: dict[str, ModuleType] = {"asl": perfusion, "cardiac": heart}
CAUTIONED = 10  # subjects whose cautions the terminal shows


def add(commands) -> None:
    b = commands.add_parser("bids", help="fit every perfusion scan of a BIDS dataset", description="A BIDS App: fit every ASL series.")
    b.add_argument("bids_dir", metavar="BIDS_DIR", help="root folder of the dataset")
    b.add_argument("out", metavar="OUT_DIR", help="folder for the derivatives")
    b.add_argument("level", choices=("participant", "group"), help="group: tables and a page of all finished subjects")
    b.add_argument("--participant-label", "--participant_label", nargs="+", default=[], metavar="X", help="with or without sub-")
    b.add_argument("--session-label", "--session_label", nargs="+", default=[], metavar="Y", help="with or without ses-")
    b.add_argument("--version", action="version", version=f"pinn-engine {__version__}")
    _add_way(b)
    perfusion.add_options(b)
    b.set_defaults(run=run_bids)
    c = commands.add_parser(
        "cohort",
        help="fit every row of a table",
        description="Fit every row of a table: columns id, input, any option names. Options given here hold where a row has none.",
        allow_abbrev=False,
        epilog="Any option of `pinn-engine asl` or `pinn-engine cardiac fit` may follow.",
    )
    c.add_argument("manifest", metavar="MANIFEST", help="CSV or TSV; paths are relative to its folder")
    c.add_argument("out", metavar="OUT_DIR")
    c.add_argument("--task", choices=tuple(ORGANS), required=True)
    _add_way(c)
    c.set_defaults(run=run_cohort, others=[])


def _add_way(p: argparse.ArgumentParser) -> None:
    way = p.add_argument_group("how the study is run")
    way.add_argument("--nprocs", type=int, metavar="N", help="number of processes (default: all in this one); with GPUs, one GPU each")
    way.add_argument("--shard", metavar="I/N", help="do only the I-th of N parts, as in job arrays; no coordination is needed")
    way.add_argument("--retry-failed", action="store_true", help="also try again what failed with these very inputs and options")
    way.add_argument("-w", "--work-dir", metavar="DIR", help="for locks and temporary files (default: OUT_DIR/logs/jobs and the system's)")
    way.add_argument("--cluster", choices=("dask", "slurm"), help="run on dask.distributed: this machine or --scheduler, or SLURM jobs")
    way.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://host:8786")
    way.add_argument("--slurm", metavar="K=V,…", default="", help="queue, account, walltime, memory, cores, gpus of each job")
    way.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")


def run_bids(call: argparse.Namespace) -> int:
    from ..cohort.group import write_dataset, write_group
    from ..cohort.ledger import Ledger
    from ..cohort.study import make_job
    from ..files.dataset import find_series
    from ..files.output import OutputFolder

    if call.level == "group":
        if not Path(call.out).is_dir():
            raise InputError(call.out, "the study's folder does not exist", fix="run the participant level first")
        print(f"wrote {write_group(Ledger(call.out))[-1]}")
        return DONE
    way = _way(call)
    if Path(call.out).resolve() == Path(call.bids_dir).resolve():
        fix = f"give another, such as {Path(call.out) / 'derivatives' / 'pinn_engine'}"
        raise InputError(call.out, "the study's folder is the dataset itself", fix=fix)
    series = find_series(call.bids_dir, call.participant_label, call.session_label)
    jobs = [make_job(one.id, one.where, call.out, perfusion.task(call, str(one.path), "")) for one in series]

    def prepare() -> None:
        write_dataset(OutputFolder(call.out), Path(os.path.abspath(call.bids_dir)), "pinn_engine perfusion maps")

    return _run(call, way, jobs, call.bids_dir, prepare)


def run_cohort(call: argparse.Namespace) -> int:
    from ..cohort.group import write_dataset, write_group
    from ..cohort.ledger import Ledger
    from ..cohort.manifest import read_manifest
    from ..cohort.study import make_job
    from ..files.output import OutputFolder

    organ = ORGANS[call.task]
    common = options_parser(organ, f"pinn-engine cohort --task {call.task}")
    asked = common.parse_args(call.others)  # a wrong option of the call is the call's fault, whatever the rows say
    call.device, call.threads, call.progress = asked.device, asked.threads, asked.progress
    way = _way(call)
    known = {option.removeprefix("--"): action for action in common._actions for option in action.option_strings if option.startswith("--")}
    left_out = {"help", "device", "threads", "progress"}
    jobs = []
    for row in read_manifest(call.manifest, set(known) - left_out):
        words = [word for name, value in row.options.items() for word in _words(known[name], name, value, Path(call.manifest).parent)]
        asked = options_parser(organ, f"{call.manifest}: line {row.line}").parse_args([*call.others, *words])
        jobs.append(make_job(row.id, row.id, call.out, organ.task(asked, row.input, "")))

    def prepare() -> None:
        if call.task == "asl":
            write_dataset(OutputFolder(call.out), None, "pinn_engine perfusion maps")

    code = _run(call, way, jobs, call.manifest, prepare)
    if not call.dry_run and call.shard is None and any(result.state == "done" for result in Ledger(call.out).results()):
        print(f"wrote {write_group(Ledger(call.out))[-1]}")
    return code


class _Options(Parser):
    """The fit's options alone; a fault is told as of the place where the options stand."""

    def error(self, message: str) -> NoReturn:
        raise InputError(self.prog, message, fix="see pinn-engine asl --help or pinn-engine cardiac fit --help")


def options_parser(organ: ModuleType, where: str) -> argparse.ArgumentParser:
    """Of the organ's options alone; raises InputError as of `where`."""
    p = _Options(prog=where, add_help=False)
    organ.add_options(p)
    return p


def _words(action: argparse.Action, name: str, value: str, home: Path) -> list[str]:
    """A cell as words of a command line; files are relative to the manifest's folder."""
    if isinstance(action, argparse.BooleanOptionalAction):
        if value.lower() not in ("true", "false"):
            raise InputError("the manifest", f"{name} is neither true nor false", found=value, fix="write true or false")
        positive = name.removeprefix("no-")
        return [f"--{positive}" if (value.lower() == "true") == (name == positive) else f"--no-{positive}"]
    if any(word in str(action.metavar) for word in ("FILE", "IMAGE", "FOLDER")) and "\0" not in value and (home / value).exists():
        value = str(home / value)
    return [f"--{name}={value}"]


def _way(call: argparse.Namespace) -> Way:
    """How the call wants its study run; InputError where that is impossible, before anything is read."""
    from ..cohort.run import Way, gpus, one_gpu_each, refuse_impossible

    slurm = _pairs(call.slurm)
    cards = gpus(call.device) if (call.nprocs or 1) > 1 and call.cluster != "slurm" else 0
    cores = call.threads or max((os.cpu_count() or 1) // (call.nprocs or 1), 1)

    def environment(number: int) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(cores), **one_gpu_each(cards)(number)}

    processes = min(call.nprocs or 1, cards) if cards else call.nprocs if call.nprocs is not None else 1
    way = Way(processes, call.retry_failed, call.cluster or "", call.scheduler, slurm, environment)
    refuse_impossible(way)
    return way


def _run(call: argparse.Namespace, way: Way, jobs: Sequence, source: str, prepare: Callable[[], None]) -> int:
    from ..cohort.ledger import Ledger
    from ..cohort.run import run_study
    from ..cohort.study import refuse_doubles, shard

    set_threads(call.threads)
    refuse_doubles(jobs, source)
    if call.shard:
        jobs = shard(jobs, call.shard)
    if call.dry_run:
        return _plan(jobs, call, way)
    ledger = Ledger(call.out, call.work_dir)
    if call.work_dir:
        os.environ["TMPDIR"] = str(ledger.work.path)  # workers inherit it
        import tempfile

        tempfile.tempdir = None
    prepare()
    results = run_study(jobs, ledger, way, reporter(call.progress))
    return _tell(results)


def _plan(jobs: Sequence, call: argparse.Namespace, way: Way) -> int:
    """What would be done, a line a job; the SLURM job's script where one is asked for."""
    from ..cohort.ledger import Ledger

    there = Path(call.out).is_dir()
    ledger = Ledger(call.out) if there else None
    states = [ledger.state(job)[0] if ledger else "new" for job in jobs]
    width = max((len(job.id) for job in jobs), default=2)
    for job, state in zip(jobs, states, strict=True):
        print(f"{job.id:<{width}}  {state:<8}{job.task.input}")
    rerun = sum(state in ("new", "changed") or (state == "failed" and call.retry_failed) for state in states)
    print(f"{len(jobs)} job(s), {rerun} to do")
    if call.cluster == "slurm":
        from ..cohort.cluster import slurm_cluster

        with slurm_cluster(way.slurm) as cluster:
            print(cluster.job_script())
    return DONE


def _tell(results: Sequence) -> int:
    """The table at the end: what failed and why, then the counts and what calls for care."""
    failed = [result for result in results if result.state != "done"]
    doubtful = [result for result in results if result.state == "done" and result.cautions]
    again = sum(result.again for result in results if result.state == "done")
    width = max((len(result.id) for result in failed), default=0)
    for result in failed:
        sys.stderr.write(f"failed: {result.id:<{width}}  {result.message}\n")
    done = len(results) - len(failed)
    print(f"{done} of {len(results)} done" + (f" ({again} before)" if again else "") + (f", {len(failed)} failed" if failed else ""))
    for result in doubtful[:CAUTIONED]:
        for caution in result.cautions:
            print(f"caution: {result.id}  {caution}")
    if len(doubtful) > CAUTIONED:
        print(f"caution: {len(doubtful) - CAUTIONED} more subjects have cautions; index.html lists all (bids: after the group level)")
    if any(result.again for result in failed):
        print("what failed before with these very inputs and options was not tried again: --retry-failed does")
    return SOME_FAILED if failed else DONE


def _pairs(text: str) -> dict[str, str]:
    """`queue=short,walltime=01:00:00` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if wrong := [name for name, equals, value in pairs if not (equals and name.strip() and value.strip())]:
        raise InputError("--slurm", "is no list of name=value", found=wrong[0], fix="write queue=short,walltime=01:00:00")
    return {name.strip(): value.strip() for name, _, value in pairs}
