"""Tests of the Slicer extension: the scene is slicer-core's real one, the panel runs in the shim. See docs/slicer.md."""

import importlib.util
import os

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
MISSING = [name for name in ("slicer_core", "PySide6") if importlib.util.find_spec(name) is None]
REASON = f'{" and ".join(MISSING)} not installed: pip install ".[slicer-test]"'


@pytest.fixture(scope="session")
def shim():
    """The started shim."""
    if MISSING:
        pytest.skip(REASON)
    import shim

    shim.start()
    return shim


@pytest.fixture
def scene(shim):
    """A new empty scene; what was shown or asked before is forgotten."""
    shim.messages.clear()
    shim.answers.clear()
    shim.paths.clear()
    shim.errors.clear()
    return shim.new_scene()
