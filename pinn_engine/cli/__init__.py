"""The command line: `pinn-engine asl|cardiac|bids|cohort|phantom|demo …`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from .. import __version__
from ..errors import InputError

STOPPED = 130  # as shells report a run ended by Ctrl-C


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a call in one line, exit 2. Options are spelt out: an abbreviation may mean another one tomorrow."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def parse_known_args(self, args=None, namespace=None):
        """Options that this very command does not know are its fault, unless it keeps them for others (`others` among its defaults)."""
        found, rest = super().parse_known_args(args, namespace)
        if rest and not hasattr(found, "others"):
            near = get_close_matches(rest[0].partition("=")[0], self._option_string_actions, 1)
            self.error(f"unrecognized arguments: {' '.join(rest)}" + (f" (did you mean {near[0]}?)" if near else ""))
        return found, rest

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(2)


def parser() -> Parser:
    """All commands; each module adds its own."""
    from . import demo, heart, perfusion, phantom, study

    top = Parser(
        prog="pinn-engine", description="Physics-informed neural networks that fit perfusion and cardiac models, with uncertainty."
    )
    top.add_argument("--version", action="version", version=f"pinn-engine {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (perfusion, heart, study, phantom, demo):
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a fault of ours, 2 bad input or call, 3 some subjects failed, 130 stopped."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        call, call.others = parser().parse_known_args(arguments)
        return call.run(call)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped: files under their final names are whole; run again to finish\n")
        return STOPPED


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
