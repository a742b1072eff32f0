"""A small scripted module of Slicer's usual shape, to prove the shim on: adds a multiple of a volume's name to a list."""

from typing import Annotated

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Doubler(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Doubler")
        slicer.app.connect("startupCompleted()", register)


def register():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(category="Doubler", sampleName="Nothing")


@parameterNodeWrapper
class DoublerParameterNode:
    volume: vtkMRMLScalarVolumeNode
    factor: Annotated[float, WithinRange(0, 10)] = 2.0
    times: Annotated[int, WithinRange(1, 5)] = 1
    greeting: Annotated[str, Choice(["hello", "goodbye"])] = "hello"
    loud: bool = False
    note: str = ""
    history: list[float]


class DoublerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.node = self.tag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        top = slicer.util.loadUI(self.resourcePath("UI/Doubler.ui"))
        self.layout.addWidget(top)
        self.ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(slicer.mrmlScene)
        self.logic = DoublerLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda caller, event: self.bind(None))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, lambda caller, event: self.bind(self.logic.getParameterNode()))
        self.ui.applyButton.connect("clicked(bool)", self.apply)
        self.bind(self.logic.getParameterNode())

    def cleanup(self):
        self.bind(None)
        self.removeObservers()

    def bind(self, node):
        if self.node:
            self.node.disconnectGui(self.tag)
            self.removeObserver(self.node, vtk.vtkCommand.ModifiedEvent, self.check)
        self.node = node
        if node:
            self.tag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.check)
            self.check()

    def check(self, caller=None, event=None):
        self.ui.applyButton.enabled = self.node.volume is not None

    def apply(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("Doubling failed."), waitCursor=True):
            self.node.history = [*self.node.history, self.logic.process(self.node.factor, self.node.times)]


class DoublerLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return DoublerParameterNode(super().getParameterNode())

    def process(self, factor, times):
        if factor == 0:
            raise RuntimeError("factor is 0")
        return factor**times


class DoublerTest(ScriptedLoadableModuleTest):
    def test_square(self):
        assert DoublerLogic().process(3.0, 2) == 9.0
