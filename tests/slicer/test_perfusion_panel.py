"""L2: the perfusion panel driven by clicks in the shim; the engine is real once and a small script elsewhere."""

import sys
import time

import numpy as np
import pytest
from images import left_handed, write_scan
from modules import load_perfusion

SPEAKS = "import sys,time\nsay=lambda t: (sys.stderr.write(t+chr(10)), sys.stderr.flush())\n"
SLOW = 'import os,json\nos.setsid()\nsay(json.dumps({"pid": os.getpid()}))\n' + (
    'say(\'{"stage": "fit", "done": 0.4, "message": "fitting 7 voxels"}\')\nsay("note")\ntime.sleep(60)\n'
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("panel"), left_handed)


@pytest.fixture
def panel(shim, scene):
    loaded = load_perfusion(shim, panel=True)
    yield loaded
    loaded.widget.cleanup()
    shim.unload(loaded)
    assert not shim.errors


def replace_engine(panel, script):
    panel.widget.logic.run.command = lambda arguments: [sys.executable, "-c", SPEAKS + script]


def wait(condition, seconds=120.0):
    """Let Qt work until something holds; returns the longest time that it was busy, in CPU s: the machine may be busy with others."""
    import slicer

    end, longest = time.monotonic() + seconds, 0.0
    while not condition():
        assert time.monotonic() < end
        begin = time.thread_time()
        slicer.app.processEvents()
        longest = max(longest, time.thread_time() - begin)
        time.sleep(0.005)
    return longest


def names(scene):
    """Without display nodes, which the application makes when it likes."""
    found = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
    return [node.GetName() for node in found if not node.IsA("vtkMRMLDisplayNode")]


def test_click_from_file_to_maps(shim, scene, panel, scan, tmp_path):
    """Choose, Apply, progress, maps over M0, region table, curve at the crosshair; the picture is for people to look at."""
    import slicer

    ui, logic = panel.widget.ui, panel.widget.logic
    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    assert not ui.applyButton.enabled
    assert ui.statusLabel.text == "Still missing: ASL series"
    asl, m0 = logic.load(scan), logic.load(scan.with_name("sub-01_m0scan.nii.gz"))
    ui.asl.setCurrentNode(asl)
    assert ui.applyButton.enabled
    assert "PCASL; delays 0.5, 1.5, 2.5 s" in ui.acquisitionLabel.text
    ui.m0.setCurrentNode(m0)
    ui.device.currentText = "cpu"
    assert not ui.showCurve.enabled
    ui.applyButton.click()
    assert ui.applyButton.text == "Cancel"
    assert ui.applyButton.enabled
    wait(lambda: ui.progressBar.value > 0)
    panel.grab(tmp_path / "running.png")
    wait(lambda: not logic.run.busy)
    assert ui.applyButton.text == "Apply"
    assert "voxels fitted, median" in ui.statusLabel.text
    assert "mL/100 g/min, on cpu" in ui.log.plainText
    maps = logic.results(panel.widget._parameterNode)
    assert {"cbf", "cbf_std", "att", "att_std", "status", "mask", "data", "fit", "fitstd", "quality", "checks"} <= set(maps)
    assert composite.GetBackgroundVolumeID() == m0.GetID()
    assert composite.GetForegroundVolumeID() == maps["cbf"].GetID()

    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "brain")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(maps["mask"], segmentation)
    ui.regions.setCurrentNode(segmentation)
    assert ui.regionsButton.enabled
    ui.regionsButton.click()
    assert logic.results(panel.widget._parameterNode)["regions"].GetNumberOfRows() == 1

    crosshair = scene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    inside = np.argwhere(slicer.util.arrayFromVolume(maps["mask"]) > 0)
    k, j, i = inside[len(inside) // 2]
    from PINNCommonLib import nodes

    ui.showCurve.click()
    crosshair.SetCursorPositionRAS((nodes.matrix_of(maps["mask"]) @ [i, j, k, 1])[:3])
    chart = scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetTitle().startswith("R ")
    assert scene.GetFirstNodeByName("ASL curve").GetNumberOfRows() == 3
    ui.showCurve.click()
    title = chart.GetTitle()
    crosshair.SetCursorPositionRAS((nodes.matrix_of(maps["mask"]) @ [i + 1, j, k, 1])[:3])
    assert chart.GetTitle() == title
    panel.grab(tmp_path / "done.png")


def test_cancel_by_the_same_button(shim, scene, panel, scan):
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.asl.setCurrentNode(logic.load(scan))
    replace_engine(panel, SLOW)
    before = names(scene)
    ui.applyButton.click()
    wait(lambda: ui.progressBar.value == 42)
    assert ui.statusLabel.text == "fitting 7 voxels"
    wait(lambda: "note" in ui.log.plainText)
    ui.applyButton.click()
    assert logic.run.state == "cancelling"
    assert not ui.applyButton.enabled
    wait(lambda: not logic.run.busy, 20)
    assert (ui.applyButton.text, ui.statusLabel.text) == ("Apply", "Cancelled.")
    assert ui.applyButton.enabled
    assert names(scene) == before
    assert logic.results(panel.widget._parameterNode) == {}


def test_the_panel_answers_while_a_fit_runs(shim, scene, panel, scan):
    """Never busy for 100 ms while the engine floods the log."""
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.asl.setCurrentNode(logic.load(scan))
    flood = 'for i in range(200):\n    say(\'{"stage": "fit", "done": %f, "message": "m"}\' % (i / 200))\n'
    flood += '    say("line %d" % i)\n    time.sleep(.005)\n'
    replace_engine(panel, flood + 'say("error: enough"); sys.exit(2)')
    ui.applyButton.click()
    assert wait(lambda: not logic.run.busy) < 0.1
    assert ui.statusLabel.text == "enough"


def test_an_error_is_one_line_in_the_panels_words(shim, scene, panel, scan, tmp_path):
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.asl.setCurrentNode(logic.load(scan))
    replace_engine(panel, 'say("error: sub-01_asl.nrrd: --plds must have 6 entries, found 2, fix --plds"); sys.exit(2)')
    ui.applyButton.click()
    wait(lambda: not logic.run.busy)
    assert logic.run.state == "failed"
    assert ui.statusLabel.text == "sub-01_asl.nrrd: “Delays” must have 6 entries, found 2, fix “Delays”"
    assert "are kept in" in ui.log.plainText
    assert shim.messages == []  # no pop-ups
    assert ui.applyButton.enabled
    panel.grab(tmp_path / "failed.png")


def test_preset_by_hand_fills_the_fields_and_a_scene_does_not(shim, scene, panel):
    from PINNPerfusionLib import options

    ui = panel.widget.ui
    index = next(i for i, name in enumerate(options.PRESETS) if "QUIPSS" in name)
    ui.preset.currentIndex = index  # as when a scene is loaded
    assert ui.delays.text == ""
    ui.preset.activated.emit(index)
    assert (ui.labeling.currentText, ui.delays.text, ui.duration.text) == ("PASL", "1.8", "0.8")


def test_scene_close_stops_the_fit_and_empties_the_panel(shim, scene, panel, scan):
    ui, logic = panel.widget.ui, panel.widget.logic
    ui.asl.setCurrentNode(logic.load(scan))
    ui.delays.text = "1.0"
    replace_engine(panel, SLOW)
    ui.applyButton.click()
    wait(lambda: ui.progressBar.value == 42)
    scene.Clear(0)
    assert logic.run.state == "idle"
    assert ui.asl.currentNode() is None
    assert ui.delays.text == ""
    assert not ui.applyButton.enabled


def test_leaving_and_coming_back_keeps_the_choices(shim, scene, panel, scan):
    ui = panel.widget.ui
    ui.asl.setCurrentNode(panel.widget.logic.load(scan))
    ui.delays.text, ui.spatial.checked = "0.5, 1.0", True
    panel.widget.exit()
    panel.widget.enter()
    assert (ui.delays.text, ui.spatial.checked, ui.asl.currentNode().GetName()) == ("0.5, 1.0", True, "sub-01_asl")


def test_wrong_sizes_and_transforms_are_told_before_anything_runs(shim, scene, panel, scan):
    import slicer

    ui, logic = panel.widget.ui, panel.widget.logic
    ui.asl.setCurrentNode(logic.load(scan))
    small = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "small")
    slicer.util.updateVolumeFromArray(small, np.ones((3, 4, 5), np.float32))
    ui.m0.setCurrentNode(small)
    ui.applyButton.click()
    assert ui.statusLabel.text == "M0 and the ASL series have different sizes, 5 x 4 x 3 against 15 x 18 x 13: resample M0 to the series."
    m0 = logic.load(scan.with_name("sub-01_m0scan.nii.gz"))
    m0.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    ui.m0.setCurrentNode(m0)
    ui.applyButton.click()
    assert "different transforms" in ui.statusLabel.text
    ui.delays.text = "one, two"
    m0.SetAndObserveTransformNodeID(None)
    ui.applyButton.click()
    assert "Delays: 'one, two' is not a list of numbers" in ui.statusLabel.text


def test_sample_data_is_our_own_phantom(shim, panel):
    import SampleData
    import slicer

    slicer.app.emit("startupCompleted()")
    source = SampleData.SampleDataLogic.sources["PINN"][-1]
    assert source["sampleName"] == "ASL phantom"
    assert len(source["uris"]) == len(source["fileNames"]) == len(source["nodeNames"]) == len(source["loadFileType"])
    assert callable(source["customDownloader"])


def test_self_test_of_the_module(shim, scene, monkeypatch):
    """What Reload & Test runs in Slicer; the longer scenarios are covered above."""
    python = load_perfusion(shim)
    from PINNPerfusionLib import scenarios

    monkeypatch.setattr(scenarios, "ALL", (scenarios.fit_of_the_phantom, scenarios.bad_input_is_one_sentence))
    python.PINNPerfusionTest().runTest()
