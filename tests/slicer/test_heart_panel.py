"""The electrophysiology panel by clicks, in the shim: Apply, progress, Cancel, the error line, scenes, what the person sees."""

import sys
import time

import numpy as np
import pytest
from heart_models import EXTENSION, model_node, polydata, pretend_fit, sheet

SPEAK = "import json,sys,time;say=lambda **k: print(json.dumps(k),file=sys.stderr,flush=True);"
HANG = SPEAK + "[(say(stage='fit',done=i/1000,message=f'step {i}'),time.sleep(0.01)) for i in range(3000)]"
FAIL = (
    SPEAK
    + "say(stage='fit',done=0.1,message='reading');print('error: map.vtp: no node has a valid LAT, found 3; export again');sys.exit(2)"
)
DONE = SPEAK + "say(stage='fit',done=0.5,message='half')"


@pytest.fixture
def panel(shim, scene):
    """The loaded module; nothing is installed and no engine started unless a test says which."""
    loaded = shim.load_module(EXTENSION / "PINNElectrophysiology" / "PINNElectrophysiology.py")
    yield loaded
    shim.unload(loaded)
    assert not shim.errors


def instead(panel, code: str):
    """Run this Python code in place of the engine."""
    panel.widget.logic.run.command = lambda arguments: [sys.executable, "-c", code]


def click(panel):
    panel.widget.ui.applyButton.click()


def until(panel, condition, seconds: float = 60.0) -> float:
    """Let the event loop turn; returns the longest CPU time that one turn took."""
    import slicer

    longest, end = 0.0, time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, panel.widget.logic.run.message
        begin = time.process_time()
        slicer.app.processEvents()
        longest = max(longest, time.process_time() - begin)
        time.sleep(0.005)
    return longest


def test_apply_waits_for_what_is_missing(panel, scene):
    ui, node = panel.widget.ui, panel.widget._parameterNode
    assert not ui.applyButton.enabled
    assert ui.statusLabel.text == "Choose a model, or load a file."
    bare = scene.AddNewNodeByClass("vtkMRMLModelNode", "bare")
    bare.SetAndObserveMesh(polydata(*sheet(), pressure=np.ones(64)))
    ui.inputModel.setCurrentNode(bare)
    assert not ui.applyButton.enabled
    assert "choose which" in ui.statusLabel.text
    ui.arrayBox.currentText = "pressure"
    assert node.array == "pressure"
    assert ui.applyButton.enabled
    ui.inputModel.setCurrentNode(model_node())
    ui.arrayBox.currentIndex = 0
    assert ui.applyButton.enabled
    ui.outputModel.setCurrentNode(node.inputModel)
    assert not ui.applyButton.enabled
    assert "overwritten" in ui.statusLabel.text


def test_a_model_that_fits_is_chosen_when_the_module_opens(shim, scene):
    scene.AddNewNodeByClass("vtkMRMLModelNode", "empty")
    model = model_node()
    loaded = shim.load_module(EXTENSION / "PINNElectrophysiology" / "PINNElectrophysiology.py")
    assert loaded.widget.ui.inputModel.currentNode() is model
    assert loaded.widget.ui.applyButton.enabled
    shim.unload(loaded)


def test_progress_then_cancel(panel):
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.inputModel.setCurrentNode(model_node())
    instead(panel, HANG)
    click(panel)
    assert ui.applyButton.text == "Cancel"
    assert not ui.inputsButton.enabled
    slowest = until(panel, lambda: ui.progressBar.value >= 2)
    assert slowest < 0.1  # s: the panel answers
    assert ui.statusLabel.text.startswith("step ")
    process = logic.run._job._process
    click(panel)
    until(panel, lambda: logic.run.state == "idle")
    assert process.poll() is not None
    assert (ui.applyButton.text, ui.applyButton.enabled, ui.statusLabel.text) == ("Apply", True, "Cancelled.")
    assert ui.inputsButton.enabled
    assert panel.widget._parameterNode.outputModel is None


def test_failure_is_one_line(panel, shim):
    ui = panel.widget.ui
    ui.inputModel.setCurrentNode(model_node())
    instead(panel, FAIL)
    click(panel)
    until(panel, lambda: panel.widget.logic.run.state == "failed")
    assert ui.statusLabel.text == "map.vtp: no node has a valid LAT, found 3; export again"
    assert "kept in" in ui.log.plainText
    assert ui.applyButton.text == "Apply"
    assert shim.messages == []  # no pop-up


def test_results_appear_and_the_map_can_be_chosen(panel, tmp_path):
    ui, widget = panel.widget.ui, panel.widget
    model = model_node()
    ui.inputModel.setCurrentNode(model)
    instead(panel, DONE)
    prepare = widget.logic.run._launch

    def launch():
        pretend_fit(widget.logic.run._folder, model)
        prepare()

    widget.logic.run._launch = launch
    click(panel)
    until(panel, lambda: widget.logic.run.state == "done")
    output = widget._parameterNode.outputModel
    assert output is ui.outputModel.currentNode()
    assert output.GetDisplayNode().GetActiveScalarName() == "CV"
    assert "64 of 64 nodes fitted" in ui.statusLabel.text
    assert "m/s" in ui.statusLabel.text
    assert "a note" in ui.log.plainText
    ui.shown.currentText = "activation time"
    assert output.GetDisplayNode().GetActiveScalarName() == "LAT"


def test_files_and_report_are_kept_where_asked(panel, shim, tmp_path):
    ui, widget = panel.widget.ui, panel.widget
    model = model_node()
    ui.inputModel.setCurrentNode(model)
    shim.paths.append(str(tmp_path / "out"))
    ui.folderButton.click()
    assert ui.outputFolder.text == str(tmp_path / "out")
    assert not ui.reportButton.enabled
    pretend_fit(tmp_path, model)
    (tmp_path / "out" / "heart_map_report.html").write_text("a report")
    instead(panel, DONE)
    click(panel)
    until(panel, lambda: widget.logic.run.state == "done")
    assert ui.reportButton.enabled
    assert widget.logic.report(widget._parameterNode) == tmp_path / "out" / "heart_map_report.html"


def test_scene_close_stops_a_running_fit(panel, scene):
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.inputModel.setCurrentNode(model_node())
    ui.times.text = "0:4:1"
    instead(panel, HANG)
    click(panel)
    process = logic.run._job._process
    scene.Clear(0)
    assert process.poll() is not None
    assert logic.run.state == "idle"
    assert ui.inputModel.currentNode() is None
    assert ui.times.text == ""
    assert not ui.applyButton.enabled


def test_leave_and_come_back(panel):
    ui, widget = panel.widget.ui, panel.widget
    ui.inputModel.setCurrentNode(model_node())
    ui.noise.value = 3.0
    ui.timeUnit.currentText = "tu"
    widget.exit()
    ui.noise.value = 9.0  # nobody listens
    widget.enter()
    assert ui.noise.value == 3.0
    assert ui.timeUnit.currentText == "tu"
    assert widget._parameterNode.timeUnit == "tu"


def test_loading_a_file(panel, shim, tmp_path):
    from pinn_engine.files.mesh import Mesh
    from pinn_engine.files.vtkmesh import write

    ui = panel.widget.ui
    points, cells = sheet()
    shim.paths.append(str(write(Mesh(points, cells, {"LAT": points[:, 0]}), tmp_path / "clinic.vtp")))
    ui.loadButton.click()
    assert ui.inputModel.currentNode().GetName() == "clinic"
    assert ui.applyButton.enabled
    ui.loadButton.click()  # nothing chosen: nothing happens
    assert ui.inputModel.currentNode().GetName() == "clinic"


def test_crosshair_moves_the_trace(panel, scene, tmp_path):
    import slicer

    widget = panel.widget
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") or scene.AddNode(slicer.vtkMRMLCrosshairNode())
    widget.enter()
    model = model_node(V=np.ones((64, 5)))
    pretend_fit(tmp_path, model, with_V=True)
    from PINNElectrophysiologyLib import options, results

    made, _, _ = results.collect(tmp_path, options.Settings(array="V"), model)
    widget._parameterNode.outputModel = made["model"]
    crosshair.SetCursorPositionRAS(list(sheet()[0][40]))
    assert made["chart"].GetTitle() == "node 40"


def test_everything_can_be_read(panel, scene, tmp_path):
    """No label or button is cut off at the width of Slicer's panel, folded or not."""
    import qt

    ui = panel.widget.ui
    ui.inputModel.setCurrentNode(model_node())
    for section in (ui.advancedButton, ui.logButton):
        section.collapsed = False
    panel.grab(tmp_path / "panel.png", width=480)
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    for kind in (qt.QLabel, qt.QPushButton):
        for one in panel.panel.findChildren(kind):
            if one.visible:
                assert one.wordWrap if kind is qt.QLabel and one.wordWrap else one.sizeHint().width() <= one.width, one.text
    assert [one.name for one in panel.panel.findChildren(qt.QComboBox) if not one.enabled] == []


def test_help_and_sample_are_registered(panel):
    import SampleData
    import slicer

    assert len(panel.module.parent.helpText) > 200
    slicer.app.emit("startupCompleted()")
    sources = [one for one in SampleData.SampleDataLogic.sources["PINN"] if one["sampleName"] == "Heart with a slow band"]
    (model,) = sources[-1]["customDownloader"](None)
    assert panel.widget.logic.arrayNames(model) == ["LAT", "truth_CV"]
