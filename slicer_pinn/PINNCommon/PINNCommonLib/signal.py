"""Signals of logic objects. Qt's own cannot be used: defining one inside PythonQt crashes Slicer."""

from __future__ import annotations

from collections.abc import Callable


class Signal:
    """A list of functions that are called with what is emitted."""

    def __init__(self) -> None:
        self._listeners: list[Callable] = []

    def connect(self, listener: Callable) -> None:
        self._listeners.append(listener)

    def disconnect(self, listener: Callable) -> None:
        self._listeners.remove(listener)

    def emit(self, *values: object) -> None:
        for listener in list(self._listeners):
            listener(*values)
