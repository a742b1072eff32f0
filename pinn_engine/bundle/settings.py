"""What a bundle's run is asked for: the command line's options, by the command line's own table, and where data and results are."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from ..cli.study import ORGANS, options_parser
from ..cohort.one import Task
from ..cohort.study import Job, make_job
from ..errors import InputError

COMMANDS = {"asl": "pinn-engine asl", "cardiac": "pinn-engine cardiac fit"}
STUDY = ("dataset_dir", "output_dir", "participant_label", "session_label", "pattern", "truth_dir")
_EXPERIMENTS: dict[str, Any] = dict(DEFAULT_EXP_MGMT_SETTINGS)
_TRACKING = {key for one in _EXPERIMENTS.values() for key in one["configs"]}
CONFIG = {  # what else stands at the top of our configs, or is put there by MONAI
    *("_meta_", "imports", "bundle_root", "device", "settings", "dataset", "evaluator", "handlers", "inferer", "initialize", "finalize"),
    *("key_metric", "additional_metrics", "network_def", "postprocessing", "preprocessing", "run", "workflow_type"),
} | _TRACKING


def options(organ: str) -> dict[str, argparse.Action]:
    """The options of the organ's command by their key: `--label-duration` is label_duration."""
    actions = options_parser(ORGANS[organ], COMMANDS[organ])._actions
    flags = {next(one for one in action.option_strings if one.startswith("--")): action for action in actions}
    return {flag[2:].replace("-", "_"): action for flag, action in flags.items()}


class Settings:
    """`values`: options of the organ's command and the study's keys (STUDY), None = not given; raises InputError for any other key."""

    def __init__(self, organ: str, values: Mapping[str, Any] | None = None):
        self.organ = organ
        self.values = {key: value for key, value in (values or {}).items() if value is not None}
        known = options(organ)
        refuse_unknown(self.values, {*known, *STUDY})
        words = [text for key, action in known.items() if key in self.values for text in spelt(action, self.values[key])]
        self.call = options_parser(ORGANS[organ], COMMANDS[organ]).parse_args(words)

    @classmethod
    def of(cls, organ: str, given: Settings | Mapping[str, Any] | None) -> Settings:
        """As given, or made of values."""
        return given if isinstance(given, Settings) else cls(organ, given)

    def job(self, id: str, image: str, where: str, out: str, truth: Mapping[str, str] | None = None) -> Job:
        """What the command line would run for this input, placed in a study's folder."""
        task = ORGANS[self.organ].task(self.call, image, "")
        return make_job(id, where, out, replace(task, truth=dict(truth or {}), keep=bool(truth)))

    @cached_property
    def task(self) -> Task:
        """The same of no input: how it would be read and fitted."""
        return ORGANS[self.organ].task(self.call, self.organ, "")

    @cached_property
    def device(self) -> torch.device:
        """What the fit will run on."""
        if self.organ == "cardiac":
            return torch.device("cpu")  # hearts factorise sparse matrices there, whatever holds the movie
        from ..device import resolve_device

        return torch.device(resolve_device(self.call.device))

    def path(self, key: str) -> str | None:
        """A path or label as text: Fire makes a number of 10 and of 1e5."""
        value = self.values.get(key)
        return None if value is None else str(value)

    def labels(self, key: str) -> list[str]:
        """`01`, `01,02`, 7 or [1, 2] as texts."""
        value = self.values.get(key)
        parts = [] if value is None else list(value) if isinstance(value, list | tuple) else str(value).split(",")
        return [str(part).strip() for part in parts]


def spelt(action: argparse.Action, value: Any) -> list[str]:
    """The words of a command line that say `value`."""
    flag = next(o for o in action.option_strings if o.startswith("--"))
    if action.nargs == 0:  # --spatial, --no-spatial
        if not isinstance(value, bool):
            raise InputError(flag, "must be true or false", found=repr(value), fix="give True or False")
        if value:
            return [flag]
        return ["--no-" + flag[2:]] if isinstance(action, argparse.BooleanOptionalAction) else []
    if isinstance(value, bool):
        raise InputError(flag, "needs a value", found=value, fix=f"give --{flag[2:]} and a value")
    if isinstance(value, list | tuple):
        value = ",".join(str(part) for part in value)
    return [f"{flag}={value}"]


def refuse_unknown(given: Mapping[str, Any], known: set[str]) -> None:
    """InputError for a key that means nothing, naming the nearest that does; keys that begin with `_` are the user's own."""
    for key in given:
        if key not in known and not key.startswith("_"):
            near = get_close_matches(key, sorted(known), 1, 0.5)
            fix = f"did you mean {near[0]}?" if near else f"give one of {', '.join(sorted(known))}"
            raise InputError(f"--{key}", "no such key", fix=fix)


def settings(organ: str) -> Settings:
    """The settings in the config that is being evaluated; its top-level keys are checked. For expressions in our configs only.

    MONAI takes any `--key value` and hands expressions no view of what it was given, so that a mistyped key would do nothing, silently:
    hence the look at the parser that called us.
    """
    with one_line():
        parser = _calling_parser()
        config = parser.get() or {}
        known = {*options(organ), *STUDY}
        refuse_unknown(config, known | CONFIG)
        return Settings(organ, {key: parser.get_parsed_content(key) for key in config if key in known})


def _calling_parser() -> ConfigParser:
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(owner := frame.f_locals.get("self"), ConfigParser):
            return owner
        frame = frame.f_back
    raise RuntimeError("settings() is for expressions in a bundle's config; elsewhere make Settings(organ, values)")


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """A fault of the call or the input ends the run with one line and exit code 2, not with MONAI's pages of expressions."""
    try:
        yield
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
