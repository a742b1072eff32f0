"""Our doubles beside Slicer's own Python files: runs where SLICER_SOURCE names a checkout of Slicer.

With that variable the whole of tests/slicer runs on Slicer's files; these tests compare the two directly.
"""

import os
import shutil
from pathlib import Path
from typing import Annotated

import pytest

SOURCE = os.environ.get("SLICER_SOURCE")
pytestmark = pytest.mark.skipif(not SOURCE, reason="SLICER_SOURCE names no checkout of Slicer")


def declare(home):
    """The same class of parameters by our double or by Slicer's wrapper."""
    import slicer

    class Parameters:
        volume: slicer.vtkMRMLScalarVolumeNode
        factor: Annotated[float, home.WithinRange(0, 10)] = 2.5
        count: Annotated[int, home.Minimum(1)] = 3
        choice: Annotated[str, home.Choice(["a", "b"])] = "b"
        flag: bool = True
        words: str = "some words"
        numbers: list[float]

    Parameters.__annotations__["volume"] = slicer.vtkMRMLScalarVolumeNode  # names of this function are not seen by get_type_hints
    return home.parameterNodeWrapper(Parameters)


def test_same_text_in_the_node(shim, scene):
    import slicer.parameterNodeWrapper
    from shim import parameters

    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "v")
    nodes = [scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode") for _ in range(2)]
    wrapped = [declare(home)(node) for home, node in zip((parameters, slicer.parameterNodeWrapper), nodes, strict=True)]
    for one in wrapped:
        one.volume, one.factor, one.flag, one.numbers = volume, 7, False, [1.5, 2.0]
    texts = [{name: node.GetParameter(name) for name in node.GetParameterNames()} for node in nodes]
    assert texts[0] == texts[1]
    assert nodes[0].GetNodeReferenceID("volume") == nodes[1].GetNodeReferenceID("volume") == volume.GetID()
    crossed = declare(parameters)(nodes[1])  # ours reads what Slicer wrote
    assert (crossed.volume, crossed.factor, crossed.flag, list(crossed.numbers)) == (volume, 7.0, False, [1.5, 2.0])
    for one in wrapped:
        for name, wrong in (("factor", 11), ("count", 0), ("choice", "c"), ("words", None)):
            with pytest.raises(ValueError, match="Value"):
                setattr(one, name, wrong)
        with pytest.raises(ValueError, match="Cannot find a param"):
            one.getValue("nothing")


def test_bases_have_what_ours_have():
    import slicer.ScriptedLoadableModule as real
    from shim import scripted

    for name in scripted.__all__:
        ours, theirs = vars(getattr(scripted, name)), dir(getattr(real, name))
        assert [key for key in ours if not key.startswith("__") and key not in theirs] in ([], ["messageDelay"])


def test_official_template_unmodified(shim, scene, tmp_path):
    template = Path(SOURCE) / "Utilities/Templates/Modules/Scripted"
    shutil.copytree(template / "Resources", tmp_path / "Resources")
    shutil.copy(template / "TemplateKey.py", tmp_path)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "v")
    loaded = shim.load_module(tmp_path / "TemplateKey.py")
    ui = loaded.widget.ui
    assert ui.inputSelector.currentNode() is volume
    assert not ui.applyButton.enabled
    ui.outputSelector.addNode()
    assert ui.applyButton.enabled
    ui.imageThresholdSliderWidget.value = 42
    assert loaded.widget._parameterNode.imageThreshold == 42
    scene.Clear(0)
    assert not ui.applyButton.enabled
    assert not shim.errors
    shim.unload(loaded)
