"""Everything else that `slicer` has in the application: `app`, `modules`, `mrmlScene`, message boxes, and the loader of modules."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from . import connectors, parameters, scripted, widgets
from .manners import SHIM, Manners, mannered
from .qt_module import QtModule


class Callbacks:
    """`connect("signal(args)", f)` for objects that are not widgets."""

    def __init__(self) -> None:
        self.connected: dict[str, list[Callable[..., None]]] = {}

    def connect(self, signal: str, function: Callable[..., None]) -> bool:
        self.connected.setdefault(signal, []).append(function)
        return True

    def disconnect(self, signal: str, function: Callable[..., None]) -> bool:
        self.connected[signal].remove(function)
        return True

    def emit(self, signal: str, *arguments: Any) -> None:
        for function in list(self.connected.get(signal, [])):
            function(*arguments)


class Environment(dict):
    """QProcessEnvironment as `slicer.util.startupEnvironment` uses it."""

    def value(self, name: str) -> str:
        return self[name]


class Application(Callbacks):
    """`slicer.app`."""

    applicationName, applicationVersion, majorVersion, minorVersion = "Slicer", "5.12.0", 5, 12
    documentationBaseUrl = "https://slicer.readthedocs.io/"

    def __init__(self) -> None:
        super().__init__()
        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["shim"])
        self.qt.setStyle("Fusion")
        self.temporaryPath = tempfile.gettempdir()
        self.slicerHome = tempfile.gettempdir()
        self.cursors: list[Any] = []
        self.testing = False
        self._modules = Callbacks()
        self._settings: dict[str, Any] = {}
        self.logic = slicer.vtkSlicerApplicationLogic()

    def processEvents(self, *ignored: Any) -> None:
        self.qt.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        self.cursors.append(cursor)

    def restoreOverrideCursor(self) -> None:
        self.cursors.pop()

    def testingEnabled(self) -> bool:
        return self.testing

    def moduleManager(self) -> Callbacks:
        return self._modules

    def startupEnvironment(self) -> Environment:
        return Environment(os.environ)

    def topLevelWidgets(self) -> list[Any]:
        return [widget for widget in self.qt.topLevelWidgets() if isinstance(widget, Manners)]

    def applicationLogic(self) -> Any:
        return self.logic

    def layoutManager(self) -> None:
        """No views here: code must cope, as it must in `Slicer --no-main-window`."""

    def settings(self) -> Any:
        return SimpleNamespace(value=lambda key, default=None: self._settings.get(key, default), setValue=self._settings.__setitem__)

    userSettings = settings

    def translate(self, context: str, text: str) -> str:
        return text

    def clipboard(self) -> Any:
        return self.qt.clipboard()


@dataclass
class Parent:
    """qSlicerScriptedLoadableModule: what a module's constructor fills in."""

    path: str
    title: str = ""
    categories: list[str] = field(default_factory=list)
    dependencies: list[str] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)
    helpText: str = ""
    acknowledgementText: str = ""
    icon: Any = None
    hidden: bool = False


@dataclass
class Loaded:
    """A loaded module: its Python module, the widget object, and the panel to look at."""

    python: ModuleType
    module: Any
    widget: Any
    panel: Any

    def grab(self, path: Path, width: int = 460) -> None:
        """Photograph the panel."""
        self.panel.resize(width, 10)
        self.panel.show()
        slicer.app.processEvents()
        self.panel.resize(width, max(self.panel.sizeHint().height(), 10))
        slicer.app.processEvents()
        QtWidgets.QWidget.grab(self.panel).save(str(path))


class Panel(widgets.qMRMLWidget):
    """What holds a module's widget; `isEntered` is asked when a scene is closed."""

    _plain = None
    isEntered = True


messages: list[tuple[str, dict[str, Any]]] = []  # what would have popped up
answers: list[Any] = []  # what the person will click next; OK where nothing is left
errors: list[BaseException] = []  # raised inside slots: Qt prints them and goes on


def message_box(text: str, parent: Any = None, **options: Any) -> Any:
    messages.append((text, options))
    return answers.pop(0) if answers else QtWidgets.QMessageBox.StandardButton.Ok


MODULE_LOGICS: list[Any] = []  # of the scene in use: the scene does not hold them


def new_scene() -> Any:
    """A new empty scene with the default colours, set as `slicer.mrmlScene`."""
    MODULE_LOGICS.clear()
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logic = slicer.app.logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    colors = logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())  # in the application the Colors module does it
    volumes = slicer.vtkSlicerVolumesLogic()
    volumes.SetMRMLApplicationLogic(logic)
    volumes.SetMRMLScene(scene)
    for module in (slicer.vtkSlicerSequencesLogic(), slicer.vtkSlicerSegmentationsModuleLogic()):  # they register their nodes
        module.SetMRMLApplicationLogic(logic)
        module.SetMRMLScene(scene)
        MODULE_LOGICS.append(module)
    if not scene.GetClassNameByTag("ColorLegendDisplay"):
        scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    slicer.modules.colors = SimpleNamespace(logic=lambda: colors)
    slicer.modules.volumes = SimpleNamespace(logic=lambda: volumes)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return scene


def load_module(path: str | Path, *, with_widget: bool = True) -> Loaded:
    """Import `Name.py`, make `Name(parent)` and `NameWidget(panel)` and call `setup()`, as the application does."""
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    python = importlib.util.module_from_spec(spec)
    sys.modules[name] = python
    spec.loader.exec_module(python)
    parent = Parent(str(path))
    setattr(slicer.modules, name.lower(), SimpleNamespace(path=str(path), logic=lambda: None, widgetRepresentation=lambda: panel))
    module = getattr(python, name)(parent)
    panel = Panel()
    QtWidgets.QVBoxLayout(panel)
    widget = None
    if with_widget:
        panel.setMRMLScene(slicer.mrmlScene)
        widget = getattr(python, f"{name}Widget")(panel)
        setattr(slicer.modules, f"{name}Widget", widget)
        widget.setup()
    return Loaded(python, module, widget, panel)


def unload(loaded: Loaded) -> None:
    slicer.app.moduleManager().emit("moduleAboutToBeUnloaded(QString)", loaded.module.moduleName)
    loaded.panel.deleteLater()
    slicer.app.processEvents()


class CtkModule(ModuleType):
    """`ctk`: the imitated widgets, and empty ones for the rest of the ctk* names."""

    def __getattr__(self, name: str) -> Any:
        if name in SHIM and name.startswith("ctk"):
            return SHIM[name]
        if name.startswith("ctk"):
            return widgets.anything(name)
        raise AttributeError(f"module 'ctk' has no attribute {name!r}")


class SampleDataLogic:
    """Remembers what was registered."""

    sources: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012  # shared on purpose: the real one is shared as well

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str | None = None) -> None:
        SampleDataLogic.sources.setdefault(category, [])

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **source: Any) -> None:
        SampleDataLogic.sources.setdefault(category, []).append(source)


def start() -> Application:
    """Put qt, ctk, SampleData and the missing parts of slicer in place; once per process."""
    if hasattr(slicer, "app"):
        return slicer.app
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.modules["qt"], sys.modules["ctk"] = QtModule("qt"), CtkModule("ctk")
    sys.modules["MRMLCorePython"] = importlib.import_module("slicer_core.MRMLCore")
    sample_data = ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    sys.modules["SampleData"] = sample_data
    _keep_booleans()
    slicer.app = Application()
    sys.excepthook = _remember_error
    slicer.modules = SimpleNamespace()
    slicer.util.messageBox = message_box
    slicer.__getattr__ = _qt_class_of_slicer
    _doubles()
    window = mannered(QtWidgets.QMainWindow)()
    QtCore.QObject.setObjectName(window, "qSlicerMainWindow")
    slicer.app.window = window
    new_scene()
    return slicer.app


def _qt_class_of_slicer(name: str) -> Any:
    """`slicer.qMRML…`, `slicer.qSlicer…`: imitated, or an empty widget; anything else is missing, as it is in slicer-core."""
    if name.startswith(("qMRML", "qSlicer")):
        return SHIM.get(name) or widgets.anything(name)
    raise AttributeError(f"module 'slicer' has no attribute {name!r}")


def _keep_booleans() -> None:
    """PySide6 6.12: signals and slots return a bool or None that they do not own, until Python (before 3.12) aborts."""
    for value in (True, False, None):
        for _ in range(100_000):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _remember_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    errors.append(error)
    sys.__excepthook__(kind, error, trace)


def _doubles() -> None:
    """Slicer's own Python where SLICER_SOURCE names a checkout, else ours."""
    source = os.environ.get("SLICER_SOURCE")
    if source:
        slicer.__path__.append(str(Path(source) / "Base" / "Python" / "slicer"))
        return
    wrapper = ModuleType("slicer.parameterNodeWrapper")
    for home in (parameters, connectors):
        wrapper.__dict__.update({name: value for name, value in vars(home).items() if not name.startswith("_")})
    i18n = ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = scripted.tr, scripted.translate  # type: ignore[attr-defined]
    for name, module in {"ScriptedLoadableModule": scripted, "parameterNodeWrapper": wrapper, "i18n": i18n}.items():
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


__all__ = ["Application", "Loaded", "answers", "errors", "load_module", "messages", "new_scene", "start", "unload"]
