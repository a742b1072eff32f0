"""The shim must be strict where Slicer is: mistakes in a module have to show here."""

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def doubler(folder, **changes):
    """A copy of the template module with text replaced: `py=(old, new)`, `ui=(old, new)`."""
    shutil.copytree(HERE / "doubler", folder / "doubler")
    files = {"py": folder / "doubler" / "Doubler.py", "ui": folder / "doubler" / "Resources" / "UI" / "Doubler.ui"}
    for key, (old, new) in changes.items():
        text = files[key].read_text("utf-8")
        assert old in text
        files[key].write_text(text.replace(old, new), "utf-8")
    return files["py"]


def test_panel_follows_the_node_and_back(shim, scene, tmp_path):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "brain")
    loaded = shim.load_module(doubler(tmp_path))
    ui, node = loaded.widget.ui, loaded.widget.node
    assert not ui.applyButton.enabled
    ui.volumeSelector.setCurrentNode(volume)
    assert node.volume is volume
    assert ui.applyButton.enabled
    ui.factorSlider.value = 3.0
    ui.timesBox.value = 2
    ui.greetingBox.currentText = "goodbye"
    ui.loudBox.click()
    ui.noteEdit.text = "some words"
    assert (node.factor, node.times, node.greeting, node.loud, node.note) == (3.0, 2, "goodbye", True, "some words")
    node.factor = 4.0
    assert ui.factorSlider.value == 4.0
    ui.applyButton.click()
    assert node.history == [16.0]
    assert not shim.errors
    with pytest.raises(ValueError, match="within range"):
        node.factor = 11.0
    loaded.module.runTest()
    shim.unload(loaded)


def test_failure_is_shown_and_the_cursor_comes_back(shim, scene, tmp_path):
    import slicer

    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "brain")
    loaded = shim.load_module(doubler(tmp_path))
    loaded.widget.ui.volumeSelector.setCurrentNode(scene.GetFirstNodeByName("brain"))
    loaded.widget.ui.factorSlider.value = 0.0
    loaded.widget.ui.applyButton.click()
    assert shim.messages[0][0] == "Doubling failed.\n\nfactor is 0"
    assert slicer.app.cursors == []
    assert str(shim.errors[0]) == "factor is 0"  # raised again, as in Slicer
    shim.unload(loaded)


def test_scene_close_gives_a_new_parameter_node(shim, scene, tmp_path):
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "brain")
    loaded = shim.load_module(doubler(tmp_path))
    loaded.widget.ui.volumeSelector.setCurrentNode(scene.GetFirstNodeByName("brain"))
    loaded.widget.node.note = "old"
    scene.Clear(0)
    assert loaded.widget.node.note == ""
    assert loaded.widget.ui.volumeSelector.currentNode() is None
    assert not loaded.widget.ui.applyButton.enabled
    assert not shim.errors
    shim.unload(loaded)


def test_scene_save_and_load_keeps_the_parameters(shim, scene, tmp_path):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "brain")
    loaded = shim.load_module(doubler(tmp_path))
    node = loaded.widget.node
    node.volume, node.factor, node.history = volume, 7.5, [1.0, 2.5]
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    shim.unload(loaded)
    again = shim.new_scene()
    again.SetURL(str(tmp_path / "scene.mrml"))
    again.Connect()
    kept = loaded.python.DoublerLogic().getParameterNode()
    assert (kept.volume.GetName(), kept.factor, kept.history) == ("brain", 7.5, [1.0, 2.5])


def test_selector_without_scene_connection_stays_grey(shim, scene, tmp_path):
    loaded = shim.load_module(doubler(tmp_path, ui=("<receiver>volumeSelector</receiver>", "<receiver>Doubler</receiver>")))
    assert not loaded.widget.ui.volumeSelector.enabled
    shim.unload(loaded)
    shim.unload(loaded := shim.load_module(doubler(tmp_path / "right")))
    assert loaded.widget.ui.volumeSelector.enabled


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ui": ("<string>factor</string>", "<string>facter</string>")}, ValueError, "Cannot find a param .* facter"),
        ({"py": ("= 2.0", "= 20.0")}, ValueError, "within range"),
        ({"py": ("ui.applyButton.connect", "ui.applyBotton.connect")}, AttributeError, "applyBotton"),
        ({"py": ("applyButton.enabled =", "applyButton.enabeld =")}, AttributeError, "enabeld"),
        ({"py": ("clicked(bool)", "klicked(bool)")}, AttributeError, "klicked"),
        ({"ui": ('class="ctkSliderWidget"', 'class="xtkSliderWidget"')}, RuntimeError, "xtkSliderWidget"),
        ({"ui": ("noneEnabled", "noneEnable")}, RuntimeError, "noneEnable"),
    ],
)
def test_mistakes_are_seen(shim, scene, tmp_path, changes, error, words):
    if "SLICER_SOURCE" in os.environ and words.startswith("Cannot find"):
        words = "Cannot find a param"
    with pytest.raises(error, match=words):
        shim.load_module(doubler(tmp_path, **changes))


def test_missing_names_are_missing(shim):
    import ctk
    import qt
    import slicer

    for module, name in ((qt, "QTextCodec"), (qt, "Signal"), (qt, "numpy"), (ctk, "QWidget"), (slicer, "cli")):
        with pytest.raises(AttributeError):
            getattr(module, name)
    assert isinstance(qt.QPushButton(), qt.QWidget)
    assert not isinstance(qt.QTimer(), qt.QWidget)
