"""Which widget shows which type of parameter, for the double of `parameterNodeWrapper`; the same pairs as in Slicer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NUMBER_WIDGETS = ("QDoubleSpinBox", "ctkSliderWidget", "qMRMLSliderWidget", "ctkDoubleSpinBox")


class Connector:
    """A widget's property and its signal."""

    def __init__(self, widget: Any, parameter: Any, attribute: str, signal: str):
        self.widget, self.parameter, self.attribute, self.signal = widget, parameter, attribute, signal
        self._callback: Callable[..., None] | None = None

    def read(self) -> Any:
        return self.parameter.kind(getattr(self.widget, self.attribute))

    def write(self, value: Any) -> None:
        if getattr(self.widget, self.attribute) != value:
            setattr(self.widget, self.attribute, value)

    def on_change(self, callback: Callable[[], None] | None) -> None:
        if self._callback is not None:
            self.widget.disconnect(self.signal, self._callback)
        self._callback = None if callback is None else lambda *ignored: callback()
        if self._callback is not None:
            self.widget.connect(self.signal, self._callback)


class ChoiceConnector(Connector):
    """The box is filled with the choices."""

    def __init__(self, widget: Any, parameter: Any):
        super().__init__(widget, parameter, "currentIndex", "currentIndexChanged(int)")
        self.choices = _note(parameter, "choices")
        if self.choices is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        widget.clear()
        for choice in self.choices:
            widget.addItem(str(choice))

    def read(self) -> Any:
        return self.choices[self.widget.currentIndex]

    def write(self, value: Any) -> None:
        self.widget.currentIndex = self.choices.index(value)


class NodeConnector(Connector):
    def __init__(self, widget: Any, parameter: Any):
        super().__init__(widget, parameter, "currentNode", "currentNodeChanged(vtkMRMLNode*)")
        widget.nodeTypes = parameter.node_types  # the annotation's, whatever the .ui says

    def read(self) -> Any:
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        if self.widget.currentNode() is not value:
            self.widget.setCurrentNode(value)


class PlainTextConnector(Connector):
    def __init__(self, widget: Any, parameter: Any):
        super().__init__(widget, parameter, "plainText", "textChanged()")


def connector(widget: Any, parameter: Any) -> Connector:
    """Raises RuntimeError where Slicer has no connector for the pair either."""
    name, kind = type(widget).__name__, parameter.kind
    if parameter.is_node and name == "qMRMLNodeComboBox":
        return NodeConnector(widget, parameter)
    if kind is bool and name in ("QCheckBox", "ctkCheckBox"):
        return Connector(widget, parameter, "checked", "toggled(bool)")
    if kind is bool and name == "QPushButton":
        widget.checkable = True
        return Connector(widget, parameter, "checked", "toggled(bool)")
    if name in ("QComboBox", "ctkComboBox") and kind in (int, float, str, bool):
        return ChoiceConnector(widget, parameter)
    if kind is int and name in ("QSpinBox", "QSlider"):
        return _bounded(Connector(widget, parameter, "value", "valueChanged(int)"), -(2**31), 2**31 - 1)
    if kind in (int, float) and name in NUMBER_WIDGETS:
        return _bounded(Connector(widget, parameter, "value", "valueChanged(double)"), float("-inf"), float("inf"))
    if kind is str and name in ("QLineEdit", "QLabel"):
        return Connector(widget, parameter, "text", "textChanged(QString)")
    if kind is str and name in ("QTextEdit", "QPlainTextEdit"):
        return PlainTextConnector(widget, parameter)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{parameter.hint}' to widget type '{type(widget)}'.")


def _note(parameter: Any, attribute: str) -> Any:
    return next((getattr(note, attribute) for note in parameter.notes if hasattr(note, attribute)), None)


def _bounded(one: Connector, lowest: float, highest: float) -> Connector:
    """The annotated range becomes the widget's; a slider needs one."""
    low, high = _note(one.parameter, "minimum"), _note(one.parameter, "maximum")
    if type(one.widget).__name__ in ("ctkSliderWidget", "qMRMLSliderWidget", "QSlider") and (low is None or high is None):
        raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")
    for note in one.parameter.notes:
        if type(note).__name__ in ("Decimals", "SingleStep"):
            setattr(one.widget, {"Decimals": "decimals", "SingleStep": "singleStep"}[type(note).__name__], note.value)
    one.widget.minimum = lowest if low is None else low
    one.widget.maximum = highest if high is None else high
    return one
