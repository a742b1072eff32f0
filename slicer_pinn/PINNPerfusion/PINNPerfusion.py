"""Perfusion from arterial spin labelling: the panel, and a logic for scripts. What it does is in PINNPerfusionLib and PINNCommonLib."""

import sys
from pathlib import Path
from typing import Annotated, Union

import qt
import slicer
import vtk
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper
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
from PINNPerfusionLib import options  # noqa: E402


class PINNPerfusion(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("PINN Perfusion (ASL)")
        parent.categories = ["Perfusion"]
        parent.dependencies = ["PINNCommon"]
        parent.contributors = ["The pinn_engine team"]
        parent.helpText = _(
            "Cerebral blood flow and arterial transit time from arterial spin labelling, each with its standard deviation. "
            "Choose the series; what its BIDS sidecar does not say is typed or taken from a preset. Research use only. "
            "No data leave the machine."
        )
        parent.acknowledgementText = _("Sources of model and constants are in every map's sidecar and in the report. Apache-2.0.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Our phantom, made on this machine: nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="PINN",
        sampleName="ASL phantom",
        uris=["pinn-engine:phantom-asl"],
        fileNames=["sub-01_asl.nii.gz"],
        nodeNames=["sub-01_asl"],
        customDownloader=lambda source: PINNPerfusionLogic().loadPhantom(),
        thumbnailFileName=str(HERE / "Resources" / "Icons" / "ASLPhantom.png"),
        loadFileType=["SequenceFile"],
    )


Series = Union[vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007  # Slicer's wrapper knows this form, with None


@parameterNodeWrapper
class PINNPerfusionParameterNode:
    """Every choice of the panel, so that a saved scene can be run again. Times in seconds; empty = as the files say."""

    asl: Series
    m0: Series
    mask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007
    background: vtkMRMLScalarVolumeNode
    regions: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    preset: Annotated[str, Choice(list(options.PRESETS))] = options.FROM_FILES
    labeling: Annotated[str, Choice(list(options.LABELINGS))] = options.FROM_FILES
    volumes: Annotated[str, Choice(list(options.ORDERS))] = options.FROM_FILES
    delays: str = ""
    duration: str = ""
    sliceTiming: str = ""
    efficiency: str = ""
    meanControl: bool = False
    unknown: Annotated[str, Choice(list(options.UNKNOWNS))] = "CBF and arrival time"
    method: Annotated[str, Choice(list(options.METHODS))] = "PINN"
    spatial: bool = True
    device: Annotated[str, Choice(list(options.DEVICES))] = "auto"
    outputFolder: str = ""
    showCurve: bool = False


class PINNPerfusionWidget(Panel, ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self._plot = {}

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/PINNPerfusion.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = PINNPerfusionLogic()
        self.logic.run.stateChanged.connect(self.onState)
        self.logic.run.progressed.connect(self.onProgress)
        self.logic.run.logged.connect(self.onLog)
        scene = slicer.mrmlScene
        self.addObserver(scene, slicer.vtkMRMLScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, slicer.vtkMRMLScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked()", self.onApplyButton)
        self.ui.loadButton.connect("clicked()", self.onLoadButton)
        self.ui.folderButton.connect("clicked()", self.onFolderButton)
        self.ui.regionsButton.connect("clicked()", self.onRegionsButton)
        self.ui.reportButton.connect("clicked()", self.onReportButton)
        self.ui.preset.connect("activated(int)", self.onPreset)
        self.ui.showCurve.connect("toggled(bool)", self.onShowCurve)
        self.initializeParameterNode()
        self.onState(self.logic.run.state, self.logic.run.install.report())

    def exit(self):
        if not self.logic.run.busy:  # a running fit keeps its parameters
            self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None):
        super().onSceneStartClose(caller, event)
        self._plot = {}

    def setParameterNode(self, node):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = node
        if node is not None:
            self._guiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()
            self.onShowCurve(node.showCurve)

    def _checkCanApply(self, caller=None, event=None):
        """Apply is enabled when nothing is missing, and says otherwise what is."""
        from PINNCommonLib.run import CANCELLING

        node, button = self._parameterNode, self.ui.applyButton
        if node is None:
            return
        self.ui.acquisitionLabel.text = self.logic.acquisition(node.asl)
        missing = self.logic.missing(node)
        busy = self.logic.run.busy
        button.text = _("Cancel") if busy else _("Apply")
        button.enabled = self.logic.run.state != CANCELLING if busy else not missing
        button.toolTip = _("Stop the fit") if busy else _("Still missing: {}").format(", ".join(missing)) if missing else _("Fit the maps")
        if not busy and missing:
            self.ui.statusLabel.text = _("Still missing: {}").format(", ".join(missing))
        elif not busy:
            self.ui.statusLabel.text = self.logic.run.message
        results = self.logic.results(node)
        self.ui.regionsButton.enabled = bool(results) and node.regions is not None and not busy
        self.ui.showCurve.enabled = "fit" in results
        self.ui.reportButton.enabled = self.logic.report(node) is not None

    def onApplyButton(self):
        with slicer.util.tryWithErrorDisplay(_("The fit could not be started."), waitCursor=True):
            if self.logic.run.busy:
                self.logic.run.cancel()
            else:
                self.ui.log.clear()
                self.logic.processParameterNode(self._parameterNode)

    def onLoadButton(self):
        path = qt.QFileDialog.getOpenFileName(self.parent, _("ASL series"), "", "NIfTI, NRRD (*.nii *.nii.gz *.nrrd *.nhdr)")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The file could not be read."), waitCursor=True):
                self._parameterNode.asl = self.logic.load(path)

    def onFolderButton(self):
        self.chooseFolder(_("Folder for maps and report"))

    def onRegionsButton(self):
        with slicer.util.tryWithErrorDisplay(_("The table could not be made."), waitCursor=True):
            self.logic.makeRegionTable(self._parameterNode)

    def onPreset(self, index):
        """By hand only, so that a scene's own values are not overwritten when it is loaded."""
        self.logic.applyPreset(self._parameterNode, list(options.PRESETS)[index])

    def onShowCurve(self, on):
        """Follow the crosshair while the box is ticked."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
        if crosshair is None:
            return
        if on and not self.hasObserver(crosshair, event, self.onCrosshair):
            self.addObserver(crosshair, event, self.onCrosshair)
        elif not on and self.hasObserver(crosshair, event, self.onCrosshair):
            self.removeObserver(crosshair, event, self.onCrosshair)

    def onCrosshair(self, caller, event):
        ras = [0.0, 0.0, 0.0]
        if self._parameterNode is not None and caller.GetCursorPositionRAS(ras):
            first = "chart" not in self._plot
            if self.logic.showCurve(self._parameterNode, ras, self._plot) and first:
                showChart(self._plot["chart"])

    def onState(self, state, message):
        from PINNCommonLib.run import DONE, INSTALLING

        self.ui.progressBar.visible = self.logic.run.busy
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = message
        self._checkCanApply()
        if state == INSTALLING:
            slicer.app.processEvents()
        if state == DONE:
            self.onLog(message)

    def onLog(self, line):
        self.ui.log.appendPlainText(line)


class PINNPerfusionLogic(ScriptedLoadableModuleLogic):
    """For scripts: `maps = PINNPerfusionLogic().process(asl, m0=m0, waitForCompletion=True)`; `maps["cbf"]` is a volume node."""

    def __init__(self, run=None):
        ScriptedLoadableModuleLogic.__init__(self)
        if run is None:
            from PINNCommonLib.run import Run

            run = Run()
        self.run = run

    def getParameterNode(self):
        return PINNPerfusionParameterNode(super().getParameterNode())

    def load(self, path):
        """A node of an image file; what stands beside the file about its acquisition is kept in it."""
        from PINNPerfusionLib import inputs

        return inputs.load(Path(path))

    def acquisition(self, asl):
        """What is known of a scan's acquisition, in one line; empty where nothing is."""
        from PINNPerfusionLib import inputs, sidecars

        if asl is None:
            return ""
        found = inputs.beside(asl)
        return " ".join([sidecars.summary(found.fields, found.context, found.name), *found.notes])

    def missing(self, parameterNode):
        """What must still be chosen or typed, by the names of the panel."""
        from PINNPerfusionLib import inputs

        if parameterNode.asl is None:
            return ["ASL series"]
        found = inputs.beside(parameterNode.asl)
        return options.missing(options.Settings.of(parameterNode), found.fields, found.context)

    def applyPreset(self, parameterNode, name):
        parameterNode.preset = name
        for field, value in options.PRESETS[name].items():
            setattr(parameterNode, field, value)

    def process(self, asl, m0=None, mask=None, *, background=None, regions=None, maps=None, waitForCompletion=False, **settings):
        """Fit a scan. `settings`: the fields of PINNPerfusionLib.options.Settings. Returns role -> node: cbf, cbf_std, att, att_std,
        status, mask, data, fit, fitstd, quality, checks, …, filled when the run is done; `maps` of an earlier run is filled anew.

        With `waitForCompletion` it returns at the end and raises RuntimeError with one sentence if the fit failed.
        """
        return self._start((asl, m0, mask, background, regions), settings, {} if maps is None else maps, waitForCompletion)

    def processParameterNode(self, parameterNode, waitForCompletion=False):
        """Fit what the panel shows; the results of its last run are filled anew."""
        from dataclasses import asdict

        from PINNPerfusionLib import work

        p, node = parameterNode, parameterNode.parameterNode
        into = work.kept(node)
        scan = (p.asl, p.m0, p.mask, p.background, p.regions)
        return self._start(scan, asdict(options.Settings.of(p)), into, waitForCompletion, lambda: work.keep(node, into))

    def _start(self, scan, settings, into, wait, done=lambda: None):
        from PINNPerfusionLib.work import Scan, work

        perform(self.run, work(Scan(*scan), options.Settings(**settings), into, self.run.logged.emit, done), wait)
        return into

    def results(self, parameterNode):
        """Role -> node of the last run."""
        from PINNPerfusionLib import work

        return work.kept(parameterNode.parameterNode)

    def makeRegionTable(self, parameterNode):
        """The maps of the last run over the segments or labels that are chosen, as a table node."""
        from PINNPerfusionLib import work

        into = self.results(parameterNode)
        table = work.add_region_table(parameterNode.regions, into)
        work.keep(parameterNode.parameterNode, into)
        return table

    def showCurve(self, parameterNode, ras, plot):
        """Draw the curve of the voxel at a point (RAS mm) into the nodes of `plot`; False outside the mask."""
        from PINNPerfusionLib.curve import show_curve

        maps = self.results(parameterNode)
        return "fit" in maps and show_curve(maps, ras, plot)

    def report(self, parameterNode):
        """The report of the last run, where an output folder was given."""
        from PINNPerfusionLib import inputs

        if parameterNode.asl is None:
            return None
        return report_in(parameterNode.outputFolder, inputs.prefix(parameterNode.asl))

    def makePhantom(self, folder, spacing=4.0):
        """Simulate a scan with known truth into a folder; returns the path of the series. Takes seconds, blocks."""
        from PINNCommonLib.run import Run, Work

        run = Run(self.run.install, self.run.command)
        call = ["phantom", "asl", "--out", str(folder), "--spacing", str(spacing)]
        perform(run, Work(lambda private: call, lambda private: "made", device=None), wait=True)
        return Path(folder) / "sub-01" / "perf" / "sub-01_asl.nii.gz"

    def loadPhantom(self, spacing=4.0):
        """The phantom's series and M0, loaded: made in Slicer's cache folder on first use."""
        folder = Path(slicer.app.temporaryPath) / f"pinn-phantom-{spacing:g}"
        path = folder / "sub-01" / "perf" / "sub-01_asl.nii.gz"
        if not path.is_file():
            path = self.makePhantom(folder, spacing)
        return [self.load(path), self.load(path.with_name("sub-01_m0scan.nii.gz"))]


def showChart(chart):
    """In a layout with a plot, where there is an application with views."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        slicer.modules.plots.logic().ShowChartInLayout(chart)


class PINNPerfusionTest(ScriptedLoadableModuleTest):
    """Reload & Test in Slicer; the same scenarios run in our tests without the application."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        from PINNPerfusionLib import scenarios

        for scenario in scenarios.ALL:
            self.setUp()
            self.delayDisplay(f"{scenario.__name__}: {scenario(PINNPerfusionLogic())}")
