"""What the module must do, told once: for Reload & Test in Slicer and for our own tests without the application.

Every scenario takes a logic, works in an empty scene and returns one sentence; it raises AssertionError where something is wrong.
"""

from __future__ import annotations

import numpy as np
import slicer

SPACING = 12.0  # mm: a phantom of a few hundred voxels


def fit_of_the_phantom(logic) -> str:
    """Series and M0 in, maps out: values, units, display, place in RAS."""
    asl, m0 = logic.loadPhantom(SPACING)
    maps = logic.process(asl, m0, waitForCompletion=True, device="cpu")
    cbf = maps["cbf"]
    inside = slicer.util.arrayFromVolume(maps["mask"]) > 0
    values = slicer.util.arrayFromVolume(cbf)
    assert 20 < np.median(values[inside]) < 80, np.median(values[inside])
    assert not values[~inside].any()
    assert cbf.GetVoxelValueUnits().GetCodeValue() == "ml/(100.g.min)"
    low, high = cbf.GetDisplayNode().GetWindowLevelMin(), cbf.GetDisplayNode().GetWindowLevelMax()
    assert (low, high) == (0.0, 100.0)
    one, other = np.zeros((2, 6))
    cbf.GetRASBounds(one)
    m0.GetRASBounds(other)
    assert np.allclose(one, other, atol=1e-3)
    return logic.run.message


def run_again_from_the_parameter_node(logic) -> str:
    """Two runs of the same settings give the same nodes, not more of them."""
    node = logic.getParameterNode()
    node.asl, node.m0 = logic.loadPhantom(SPACING)
    node.device = "cpu"
    assert not logic.missing(node)
    first = dict(logic.processParameterNode(node, waitForCompletion=True))
    count = slicer.mrmlScene.GetNumberOfNodes()
    logic.processParameterNode(node, waitForCompletion=True)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert logic.results(node) == first
    return logic.run.message


def region_table(logic) -> str:
    """A segmentation drawn anywhere gives a row a segment."""
    node = logic.getParameterNode()
    node.asl, node.m0 = logic.loadPhantom(SPACING)
    node.device = "cpu"
    maps = logic.processParameterNode(node, waitForCompletion=True)
    node.regions = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "regions")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(maps["mask"], node.regions)
    table = logic.makeRegionTable(node)
    assert table.GetNumberOfRows() == 1
    mask = slicer.util.arrayFromVolume(maps["mask"]) > 0
    assert float(table.GetTable().GetColumnByName("Voxels").GetValue(0)) == mask.sum()
    return f"{table.GetNumberOfRows()} region"


def bad_input_is_one_sentence(logic) -> str:
    """A mask of another size is refused before anything is started, with both sizes."""
    asl, m0 = logic.loadPhantom(SPACING)
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "small")
    slicer.util.updateVolumeFromArray(mask, np.ones((3, 4, 5), np.uint8))
    refused = ""
    try:
        logic.process(asl, m0, mask, waitForCompletion=True)
    except RuntimeError as error:
        refused = str(error)
    assert "5 x 4 x 3" in refused, refused
    return refused


ALL = (
    fit_of_the_phantom,
    run_again_from_the_parameter_node,
    region_table,
    bad_input_is_one_sentence,
)
