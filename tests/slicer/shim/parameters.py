"""A small double of `slicer.parameterNodeWrapper`: typed parameters in a vtkMRMLScriptedModuleNode, bound to widgets.

Enough for our modules: int, float, bool, str, list of these, and node classes; the validators below; the text in the node is
written as Slicer writes it, so that a scene of one can be read by the other.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any

import slicer
import vtk

from .connectors import connector


class Validator:
    def validate(self, value: Any) -> None:
        """Raise ValueError where the value may not be stored."""


class WithinRange(Validator):
    def __init__(self, minimum: float, maximum: float):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    def __init__(self, minimum: float):
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum: float):
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices: list[Any]):
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


class Default:
    def __init__(self, value: Any = None):
        self.value = value


class Decimals:
    def __init__(self, value: int):
        self.value = value


class SingleStep:
    def __init__(self, value: float):
        self.value = value


TEXT = {int: (str, int), float: (str, float), str: (str, str), bool: (str, lambda text: text == "True")}
EMPTY: dict[type, Any] = {int: 0, float: 0.0, str: "", bool: False, list: []}


class Parameter:
    """One typed entry of the node."""

    def __init__(self, name: str, hint: Any, default: Any):
        self.name, self.hint = name, hint
        kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        self.notes = notes
        self.element = (typing.get_args(kind) or (str,))[0] if (typing.get_origin(kind) or kind) is list else None
        self.kind = list if self.element else kind
        if typing.get_origin(kind) is typing.Union:  # of node classes and None, as Slicer has it
            classes = [one for one in typing.get_args(kind) if one is not type(None)]
        else:
            classes = [self.kind]
        self.is_node = all(isinstance(one, type) and issubclass(one, slicer.vtkMRMLNode) for one in classes)
        self.node_types = tuple(one().GetClassName() for one in classes) if self.is_node else ()  # an abstract class is refused
        if not self.is_node and (self.element or self.kind) not in TEXT:
            raise TypeError(f"Unable to create serializer for {name}: {hint}")
        noted = next((note.value for note in notes if isinstance(note, Default)), None)
        empty = None if self.is_node else EMPTY[self.kind]
        self.default = default if default is not None else noted if noted is not None else empty

    def check(self, value: Any) -> None:
        allowed = (int, float) if self.kind is float else self.kind
        if value is None and not self.is_node:
            raise ValueError("Value must not be None")
        fits = value is None or (any(map(value.IsA, self.node_types)) if self.is_node else isinstance(value, allowed))
        if not fits:
            raise TypeError(f"Value must be of type '{self.kind}', is '{value}'")
        for note in self.notes:
            if isinstance(note, Validator):
                note.validate(value)

    def is_in(self, node: Any) -> bool:
        return bool(node.HasParameter(f"{self.name}.len" if self.element else self.name))

    def write(self, node: Any, value: Any) -> None:
        self.check(value)
        with slicer.util.NodeModify(node):
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            elif self.element:
                node.SetParameter(f"{self.name}.len", str(len(value)))
                for i, one in enumerate(value):
                    node.SetParameter(f"{self.name}.{i}", str(one))
            else:
                node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if not self.is_in(node):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        if self.element:
            return [TEXT[self.element][1](node.GetParameter(f"{self.name}.{i}")) for i in range(int(node.GetParameter(f"{self.name}.len")))]
        return TEXT[self.kind][1](node.GetParameter(self.name))


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator: `cls(node)` has the annotated names as attributes that live in `node`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {name: Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}  # type: ignore[attr-defined]
    for parameter in cls.allParameters.values():  # type: ignore[attr-defined]
        setattr(cls, parameter.name, _attribute(parameter))
    return type(cls.__name__, (Wrapper, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _attribute(parameter: Parameter) -> property:
    return property(lambda self: parameter.read(self.parameterNode), lambda self, value: parameter.write(self.parameterNode, value))


class Wrapper:
    """What Slicer adds to a wrapped class."""

    allParameters: typing.ClassVar[dict[str, Parameter]]

    def __init__(self, node: Any):
        self.parameterNode = node
        self._guis: dict[int, tuple[list[Any], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameter.is_in(node):
                parameter.write(node, parameter.default)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}; found {', '.join(self.allParameters)}")
        return self.allParameters[name]

    def getValue(self, name: str) -> Any:
        return self._parameter(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._parameter(name).write(self.parameterNode, value)

    def connectGui(self, gui: Any) -> int:
        """Bind every widget of `childWidgetVariables` that carries a SlicerParameterName, both ways; returns a tag."""
        widgets = {widget.property("SlicerParameterName"): widget for widget in vars(gui).values()}
        return self.connectParametersToGui({name: widget for name, widget in widgets.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        parameters = {name: self._parameter(name) for name in mapping}
        bound = [connector(mapping[name], parameter) for name, parameter in parameters.items()]
        for one in bound:
            one.write(self.getValue(one.parameter.name))
            one.on_change(lambda one=one: self._from_gui(one))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._to_gui())
        tag = max(self._guis, default=-1) + 1
        self._guis[tag] = bound, observer
        return tag

    def disconnectGui(self, tag: int) -> None:
        bound, observer = self._guis.pop(tag, ([], None))
        for one in bound:
            one.on_change(None)
        if observer is not None:
            self.RemoveObserver(observer)

    def _from_gui(self, one: Any) -> None:
        if not self._updating:
            self.setValue(one.parameter.name, one.read())

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for bound, _ in self._guis.values():
                for one in bound:
                    one.write(self.getValue(one.parameter.name))
        finally:
            self._updating = False

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was: int) -> int:
        return self.parameterNode.EndModify(was)

    def Modified(self) -> None:
        self.parameterNode.Modified()
