"""What the module must do, told once: for Reload & Test in Slicer and for our own tests without the application.

Every scenario takes a logic, works in an empty scene and returns one sentence; it raises AssertionError where something is wrong.
"""

from __future__ import annotations

import numpy as np
import slicer

from . import results
from .sample import make_node

SMALL = {"rings": 16, "around": 24, "share": 0.6, "noise": 1.0}  # some 360 nodes


def fit_of_the_sample(logic) -> str:
    """Model in; model, volumes, table and plot out: values, units, range, place in RAS."""
    model = make_node(**SMALL)
    made = logic.process(model, waitForCompletion=True, spacing=3.0, device="cpu")
    output = made["model"]
    CV, truth = (slicer.util.arrayFromModelPointData(node, name) for node, name in ((output, "CV"), (model, "truth_CV")))
    tissue = results.tissue_of(output.GetMesh())
    error = float(np.median(np.abs(CV / truth - 1)[tissue]))
    assert error < 0.2, error
    assert np.array_equal(slicer.util.arrayFromModelPoints(output), slicer.util.arrayFromModelPoints(model))
    assert made["CV"].GetVoxelValueUnits().GetCodeValue() == "m/s"
    display = output.GetDisplayNode()
    assert display.GetActiveScalarName() == "CV"
    assert display.GetScalarRangeFlag() == slicer.vtkMRMLDisplayNode.UseManualScalarRange
    around, box = np.zeros((2, 6))
    output.GetRASBounds(around)
    made["CV"].GetRASBounds(box)
    assert (box[::2] <= around[::2]).all()
    assert (box[1::2] >= around[1::2]).all()
    return f"{logic.run.message} Median error of CV {error:.0%}."


def run_again_from_the_parameter_node(logic) -> str:
    """Two runs of the same settings give the same nodes, not more of them."""
    node = logic.getParameterNode()
    node.inputModel, node.spacing, node.device = make_node(**SMALL), 4.0, "cpu"
    assert not logic.lack(node)
    first = dict(logic.processParameterNode(node, waitForCompletion=True))
    count = slicer.mrmlScene.GetNumberOfNodes()
    second = logic.processParameterNode(node, waitForCompletion=True)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert second == first
    return logic.run.message


def bad_input_is_one_sentence(logic) -> str:
    """A model without activation times: refused by the engine, told in its one line."""
    model = make_node(**SMALL | {"share": 0.0})
    try:
        logic.process(model, waitForCompletion=True)
    except RuntimeError as error:
        sentence = str(error)
    else:
        sentence = ""
    assert sentence, "a model without a single time was fitted"
    assert "\n" not in sentence
    return sentence


ALL = (fit_of_the_sample, run_again_from_the_parameter_node, bad_input_is_one_sentence)
