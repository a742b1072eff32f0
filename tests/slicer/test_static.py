"""L0: what can be known of the extension from its files alone. Needs neither Slicer nor Qt."""

import ast
import json
import re
import struct
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "slicer_pinn"
MODULES = sorted(path.parent for path in EXTENSION.glob("*/CMakeLists.txt"))
PANELS = sorted(EXTENSION.glob("*/Resources/UI/*.ui"))
SOURCES = sorted(EXTENSION.rglob("*.py"))
HEAVY = {"torch", "scipy", "nibabel", "matplotlib", "SimpleITK", "monai", "pinn_engine", "PyTorchUtils", "SampleData", "pydicom"}
MADE_BY_HAND = {EXTENSION / "icons.py"}  # draws the icons; not part of the package
SCHEMA = {  # of a catalogue entry, version 1.0.2
    "type": "object",
    "required": ["$schema", "category", "scm_url"],
    "additionalProperties": False,
    "properties": {
        **{
            name: {"type": "string"}
            for name in ("$schema", "category", "scm_url", "scm_revision", "dicom_support_rule", "build_subdirectory")
        },
        "scm_type": {"enum": ["git", "local"]},
        "build_dependencies": {"type": "array", "items": {"type": "string"}},
        "enabled": {"type": "boolean"},
        "tier": {"type": "integer", "minimum": 1, "maximum": 5},
    },
}


def listed(module):
    """Files that a module's CMakeLists.txt names, variables filled in."""
    text = (module / "CMakeLists.txt").read_text("utf-8").replace("${MODULE_NAME}", module.name)
    return {word for word in re.findall(r"[\w./-]+\.(?:py|ui|png|txt)", text) if (module / word).suffix}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_cmake_lists_every_file_and_no_other(module):
    """A file that is not listed is missing after installation."""
    present = {path.relative_to(module).as_posix() for path in module.rglob("*") if path.suffix in (".py", ".ui", ".png", ".txt")}
    present -= {path for path in present if path.startswith("Testing/") or "__pycache__" in path or path == "CMakeLists.txt"}
    assert listed(module) - {"CMakeLists.txt"} == present


def test_cmake_builds_every_module():
    named = re.findall(r"add_subdirectory\((\w+)\)", (EXTENSION / "CMakeLists.txt").read_text("utf-8"))
    assert sorted(named) == [path.name for path in MODULES]
    assert "add_subdirectory(slicer_pinn)" in (ROOT / "CMakeLists.txt").read_text("utf-8")


def test_the_engine_is_shipped():
    text = (EXTENSION / "PINNCommon" / "CMakeLists.txt").read_text("utf-8")
    target = re.search(r"set\(ENGINE \$\{CMAKE_CURRENT_SOURCE_DIR\}/(\S+)\)", text)[1]
    assert ((EXTENSION / "PINNCommon") / target / "__init__.py").resolve() == (ROOT / "pinn_engine" / "__init__.py").resolve()
    assert text.count("PINNCommonLib/engine") == 2  # build tree and package


def test_catalogue_entry_agrees_with_cmake():
    jsonschema = pytest.importorskip("jsonschema", reason='pip install ".[slicer-test]"')
    entry = json.loads((EXTENSION / "PINN.json").read_text("utf-8"))
    jsonschema.validate(entry, SCHEMA)
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert "project(PINN)" in cmake
    assert re.search(r'EXTENSION_DEPENDS "([^"]*)"', cmake)[1].split() == entry["build_dependencies"]
    assert {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"} <= set(re.findall(r"EXTENSION_(\w+)", cmake))


@pytest.mark.parametrize("panel", PANELS, ids=lambda path: path.stem)
def test_ui_gives_every_selector_its_scene(panel):
    """Without the connection in the .ui a selector stays grey."""
    root = ET.parse(panel).getroot()
    needing = {one.get("name") for one in root.iter("widget") if one.get("class", "").startswith("qMRML")} - {
        root.find("widget").get("name")
    }
    wired = {one.findtext("receiver") for one in root.iter("connection") if one.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"}
    assert root.find("widget").get("class") == "qMRMLWidget"
    assert needing == wired


@pytest.mark.parametrize("panel", PANELS, ids=lambda path: path.stem)
def test_ui_names_are_parameters(panel):
    tree = ast.parse((panel.parents[2] / f"{panel.stem}.py").read_text("utf-8"))
    wrapped = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == f"{panel.stem}ParameterNode")
    parameters = {one.target.id for one in wrapped.body if isinstance(one, ast.AnnAssign)}
    root = ET.parse(panel).getroot()
    bound = [one.findtext("string") for one in root.iter("property") if one.get("name") == "SlicerParameterName"]
    assert len(bound) == len(set(bound))
    assert set(bound) <= parameters
    names = [one.get("name") for one in root.iter("widget")]
    assert len(names) == len(set(names))
    used = set(re.findall(r"\bui\.(\w+)", (panel.parents[2] / f"{panel.stem}.py").read_text("utf-8")))
    assert used <= set(names)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources(source):
    """Short, for Python 3.12, nothing heavy when a module is loaded, no Qt signals of our own, nothing that only Qt 5 has."""
    text = source.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text, feature_version=(3, 12))
    compile(tree, str(source), "exec")
    if source in MADE_BY_HAND:
        return
    at_load = {name.split(".")[0] for name in imports_at_load(tree)}
    assert not at_load & HEAVY
    assert at_load <= set(sys.stdlib_module_names) | {"slicer", "qt", "ctk", "vtk", "numpy", ""} | libraries()
    assert not re.search(r"qt\.(Signal|QTextCodec|QRegExp|QDesktopWidget)\b", text)


def libraries():
    return {path.name for path in EXTENSION.glob("*/*Lib")}


def imports_at_load(tree):
    """Names imported outside of functions."""
    found, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("" if node.level else node.module)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return found


def test_the_check_of_imports_sees_what_it_should():
    tree = ast.parse("class A:\n    import torch\n\ndef f():\n    import scipy\n\nif True:\n    from nibabel import x\n")
    assert imports_at_load(tree) == {"torch", "nibabel"}


def test_requirements_agree_with_the_engine_and_spare_what_is_slicers():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11

    text = (EXTENSION / "PINNCommon" / "PINNCommonLib" / "requirements.txt").read_text("utf-8")
    asked = {re.match(r"[\w.-]+", line)[0]: line for line in text.splitlines() if line and not line.startswith("#")}
    engine = {
        re.match(r"[\w.-]+", line)[0]: line
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    }
    assert set(asked) == set(engine) - {"numpy", "vtk", "SimpleITK"}
    assert all(asked[name] == engine[name] for name in asked)


@pytest.mark.parametrize("icon", [*sorted(EXTENSION.rglob("Icons/PINN*.png")), EXTENSION / "PINN.png"], ids=lambda path: path.stem)
def test_icons_are_128_pixels(icon):
    head = icon.read_bytes()[:24]
    assert head[:4] == b"\x89PNG"
    assert struct.unpack(">2I", head[16:24]) == (128, 128)
