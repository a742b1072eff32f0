"""What the engine needs in Slicer's Python: check, ask, install, report. Nothing is installed before the first fit.

The engine itself travels with the extension and is not installed. torch comes through the PyTorch extension, which picks the build for the
graphics card. numpy, vtk and SimpleITK are Slicer's own: a constraint keeps pip from exchanging them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import engine

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SLICERS_OWN = ("numpy", "vtk", "SimpleITK")


class NotInstalled(Exception):
    """Why the engine cannot run, in one sentence; nothing is broken, the installation can be repeated."""


@dataclass(frozen=True)
class Requirement:
    """`name` and its bounds as written, such as >=2.8,<2.14."""

    name: str
    bounds: str

    def __str__(self) -> str:
        return self.name + self.bounds

    def met_by(self, version: str | None) -> bool:
        if version is None:
            return False
        checks = {">=": lambda a, b: a >= b, "<": lambda a, b: a < b}
        pairs = re.findall(r"(>=|<)\s*([\d.]+)", self.bounds)
        return all(checks[sign](_numbers(version), _numbers(bound)) for sign, bound in pairs)


def requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    matches = (re.fullmatch(r"([\w.-]+)\s*(.*)", line) for line in lines if line)
    return [Requirement(match[1], match[2]) for match in matches if match]


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class InstallLogic:
    """Every way into the world outside can be replaced: `installed(name) -> version`, `ask(sentence) -> bool`, `pip(arguments)`,
    `torch(bounds)`; the last two raise NotInstalled."""

    def __init__(
        self,
        installed: Callable[[str], str | None] = installed_version,
        ask: Callable[[str], bool] | None = None,
        pip: Callable[[Sequence[str]], None] | None = None,
        torch: Callable[[str], None] | None = None,
    ) -> None:
        self.installed = installed
        self.ask = ask or _ask
        self.pip = pip or _pip
        self.torch = torch or _torch

    def missing(self) -> list[Requirement]:
        """In the order of installation. Empty where the user gave a Python of his own for the engine."""
        if engine.uses_own_python():
            return []
        return [one for one in requirements() if not one.met_by(self.installed(one.name))]

    def report(self) -> str:
        missing = self.missing()
        if missing:
            return "To be installed at the first fit: " + ", ".join(map(str, missing))
        if engine.uses_own_python():
            return f"The engine runs in {engine.python()}"
        return "All that the engine needs is installed"

    def install(self) -> None:
        """Ask once, then install what is missing. Raises NotInstalled with a sentence; it can be called again."""
        missing = self.missing()
        if not missing:
            return
        names = ", ".join(map(str, missing))
        if not self.ask(f"The fit needs {names}. Install into Slicer's Python now? This needs a network and may take minutes."):
            raise NotInstalled(f"Not installed: {names}. Press Apply again to install.")
        for one in missing:
            if one.name == "torch":
                self._install_torch(one)
        others = [str(one) for one in missing if one.name != "torch"]
        if others:
            with tempfile.TemporaryDirectory(prefix="pinn-") as folder:
                held = Path(folder) / "slicers-own.txt"
                held.write_text("\n".join(self._constraints()) + "\n", encoding="utf-8")
                self.pip([*others, "--only-binary", ":all:", "--constraint", str(held)])
        left = self.missing()
        if left:
            raise NotInstalled(f"Still missing after the installation: {', '.join(map(str, left))}. Restart Slicer and try again.")

    def _install_torch(self, needed: Requirement) -> None:
        """The PyTorch extension does not exchange a torch that is there: a person must, since other modules may want it."""
        found = self.installed("torch")
        if found is not None:
            how = "uninstall it in the PyTorch Utils module, restart Slicer and press Apply again"
            raise NotInstalled(f"PyTorch {found} is installed, {needed} is needed: {how}.")
        self.torch(needed.bounds)

    def _constraints(self) -> list[str]:
        """Slicer's own packages at the versions they have, where pip knows of them."""
        held = [(name, self.installed(name)) for name in SLICERS_OWN]
        return [f"{name}=={version}" for name, version in held if version is not None]


def _ask(sentence: str) -> bool:
    import slicer

    return bool(slicer.util.confirmOkCancelDisplay(sentence, windowTitle="PINN"))


def _pip(arguments: Sequence[str]) -> None:
    import slicer

    try:
        slicer.util.pip_install(list(arguments))
    except Exception as error:
        reason = "behind a proxy set PIP_INDEX_URL, or PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder of wheels"
        raise NotInstalled(f"pip failed ({error}); {reason}, and press Apply again.") from error


def _torch(bounds: str) -> None:
    try:
        import PyTorchUtils
    except ImportError:
        raise NotInstalled("Install the PyTorch extension in the Extensions Manager, restart Slicer and press Apply again.") from None
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=bounds)
    except Exception as error:
        raise NotInstalled(f"The PyTorch extension could not install torch{bounds}: {error}") from error
    if torch is None:
        raise NotInstalled("PyTorch was not installed. Press Apply again to install it.")


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 8) of 2.8.0+cpu: without trailing zeros, so that 2.8 >= 2.8.0."""
    found = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # type: ignore[index]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)
