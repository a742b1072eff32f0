"""The CTK and MRML widgets that our panels use, over PySide6 and the real scene. Plain looks, honest behaviour."""

from __future__ import annotations

from typing import Any

import shiboken6
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from .manners import SHIM, Manners, Meta, register


def _flag(name: str) -> Any:
    """A switch of the node selector."""

    def read(self: Any) -> bool:
        return self._flags.get(name, False)

    def write(self: Any, value: bool) -> None:
        self._flags[name] = value
        self._refill()

    return Property(bool, read, write)


def _of_box(name: str, kind: Any) -> Any:
    """A property of the slider widget that its spin box holds."""
    read, write = getattr(QtWidgets.QDoubleSpinBox, name), getattr(QtWidgets.QDoubleSpinBox, f"set{name[0].upper()}{name[1:]}")
    return Property(kind, lambda self: read(self._box), lambda self, value: write(self._box, value))


@register
class qMRMLWidget(Manners, QtWidgets.QWidget, metaclass=Meta):
    """Hands its scene on through `mrmlSceneChanged`, which a .ui file must connect to every selector."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._scene: Any = None
        self._entered = False

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


@register
class qSlicerWidget(qMRMLWidget):
    pass


@register
class qMRMLNodeComboBox(Manners, QtWidgets.QComboBox, metaclass=Meta):
    """Lists the scene's nodes of some classes; grey until it has a scene."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._scene: Any = None
        self._types: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._flags = {"none": False, "add": True, "remove": True, "rename": False, "edit": False, "children": True}
        self._base, self._none = "", "None"
        self._attributes: list[tuple[str, str, str | None]] = []
        self._nodes: list[Any] = []
        self._observers: list[int] = []
        self._last: Any = None
        self.setEnabled(False)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        QtWidgets.QComboBox.currentIndexChanged.__get__(self).connect(self._report)

    noneEnabled, addEnabled, removeEnabled = _flag("none"), _flag("add"), _flag("remove")
    renameEnabled, editEnabled, showChildNodeTypes = _flag("rename"), _flag("edit"), _flag("children")
    selectNodeUponCreation, showHidden = _flag("select"), _flag("hidden")

    def _get_types(self) -> list[str]:
        return list(self._types)

    def _set_types(self, value: Any) -> None:
        self._types = tuple(value)
        self._refill()

    def _get_base(self) -> str:
        return self._base

    def _set_base(self, value: str) -> None:
        self._base = value

    def _get_none(self) -> str:
        return self._none

    def _set_none(self, value: str) -> None:
        self._none = value
        self._refill()

    nodeTypes = Property("QStringList", _get_types, _set_types)
    baseName = Property(str, _get_base, _set_base)
    noneDisplay = Property(str, _get_none, _set_none)

    def __getattribute__(self, name: str) -> Any:
        if name == "nodeTypes":
            return self._types  # a tuple on reading, as PythonQt gives it
        return super().__getattribute__(name)

    def addAttribute(self, node_type: str, name: str, value: str | None = None) -> None:
        self._attributes.append((node_type, name, value))
        self._refill()

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._scene, self._observers = scene, []
        if scene is not None:
            ends = (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent)
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, *ends):
                self._observers.append(scene.AddObserver(event, lambda caller, event: self._refill()))
        self.setEnabled(scene is not None)
        self._refill()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        at = QtWidgets.QComboBox.currentIndex(self)
        return self._nodes[at] if 0 <= at < len(self._nodes) else None

    @property
    def currentNodeID(self) -> str:
        node = self.currentNode()
        return node.GetID() if node else ""

    def nodeCount(self) -> int:
        return sum(node is not None for node in self._nodes)

    def setCurrentNode(self, node: Any) -> None:
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene else None
        self._select(node)

    setCurrentNodeID = setCurrentNode

    def addNode(self) -> Any:
        node = self._scene.AddNewNodeByClass(self._types[0], self._scene.GenerateUniqueName(self._base or "Node"))
        self.setCurrentNode(node)
        return node

    def _select(self, node: Any) -> None:
        at = next((i for i, one in enumerate(self._nodes) if one is node), 0 if self._nodes and self._nodes[0] is None else -1)
        QtWidgets.QComboBox.setCurrentIndex(self, at)
        self._report()

    def _fits(self, node: Any) -> bool:
        exact = {node.GetClassName()} & set(self._types)
        if not (exact or (self._flags["children"] and any(node.IsA(kind) for kind in self._types))):
            return False
        if node.GetHideFromEditors():
            return False
        return all(
            not node.IsA(kind) or (node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)))
            for kind, name, value in self._attributes
        )

    def _refill(self) -> None:
        if not shiboken6.isValid(self):
            return
        kept = self.currentNode()
        scene = self._scene
        found = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        self._nodes = [*([None] if self._flags["none"] else []), *(node for node in found if self._fits(node))]
        blocker = QtCore.QSignalBlocker(self)
        QtWidgets.QComboBox.clear(self)
        for node in self._nodes:
            QtWidgets.QComboBox.addItem(self, self._none if node is None else node.GetName())
        del blocker
        if kept is None and not self._flags["none"]:
            kept = next(iter(self._nodes), None)  # without "None" the first node that comes is taken
        self._select(kept)

    def _report(self, *ignored: Any) -> None:
        node = self.currentNode()
        if node is not self._last:
            self._last = node
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(node.GetID() if node else "")


@register
class ctkCollapsibleButton(Manners, QtWidgets.QGroupBox, metaclass=Meta):
    """A titled section that folds."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._collapsed, self._title = False, ""

    def _get_text(self) -> str:
        return self._title

    def _set_text(self, value: str) -> None:
        self._title = value
        self._fold()

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, value: bool) -> None:
        self._collapsed = value
        self._fold()
        self.contentsCollapsed.emit(value)

    text = Property(str, _get_text, _set_text)
    collapsed = Property(bool, _get_collapsed, _set_collapsed)

    def _fold(self) -> None:
        QtWidgets.QGroupBox.setTitle(self, f"{'▸' if self._collapsed else '▾'} {self._title}")
        QtWidgets.QGroupBox.setMaximumHeight(self, 24 if self._collapsed else 16777215)
        for child in QtCore.QObject.children(self):
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not self._collapsed)

    def showEvent(self, event: Any) -> None:
        if self._collapsed:
            self._fold()


@register
class ctkSliderWidget(Manners, QtWidgets.QWidget, metaclass=Meta):
    """A slider beside a spin box."""

    valueChanged = Signal(float)
    STEPS = 1000

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._box, self._slider = QtWidgets.QDoubleSpinBox(self), QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.setRange(0, self.STEPS)
        self._box.setRange(0.0, 99.0)
        self._box.valueChanged.connect(self._from_box)
        self._slider.sliderMoved.connect(lambda at: setattr(self, "value", self.minimum + at / self.STEPS * (self.maximum - self.minimum)))

    def _from_box(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._slider.setValue(round((value - low) / max(high - low, 1e-12) * self.STEPS))
        self.valueChanged.emit(value)

    value, minimum = _of_box("value", float), _of_box("minimum", float)
    maximum, singleStep = _of_box("maximum", float), _of_box("singleStep", float)
    decimals, suffix, prefix = _of_box("decimals", int), _of_box("suffix", str), _of_box("prefix", str)


@register
class qMRMLSliderWidget(ctkSliderWidget):
    def setMRMLScene(self, scene: Any) -> None:
        """Only units come from the scene in the real one."""


@register
class ctkPathLineEdit(Manners, QtWidgets.QLineEdit, metaclass=Meta):
    """A path, typed or (in Slicer) browsed for."""

    currentPathChanged = Signal(str)

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._filters: list[str] = []
        QtWidgets.QLineEdit.textChanged.__get__(self).connect(self.currentPathChanged)

    def _get_path(self) -> str:
        return QtWidgets.QLineEdit.text(self)

    def _set_path(self, value: str) -> None:
        QtWidgets.QLineEdit.setText(self, value)

    def _get_filters(self) -> list[str]:
        return self._filters

    def _set_filters(self, value: list[str]) -> None:
        self._filters = list(value)

    currentPath = Property(str, _get_path, _set_path)
    nameFilters = Property("QStringList", _get_filters, _set_filters)
    settingKey = Property(str, lambda self: "", lambda self, value: None)

    def setCurrentPath(self, value: str) -> None:
        self._set_path(value)

    def addCurrentPathToHistory(self) -> None:
        """Nothing to remember."""


for _name, _plain in {"ctkComboBox": "QComboBox", "ctkCheckBox": "QCheckBox", "ctkDoubleSpinBox": "QDoubleSpinBox"}.items():
    SHIM[_name] = Meta(_name, (Manners, getattr(QtWidgets, _plain)), {"_plain": getattr(QtWidgets, _plain)})


def anything(name: str) -> type:
    """An empty widget for a class of Slicer's or CTK's that no test looks into."""
    if name not in SHIM:
        body = {"_plain": None, "setMRMLScene": lambda self, scene: None}
        SHIM[name] = Meta(name, (Manners, QtWidgets.QWidget), body)
    return SHIM[name]
