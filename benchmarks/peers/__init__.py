"""Programs by others, run on the same data in the same run, each in an environment of its own.

An adapter `run_<peer>.py` is a script of the peer's environment: it reads one .npz, calls the peer, writes another .npz.
"""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TIME_LIMIT = 1800  # s for one run of a peer


class CannotRun(Exception):
    """Why a peer could not be run, in words for the table."""


@dataclass(frozen=True)
class Peer:
    name: str
    packages: tuple[str, ...]  # for pip, with the version that the figures are for; none: our own environment
    quoted: str = ""  # measured before, on another phantom (one thread); shown where the peer cannot be run
    checkout: str = ""  # environment variable with the folder of its source, for a peer that is not packaged
    source: str = ""  # where that source is, and which folder in it is imported
    module: str = ""


ASLTK = Peer(
    "asltk",
    ("asltk==1.1.3",),
    "quoted, another phantom: 244–388 voxels/s; noise-free GM CBF −45 % without unit correction; noisy GM CBF 26.2 / 29.6, ATT .360 s",
)
OSIPY = Peer(
    "osipy",
    ("numpy", "nibabel", "pydicom", "pydantic", "pyyaml"),
    "quoted, another phantom: 56,000 voxels/s; noise-free GM CBF +.06 %; noisy GM CBF 24.4 / 47.6, ATT .495 s",
    checkout="PEER_OSIPY",
    source="https://github.com/OSIPI/osipy",
    module="osipy",
)
VABY = Peer(
    "vaby",
    (
        *("setuptools<81", "numpy<2", "scipy", "six", "nibabel", "tensorflow-cpu==2.15.1", "tensorflow-probability==0.23.0"),
        *("vaby==0.2.0.post1", "vaby_avb==0.2.0.post1"),
    ),
    "quoted, another phantom: 3,958 voxels/s; noisy GM CBF 17.3 / 29.0, ATT .272 s; 95 % interval covers .945",
    checkout="PEER_VABY",
    source="https://github.com/physimals/vaby_models_asl",
    module="vaby_models_asl",
)
TORCH = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
DEEPXDE = Peer("deepxde", ("deepxde==1.15.0", TORCH), "quoted: about 15 s a voxel")
TORCHCOR = Peer("torchcor", ("torchcor==1.0.6", TORCH), "its README times GPUs only")
DIFFERENCES = Peer("differences", ())
OWN = Peer("own", ())


def cache() -> Path:
    """Where the environments of the peers are kept: never inside the repository."""
    return Path(os.environ.get("PEER_CACHE") or Path(tempfile.gettempdir()) / "pinn_engine_peers")


def run(peer: Peer, data: dict[str, Any], install: bool, adapter: str = "") -> dict[str, Any]:
    """What the peer's adapter (`run_<name>.py`, unless another is named) makes of `data`; CannotRun says why not."""
    python = _python(peer, install)
    environment = dict(os.environ) | {"PYTHONPATH": _source(peer, install)}
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        np.savez(given, **data)
        command = [str(python), str(HERE / f"run_{adapter or peer.name}.py"), str(given), str(made)]
        try:
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"stopped after {TIME_LIMIT} s") from None
        if done.returncode or not made.exists():
            raise CannotRun("it failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:200])
        with np.load(made) as result:
            return {name: result[name] for name in result.files}


def own(function: str, **arguments: Any) -> dict[str, Any]:
    """A function of benchmarks/work.py in a process of its own."""
    return run(OWN, {"call": np.void(pickle.dumps((function, arguments), protocol=5))}, False)


def _source(peer: Peer, install: bool) -> str:
    """The folder to import the peer from: a checkout that is named, or cloned beside its environment; ours for our own functions."""
    if not peer.checkout:
        return str(HERE.parents[1]) if not peer.packages else ""
    given = Path(os.environ.get(peer.checkout) or cache() / peer.name / "source")
    if not (given / peer.module).is_dir() and install and not os.environ.get(peer.checkout):
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", peer.source, str(given)], capture_output=True, check=False)
    if not (given / peer.module).is_dir():
        raise CannotRun(f"not packaged, and its source ({peer.source}) could not be fetched; ${peer.checkout} may name a checkout")
    return str(given)


def _python(peer: Peer, install: bool) -> Path:
    """The interpreter of the peer's environment, made where `install` allows it."""
    if not peer.packages:
        return Path(sys.executable)
    home = cache() / peer.name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = home / "ready"
    if not ready.exists():
        if not install:
            raise CannotRun("not installed; --peers installs it")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        done = subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.packages], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun("pip could not install it: " + (done.stderr.strip().splitlines() or [""])[-1][:200])
        ready.write_text("\n".join(peer.packages))
    return python
