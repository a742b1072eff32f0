"""The house rules: imports go down only, files stay short, and the package itself is light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pinn_engine"
ROOMS = ("core", "files", "asl", "report", "cohort", "cli")
FORBIDDEN = {  # room: what it must not import, within the package
    "core": {"files", "asl", "cardiac", "report", "cohort", "cli", "bundle", "errors"},
    "files": {"core", "asl", "cardiac", "report", "cohort", "cli", "bundle"},
    "asl": {"cardiac", "report", "cohort", "cli", "bundle"},
    "cardiac": {"asl", "report", "cohort", "cli", "bundle"},
    "report": {"cohort", "cli", "bundle"},
    "cohort": {"cli", "bundle"},
    "cli": {"bundle"},
}
LONGEST = 400


def imports(source: str, module: str) -> set[str]:
    """Absolute names of all that a module imports, at any depth: functions and `if TYPE_CHECKING` count too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def modules(room: str = "") -> dict[str, Path]:
    """Dotted name of each module; a package's __init__ counts as a module of that package."""
    root = PACKAGE / room
    return {".".join(["pinn_engine", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in sorted(root.rglob("*.py"))}


def offences(source: str, module: str) -> set[str]:
    room = module.split(".")[1]
    return {name for name in imports(source, module) if name.split(".")[0] == "pinn_engine" and set(name.split(".")[1:2]) & FORBIDDEN[room]}


def test_imports_go_down_only():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} <= set(FORBIDDEN) | {"bundle"}
    wrong = {}
    for room in ROOMS:
        assert modules(room)
        wrong |= {module: found for module, path in modules(room).items() if (found := offences(path.read_text(encoding="utf-8"), module))}
    assert not wrong


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("pinn_engine.core.fields", "from ..asl import curves", True),
        ("pinn_engine.core.fields", "import pinn_engine.files.nifti", True),
        ("pinn_engine.core.fields", "from .linear import solve_spd", False),
        ("pinn_engine.core.__init__", "from .. import asl", True),
        ("pinn_engine.core.__init__", "from .fields import MLP", False),
        ("pinn_engine.asl.phantom.make", "from ...files.grid import Grid", False),
        ("pinn_engine.asl.phantom.make", "def f():\n    from ...report import svg", True),
        ("pinn_engine.files.nifti", "from ..asl.scan import Scan", True),
        ("pinn_engine.files.nifti", "from ..errors import InputError", False),
        ("pinn_engine.asl.fit", "from ..cli.progress import reporter", True),
        ("pinn_engine.report.html", "from ..cohort.one import run_one", True),
        ("pinn_engine.report.html", "from ..asl.result import PerfusionFit", False),
        ("pinn_engine.cohort.one", "from pinn_engine import cli", True),
    ],
)
def test_the_check_sees_what_it_should(module, line, wrong):
    assert bool(offences(line, module)) == wrong


def test_the_core_imports_torch_and_nothing_else():
    allowed = {"pinn_engine", "torch", "__future__", *sys.stdlib_module_names}
    for module, path in modules("core").items():
        names = imports(path.read_text(encoding="utf-8"), module)
        sparse = {"numpy", "scipy"} if module == "pinn_engine.core.sparse_linear" else set()  # torch has no sparse factorisation
        assert {name.split(".")[0] for name in names} <= allowed | sparse, module
        assert {name.split(".")[1] for name in names if name.startswith("pinn_engine.")} <= {"core"}, module


@pytest.mark.parametrize("name", ["monai", "ignite"])
def test_only_the_bundle_imports(name):
    found = {
        module for module, path in modules().items() if name in {n.split(".")[0] for n in imports(path.read_text(encoding="utf-8"), module)}
    }
    assert found
    assert all(module.startswith("pinn_engine.bundle.") for module in found)


def test_no_file_is_long():
    for module, path in modules().items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, module


HEAVY = {
    "pinn_engine": {"torch", "numpy", "scipy", "nibabel", "SimpleITK", "vtk", "matplotlib", "monai", "pydicom", "dask"},
    "pinn_engine.core": {"scipy", "nibabel", "SimpleITK", "vtk", "matplotlib", "monai", "pydicom", "dask"},
    "pinn_engine.asl": {"SimpleITK", "vtk", "matplotlib", "monai", "pydicom", "dask"},
    "pinn_engine.cli": {"torch", "SimpleITK", "vtk", "matplotlib", "monai", "pydicom", "dask"},
}


@pytest.mark.parametrize("module", HEAVY)
def test_import_is_light(module):
    code = f"import {module}, sys; print(*(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout.split()
    assert not HEAVY[module] & set(loaded)
