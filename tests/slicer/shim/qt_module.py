"""The module `qt` as Slicer has it: all Q* names in one place, QObjects with PythonQt's manners."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from .manners import SHIM, Manners, is_object_class, mannered

HOMES = (QtCore, QtGui, QtWidgets)


paths: list[str] = []  # what the person will choose in the next file dialogs; nothing: Cancel


class FileDialog:
    """`qt.QFileDialog`: PythonQt returns the path alone, and no window opens here."""

    @staticmethod
    def getOpenFileName(*ignored: Any) -> str:
        return paths.pop(0) if paths else ""

    getExistingDirectory = getSaveFileName = getOpenFileName


class QtModule(ModuleType):
    """Looks a name up when it is asked for; what Qt does not have raises AttributeError, as in Slicer."""

    def __getattr__(self, name: str) -> Any:
        if name == "QUiLoader":
            return UiLoader
        if name == "QFileDialog":
            return FileDialog
        if name == "Signal":
            raise AttributeError("qt.Signal crashes Slicer: use a plain Python list of callbacks")
        for home in HOMES:
            if name.startswith("Q") and hasattr(home, name):
                found = getattr(home, name)
                return mannered(found) if is_object_class(found) else found
        raise AttributeError(f"module 'qt' has no attribute {name!r}")


class _Builder(QtUiTools.QUiLoader):
    """Makes our classes, and refuses those it does not know instead of leaving a grey rectangle."""

    def __init__(self, widget_class: Any):
        super().__init__()
        self.widget_class = widget_class
        self.made: list[QtWidgets.QWidget] = []  # PySide would otherwise forget our half of each object
        self.unknown: list[str] = []

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        kind = self.widget_class(class_name)
        if kind is None:
            self.unknown.append(class_name)
            return super().createWidget("QWidget", parent, name)
        widget = kind(parent)
        QtCore.QObject.setObjectName(widget, name)
        self.made.append(widget)
        return widget


class UiLoader:
    """`qt.QUiLoader().load(file)`: the widget tree with the file's connections made."""

    def load(self, file: Any, parent: Any = None) -> Any:
        path = QtCore.QFile.fileName(file) if isinstance(file, QtCore.QFile) else str(file)
        tree = ET.parse(path)
        root = tree.getroot()
        connections = root.find("connections")
        for tag in ("customwidgets", "connections"):
            for part in root.findall(tag):
                root.remove(part)
        builder = _Builder(_widget_class)
        data = QtCore.QBuffer()
        data.setData(ET.tostring(root))
        data.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        Manners._loading = True
        try:
            top = builder.load(data, parent)
        finally:
            Manners._loading = False
        if top is None or builder.unknown:
            raise RuntimeError(f"{path}: {builder.errorString() or 'unknown widgets ' + ', '.join(builder.unknown)}")
        by_name = {QtCore.QObject.objectName(widget): widget for widget in builder.made}
        _check_properties(root, by_name, path)
        for connection in connections if connections is not None else ():
            sender, signal, receiver, slot = (connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))
            by_name[sender].connect(signal, by_name[receiver], slot)
        top._made = builder.made
        return top


def _widget_class(name: str) -> type | None:
    if name in SHIM:
        return SHIM[name]
    plain = getattr(QtWidgets, name, None)
    return mannered(plain) if is_object_class(plain) else None


def _check_properties(root: ET.Element, by_name: dict[str, Any], path: str) -> None:
    """A property that the class does not have would silently become a dynamic one: such a file is wrong."""
    for element in root.iter("widget"):
        widget = by_name.get(element.get("name", ""))
        if widget is None:
            continue
        meta = QtCore.QObject.metaObject(widget)
        for item in element.findall("property"):
            if item.get("stdset") != "0" and meta.indexOfProperty(item.get("name", "")) < 0:
                raise RuntimeError(f"{path}: {element.get('class')} {element.get('name')} has no property {item.get('name')}")
