"""Slicer's panel machinery without Slicer, for tests: PySide6 in PythonQt's manners over slicer-core's real scene.

`start()` puts `qt`, `ctk`, `slicer.app` and the base classes of scripted modules in place; `load_module(path)` loads a module
as the application would. With the environment variable SLICER_SOURCE (a checkout of Slicer) its own Python files are used
instead of our doubles. Pictures of such panels are pictures of this shim, not of Slicer.
"""

from .application import answers, errors, load_module, messages, new_scene, start, unload
from .qt_module import paths

__all__ = ["answers", "errors", "load_module", "messages", "new_scene", "paths", "start", "unload"]
