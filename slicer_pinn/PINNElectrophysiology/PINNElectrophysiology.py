"""PINN Electrophysiology: conduction velocity and diffusivity of a heart, from activation times or V, with uncertainty."""

import sys
from pathlib import Path
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Minimum, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

HERE = Path(__file__).resolve().parent
if (HERE.parent / "PINNCommon").is_dir():  # the source tree; once installed all modules lie in one folder
    sys.path.append(str(HERE.parent / "PINNCommon"))

from PINNCommonLib.panel import Panel, perform, report_in  # noqa: E402
from PINNElectrophysiologyLib import options  # noqa: E402

FILES = "Heart maps (*.mesh *.pts *.vtk *.vtp *.vtu *.ply *.stl)"


class PINNElectrophysiology(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("PINN Electrophysiology")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Cardiac")]
        parent.dependencies = ["PINNCommon"]
        parent.contributors = ["The pinn_engine team"]
        parent.helpText = _(
            "Fits conduction velocity, diffusivity and activation time, each with its standard deviation, on the surface or the "
            "tetrahedra of a heart, from measured activation times (LAT) or from V over time. Choose a model with such scalars, or load a "
            "CARTO 3, openCARP or VTK file; press Apply. The fit runs in a process of its own. Research use only. "
            "No data leave the machine."
        )
        parent.acknowledgementText = _("Apache-2.0. Models and methods are cited in docs/cardiac.md of the project.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Computed on this machine: nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="PINN",
        sampleName="Heart with a slow band",
        uris=["pinn-engine:heart"],
        fileNames=["heart.vtp"],
        nodeNames=["Heart sample"],
        customDownloader=lambda source: [PINNElectrophysiologyLogic().makeSample()],
        thumbnailFileName=str(HERE / "Resources" / "Icons" / "HeartSample.png"),
        loadFileType=["ModelFile"],
    )


@parameterNodeWrapper
class PINNElectrophysiologyParameterNode:
    inputModel: vtkMRMLModelNode
    referenceVolume: vtkMRMLScalarVolumeNode
    outputModel: vtkMRMLModelNode
    array: str = ""  # empty: measured points where the model has them, else LAT, else V
    unknowns: Annotated[str, Choice(list(options.UNKNOWNS))] = "maps of CV and D"
    timeUnit: Annotated[str, Choice(list(options.TIME_UNITS))] = "ms"
    spacing: Annotated[float, WithinRange(0.2, 5)] = 1.0  # mm, of the volumes where no reference is chosen
    method: Annotated[str, Choice(list(options.METHODS))] = "chosen by the data"
    across: Annotated[float, WithinRange(0, 1)] = 0.0  # D across the fibres over D along them; 0: the engine's default
    noise: Annotated[float, Minimum(0)] = 0.0  # 0: estimated
    times: str = ""
    given: str = ""
    device: Annotated[str, Choice(list(options.DEVICES))] = "auto"
    outputFolder: str = ""
    space: Annotated[str, Choice(["LPS", "RAS"])] = "LPS"  # coordinates of a loaded file that does not say
    shown: Annotated[str, Choice(list(options.MAPS))] = "conduction velocity"


class PINNElectrophysiologyWidget(Panel, ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._crosshair = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        top = slicer.util.loadUI(self.resourcePath("UI/PINNElectrophysiology.ui"))
        self.layout.addWidget(top)
        self.ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(slicer.mrmlScene)
        self.logic = PINNElectrophysiologyLogic()
        self.logic.run.stateChanged.connect(self._onState)
        self.logic.run.progressed.connect(self.onProgress)
        self.logic.run.logged.connect(self.ui.log.appendPlainText)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.loadButton.connect("clicked(bool)", self.onLoadButton)
        self.ui.folderButton.connect("clicked(bool)", self.onFolderButton)
        self.ui.reportButton.connect("clicked(bool)", self.onReportButton)
        self.ui.arrayBox.connect("currentIndexChanged(int)", self.onArrayChosen)
        self.initializeParameterNode()

    def initializeParameterNode(self):
        super().initializeParameterNode()
        if not self._parameterNode.inputModel:
            self._parameterNode.inputModel = self.logic.firstModelWithData()

    def setParameterNode(self, node):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        if self._crosshair:
            self.removeObserver(self._crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onCrosshair)
        self._parameterNode, self._crosshair = node, None
        if node:
            self._parameterNodeGuiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onModified)
            self._crosshair = slicer.mrmlScene.GetSingletonNode("default", "vtkMRMLCrosshairNode")
            if self._crosshair:
                self.addObserver(self._crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onCrosshair)
            self._onModified()

    def _onModified(self, caller=None, event=None):
        if not self._parameterNode:
            return
        self._fillArrays()
        self.logic.showMap(self._parameterNode.outputModel, self._parameterNode.shown)
        self._checkCanApply()

    def _fillArrays(self):
        """The model's point scalars by name; the box is not bound by name, since its entries depend on the model."""
        names = ["", *self.logic.arrayNames(self._parameterNode.inputModel)]
        box = self.ui.arrayBox
        was = box.blockSignals(True)
        box.clear()
        for name in names:
            box.addItem(name or _("automatic: LAT, else V"))
        box.currentIndex = names.index(self._parameterNode.array) if self._parameterNode.array in names else 0
        box.blockSignals(was)

    def onArrayChosen(self, index):
        if self._parameterNode and index >= 0:
            self._parameterNode.array = self.ui.arrayBox.currentText if index > 0 else ""

    def _checkCanApply(self):
        busy = self.logic.run.busy
        lack = "" if busy else self.logic.lack(self._parameterNode)
        self.ui.applyButton.text = _("Cancel") if busy else _("Apply")
        self.ui.applyButton.enabled = not lack
        self.ui.applyButton.toolTip = lack or (_("Stop the fit") if busy else _("Fit the maps"))
        for section in (self.ui.inputsButton, self.ui.fitButton, self.ui.advancedButton, self.ui.outputsButton):
            section.enabled = not busy
        self.ui.reportButton.enabled = not busy and self.logic.report(self._parameterNode) is not None
        if not busy:
            self.ui.statusLabel.text = lack or self.logic.run.message

    def onApplyButton(self, checked=False):
        if self.logic.run.busy:
            self.logic.run.cancel()
            return
        self.ui.log.clear()
        with slicer.util.tryWithErrorDisplay(_("The fit could not be started."), waitCursor=True):
            self.logic.processParameterNode(self._parameterNode)

    def onLoadButton(self, checked=False):
        path = qt.QFileDialog.getOpenFileName(self.parent, _("Heart map"), "", FILES)
        if path:
            with slicer.util.tryWithErrorDisplay(_("The file could not be read."), waitCursor=True):
                model = self.logic.load(path, self._parameterNode.space)
                self._parameterNode.inputModel = model
                self.ui.log.appendPlainText(model.GetDescription() or "")

    def onFolderButton(self, checked=False):
        self.chooseFolder(_("Folder for files and report"))

    def _onState(self, state, message):
        self.ui.statusLabel.text = message
        self.ui.progressBar.visible = self.logic.run.busy
        if state == "running":
            self.ui.progressBar.value = 0
        if self._parameterNode:
            self._checkCanApply()
        if state == "done":
            self.ui.log.appendPlainText(message)

    def _onCrosshair(self, caller=None, event=None):
        place = [0.0, 0.0, 0.0]
        if self._parameterNode and self._parameterNode.outputModel and self._crosshair.GetCursorPositionRAS(place):
            self.logic.showTrace(self._parameterNode.outputModel, place)


class PINNElectrophysiologyLogic(ScriptedLoadableModuleLogic):
    """From scripts: `PINNElectrophysiologyLogic().process(model, timeUnit="ms", waitForCompletion=True)["model"]`."""

    def __init__(self, run=None):
        ScriptedLoadableModuleLogic.__init__(self)
        if run is None:
            from PINNCommonLib.run import Run

            run = Run()
        self.run = run
        self.made = {}  # nodes of the last fit by role

    def getParameterNode(self):
        return PINNElectrophysiologyParameterNode(super().getParameterNode())

    def processParameterNode(self, parameters, waitForCompletion=False):
        """Fit what the panel shows; its output model is made where there is none, and filled anew where there is."""

        def keep():
            parameters.outputModel = self.made["model"]
            self.showMap(self.made["model"], parameters.shown)

        nodes = (parameters.inputModel, parameters.referenceVolume, parameters.outputModel)
        return self._start(nodes, options.Settings.of(parameters), waitForCompletion, keep)

    def process(self, inputModel, referenceVolume=None, outputModel=None, *, waitForCompletion=False, **settings):
        """Fit a model. `settings`: the fields of PINNElectrophysiologyLib.options.Settings. With `waitForCompletion` it returns the nodes
        by role (model, table, chart, CV, CV_std, D, …), or raises RuntimeError with one sentence if the fit failed; without, it returns
        at once, `run.stateChanged` tells the end and `made` has the nodes then."""
        return self._start((inputModel, referenceVolume, outputModel), options.Settings(**settings), waitForCompletion)

    def _start(self, nodes, settings, wait, done=lambda: None):
        from PINNElectrophysiologyLib.work import work

        def keep(made):
            self.made = made
            done()

        perform(self.run, work(nodes, settings, keep, self.run.logged.emit), wait)
        return self.made if wait else {}

    def makeSample(self):
        """A model with activation times whose true speed is known: see sample.py."""
        from PINNElectrophysiologyLib.sample import make_node

        return make_node()

    def load(self, path, space="LPS"):
        """A model node of a CARTO 3, openCARP or VTK file; raises Problem with one sentence."""
        from PINNElectrophysiologyLib.importer import load

        return load(path, space)

    def firstModelWithData(self):
        from PINNElectrophysiologyLib.inputs import has_data

        found = slicer.util.getNodesByClass("vtkMRMLModelNode")
        return next((node for node in found if not node.GetHideFromEditors() and has_data(node)), None)

    def arrayNames(self, model):
        from PINNElectrophysiologyLib.inputs import array_names

        return array_names(model)

    def lack(self, parameters):
        """What is missing for a fit, in one sentence; empty where nothing is."""
        from PINNElectrophysiologyLib.inputs import has_data

        model = parameters.inputModel
        if model is None:
            return _("Choose a model, or load a file.")
        if not parameters.array and not has_data(model):
            return _("This model has no scalars called LAT or V: choose which ones to fit.")
        if parameters.outputModel is model:
            return _("Choose another output: the input would be overwritten.")
        return ""

    def showMap(self, model, name):
        """Colour an output model by one of options.MAPS; nothing for a model of another origin."""
        from PINNElectrophysiologyLib import results

        if model is not None and model.GetAttribute("PINN.TimeUnit"):
            results.show(model, options.MAPS[name])

    def report(self, parameters):
        """The report of the last run, where an output folder was given."""
        from PINNElectrophysiologyLib import inputs

        if parameters.inputModel is None:
            return None
        return report_in(parameters.outputFolder, inputs.prefix(parameters.inputModel))

    def showTrace(self, model, ras):
        """V of the mesh node nearest to a place; nothing where the result has no V."""
        from PINNElectrophysiologyLib import traces

        if traces.has_traces(model):
            traces.show_trace(model, traces.node_at(model, ras))


class PINNElectrophysiologyTest(ScriptedLoadableModuleTest):
    """Reload & Test in Slicer; the same scenarios run in our tests without the application."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        from PINNElectrophysiologyLib import scenarios

        for scenario in scenarios.ALL:
            self.setUp()
            self.delayDisplay(f"{scenario.__name__}: {scenario(PINNElectrophysiologyLogic())}")
