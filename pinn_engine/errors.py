"""The one exception that means "the input or the call is wrong" (exit code 2, one line, no traceback)."""

from __future__ import annotations

from os import PathLike


class InputError(Exception):
    """A fault in what the user gave us, told in one line: file, what is wrong, what was found, what to do.

    >>> str(InputError("scan.json", "PostLabelingDelay looks like milliseconds", found="1800", fix="give seconds"))
    'scan.json: PostLabelingDelay looks like milliseconds, found 1800; give seconds'
    """

    def __init__(self, where: str | PathLike[str], problem: str, *, found: object = None, fix: str = ""):
        self.where, self.problem, self.found, self.fix = str(where), problem, found, fix
        line = f"{where}: {problem}"
        if found is not None:
            line += f", found {found}"
        if fix:
            line += f"; {fix}"
        super().__init__(" ".join(line.split()))


def check_seed(where: str | PathLike[str], seed: int) -> None:
    """Raises InputError where NumPy's and torch's generators could not both take it."""
    if not 0 <= seed < 2**63:
        raise InputError(where, "--seed is out of range", found=seed, fix="give a whole number from 0 to 2^63 - 1")
