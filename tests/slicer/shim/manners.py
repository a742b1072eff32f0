"""PySide6 classes with PythonQt's manners: Qt properties are attributes, `obj.name`, `obj.connect("clicked()", f)`.

Slicer's Python speaks to Qt through PythonQt, which no package index offers. What our modules use of its manners is imitated
here over PySide6, strictly: a property that cannot be set, or an attribute that Qt does not have, raises as it does there.
"""

from __future__ import annotations

import inspect
from typing import Any

from PySide6 import QtCore, QtWidgets

VIRTUAL = {"sizeHint", "minimumSizeHint"}  # properties that are virtual functions as well: PySide itself looks them up as methods
SHIM: dict[str, type] = {}  # Qt class name -> the class with manners


class Meta(type(QtCore.QObject)):  # type: ignore[misc]
    """`isinstance(widget, qt.QWidget)` holds for every QWidget, though our classes do not inherit from each other."""

    def __instancecheck__(cls, thing: Any) -> bool:
        plain = cls.__dict__.get("_plain")
        return isinstance(thing, plain) if plain else type.__instancecheck__(cls, thing)


class Manners:
    """Mixed in before a PySide class."""

    _loading = False  # PySide's loader hangs every child on the top widget; PythonQt's does not

    def __getattribute__(self, name: str) -> Any:
        if name in ("connect", "disconnect"):  # PySide handles these two in C, so they cannot simply be overridden
            action = super().__getattribute__(f"_{name}")
            return action
        if name.startswith("_"):
            return super().__getattribute__(name)
        if name in ("name", "objectName"):
            return QtCore.QObject.objectName(self)
        if name == "findChildren":
            return super().__getattribute__("_find_children")
        if name not in VIRTUAL and QtCore.QObject.metaObject(self).indexOfProperty(name) >= 0:
            return QtCore.QObject.property(self, name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "name":
            name = "objectName"
        meta = QtCore.QObject.metaObject(self)
        at = meta.indexOfProperty(name)
        if at >= 0:
            value = list(value) if isinstance(value, tuple) else value
            if not meta.property(at).isWritable() or not QtCore.QObject.setProperty(self, name, value):
                raise AttributeError(f"{type(self).__name__}.{name} cannot be set to {value!r}")
        elif name.startswith("_") or "_plain" not in type(self).__dict__:  # a module's own subclass may hold what it likes
            super().__setattr__(name, value)
        elif Manners._loading:
            return
        else:
            raise AttributeError(f"{type(self).__name__} has no property {name}")

    def _signal(self, text: str) -> Any:
        name, _, arguments = text.rstrip(")").partition("(")
        signal = getattr(type(self), name, None)
        if signal is None or not isinstance(signal, QtCore.Signal):
            raise AttributeError(f"{type(self).__name__} has no signal {text}")
        bound = getattr(self, name)
        try:
            return bound[arguments] if arguments else bound
        except (KeyError, IndexError, TypeError):
            return bound  # arguments that PySide writes otherwise (vtkMRMLNode*): there is one signal of that name

    def _connect(self, signal: str, *receiver: Any) -> bool:
        self._signal(signal).connect(_slot(receiver))
        return True

    def _disconnect(self, signal: str, *receiver: Any) -> bool:
        self._signal(signal).disconnect(_slot(receiver))
        return True

    def _find_children(self, kind: type = QtCore.QObject, name: str | None = None) -> list[Any]:
        """PySide looks for its own classes only: ask for the one beneath ours."""
        plain = getattr(kind, "_plain", kind)
        found = QtCore.QObject.findChildren(self, plain)
        found = [child for child in found if isinstance(child, kind)]
        return found if name is None else [child for child in found if QtCore.QObject.objectName(child) == name]

    def className(self) -> str:
        return QtCore.QObject.metaObject(self).className()

    def setLayout(self, layout: Any) -> None:
        QtWidgets.QWidget.setLayout(self, layout)  # type: ignore[arg-type]


def _slot(receiver: tuple[Any, ...]) -> Any:
    """Of `connect(signal, function)` or `connect(signal, object, "slot()")`."""
    if len(receiver) == 1:
        return receiver[0]
    target, slot = receiver
    return getattr(target, slot.partition("(")[0])


def mannered(plain: type) -> type:
    """The class of the same name with PythonQt's manners."""
    name = plain.__name__
    if name not in SHIM:
        SHIM[name] = Meta(name, (Manners, plain), {"_plain": plain})
    return SHIM[name]


def register(kind: type) -> type:
    """Class decorator for the shim's own widgets: known to .ui files under their name; strict about attributes."""
    kind._plain = kind  # type: ignore[attr-defined]
    SHIM[kind.__name__] = kind
    return kind


def is_object_class(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, QtCore.QObject)
