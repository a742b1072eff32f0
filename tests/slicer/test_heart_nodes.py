"""The electrophysiology module on the real scene: coordinates, arrays, units, what a scene keeps, and the real command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from heart_models import EXTENSION, RANGES, model_node, polydata, pretend_fit, sheet

from pinn_engine.files import mesh as engine_mesh
from pinn_engine.files import opencarp, vtkmesh
from pinn_engine.files.mesh import Mesh


@pytest.fixture
def logic(shim, scene):
    """The module's logic, without its panel."""
    return shim.load_module(
        EXTENSION / "PINNElectrophysiology" / "PINNElectrophysiology.py", with_widget=False
    ).python.PINNElectrophysiologyLogic()


def read_model(path: Path):
    """As Slicer reads a model file: LPS unless the file says RAS."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    storage = slicer.vtkMRMLModelStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def points_of(node):
    import slicer

    return slicer.util.arrayFromModelPoints(node)


@pytest.mark.parametrize("space", ["", "LPS", "RAS"])
def test_engine_gets_the_places_that_slicer_shows(logic, tmp_path, space):
    from PINNElectrophysiologyLib import inputs, options

    points, cells = sheet()
    path = vtkmesh.write(Mesh(points, cells, {"LAT": points[:, 0]}, space=space), tmp_path / "map.vtp")
    node = read_model(path)
    assert np.allclose(points_of(node), points * ((1, 1, 1) if space == "RAS" else (-1, -1, 1)))
    call = inputs.export(tmp_path, options.Settings(), node)
    sent = engine_mesh.read(call[2])
    assert sent.space == "RAS"
    assert np.allclose(sent.ras_points, points_of(node))
    assert np.allclose(sent.find("LAT"), points[:, 0])


def test_loaded_file_stands_where_slicer_puts_it(logic, tmp_path):
    points, cells = sheet()
    field = {"measured_position": points[:5], "measured_LAT": np.arange(5.0)}
    mesh = Mesh(
        points, cells, {"LAT": points[:, 0], "bipolar": points[:, 1]}, field_data=field, fibres=np.tile([1.0, 2.0, 3.0], (len(cells), 1))
    )
    path = vtkmesh.write(mesh, tmp_path / "map.vtp")
    node = logic.load(path)
    assert np.allclose(points_of(node), points_of(read_model(path)))
    assert logic.arrayNames(node) == ["LAT", "bipolar"]
    from PINNElectrophysiologyLib import inputs, options

    (tmp_path / "sent").mkdir()
    sent = engine_mesh.read(inputs.export(tmp_path / "sent", options.Settings(), node)[2])
    assert np.allclose(sent.field_data["measured_position"], points[:5] * (-1, -1, 1))
    assert np.allclose(sent.fibres, [-1.0, -2.0, 3.0])
    assert np.allclose(points_of(logic.load(path, "RAS")), points)


def test_opencarp_and_failures(logic, tmp_path):
    from PINNCommonLib.explain import Problem

    points, cells = sheet()
    opencarp.write(Mesh(points, cells), tmp_path / "map")
    (tmp_path / "map.LAT.dat").write_text("\n".join(str(x) for x in points[:, 0]))
    node = logic.load(tmp_path / "map.pts", "RAS")
    assert np.allclose(points_of(node), points)
    assert logic.arrayNames(node) == ["LAT"]
    (tmp_path / "broken.mesh").write_text("nothing")
    for name, words in (("broken.mesh", "CARTO"), ("none.vtk", "no such file"), ("map.docx", "reads .vtk")):
        with pytest.raises(Problem, match=words) as caught:
            logic.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_volume_is_no_model(logic, scene):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a volume")
    with pytest.raises(RuntimeError, match="a volume: it is no model; choose a surface or a volume mesh"):
        logic.process(volume, waitForCompletion=True)


def test_transforms(logic, scene, tmp_path):
    import slicer
    import vtk
    from PINNCommonLib.explain import Problem
    from PINNElectrophysiologyLib import inputs, options

    turn = vtk.vtkMatrix4x4()
    turn.DeepCopy((0, -1, 0, 10, 1, 0, 0, 20, 0, 0, 1, 30, 0, 0, 0, 1))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(turn)
    node = model_node()
    points = points_of(node).copy()
    node.SetAndObserveTransformNodeID(transform.GetID())
    sent = engine_mesh.read(inputs.export(tmp_path, options.Settings(), node)[2])
    assert np.allclose(sent.points, np.stack([10 - points[:, 1], 20 + points[:, 0], 30 + points[:, 2]], axis=1))
    assert np.allclose(points_of(node), points)  # the input is not touched
    assert node.GetMesh().GetFieldData().GetAbstractArray("SPACE") is None
    pretend_fit(tmp_path, node)
    made = logic_collect(tmp_path, node)
    assert made["model"].GetParentTransformNode() is transform
    assert np.allclose(points_of(made["model"]), points)
    reference = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "reference")
    slicer.util.updateVolumeFromArray(reference, np.zeros((3, 4, 5)))
    reference.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(Problem, match="harden it first"):
        inputs.export(tmp_path, options.Settings(), node, reference)


def test_reference_grid_arrives(logic, scene, tmp_path):
    """Left-handed and oblique: what the engine reads is the node's own grid."""
    import slicer
    import vtk
    from PINNElectrophysiologyLib import inputs, options

    from pinn_engine.files import load

    reference = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "reference")
    slicer.util.updateVolumeFromArray(reference, np.zeros((3, 4, 5)))
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.array([[-2 * c, -3 * s, 0, 7], [-2 * s, 3 * c, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1.0]])
    assert np.linalg.det(affine) < 0
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(affine.ravel())
    reference.SetIJKToRASMatrix(matrix)
    call = inputs.export(tmp_path, options.Settings(), model_node(), reference)
    grid = load.read(call[call.index("--reference") + 1], what="reference image")[1]
    assert grid.shape == (5, 4, 3)
    assert np.allclose(grid.affine, affine, atol=1e-5)


def test_every_choice_is_an_option_of_the_engine(logic, tmp_path):
    from PINNCommonLib.explain import Problem
    from PINNElectrophysiologyLib import inputs, options

    from pinn_engine.cli import parser

    node = model_node(V=np.ones((64, 5)))
    seen = set()
    for unknowns in options.UNKNOWNS:
        for method in options.METHODS:
            for unit in options.TIME_UNITS:
                settings = options.Settings("V", unknowns, unit, 2.0, method, 0.3, 0.1, "0:4:1", "a = .02, b=.15")
                call = parser().parse_args(inputs.export(tmp_path, settings, node))
                seen.add((call.map, call.unknown, call.method, call.time_unit))
                assert (call.spacing, call.across, call.noise, call.array, call.parameters) == (2.0, 0.3, 0.1, "V", ["a=.02,b=.15"])
                assert np.loadtxt(call.times).tolist() == [0, 1, 2, 3, 4]
    assert len(seen) == 4 * 3 * 2
    plain = parser().parse_args(inputs.export(tmp_path, options.Settings(), node))
    assert (plain.array, plain.across, plain.noise, plain.times, plain.parameters, plain.method) == (None, None, None, None, [], None)
    for wrong in ({"times": "1 2 x"}, {"times": "5:1:1"}, {"array": "nothing"}, {"unknowns": "all"}):
        with pytest.raises(Problem):
            inputs.export(tmp_path, options.Settings(**wrong), node)


def logic_collect(folder, model, output=None, **settings):
    from PINNElectrophysiologyLib import options, results

    return results.collect(folder, options.Settings(**settings), model, None, output)[0]


def test_nodes_have_ranges_units_and_legends(logic, scene, tmp_path):
    import slicer

    node = model_node()
    pretend_fit(tmp_path, node)
    made = logic_collect(tmp_path, node)
    output = made["model"]
    from PINNElectrophysiologyLib import results

    for key, title, unit in (
        ("CV", "Conduction velocity", "m/s"),
        ("LAT", "Activation time", "ms"),
        ("D_std", "standard deviation", "mm²/ms"),
    ):
        results.show(output, key)
        display = output.GetDisplayNode()
        low, high = display.GetScalarRange()
        assert display.GetActiveScalarName() == key
        assert display.GetScalarRangeFlag() == slicer.vtkMRMLDisplayNode.UseManualScalarRange
        assert low < high <= RANGES[key][1] * 1.01
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(output)
        assert title in legend.GetTitleText()
        assert unit in legend.GetTitleText()
    output.GetMesh().GetPointData().RemoveArray("CV_std")
    results.show(output, "CV_std")  # as after a fit of numbers, which makes no such map
    assert output.GetDisplayNode().GetActiveScalarName() == "CV"
    results.show(output, "status")
    assert output.GetDisplayNode().GetScalarRange() == (0.0, 4.0)
    codes = {"CV": "m/s", "D": "mm2/ms", "LAT": "ms", "CV_std": "m/s", "D_std": "mm2/ms", "LAT_std": "ms"}
    assert {role: made[role].GetVoxelValueUnits().GetCodeValue() for role in codes} == codes
    table = made["table"].GetTable()
    assert [table.GetColumnByName(name).GetValue(0) for name in ("parameter", "value", "std", "unit", "status")] == [
        "k",
        8.0,
        0.0,
        "1",
        "given",
    ]
    columns = made["traces"].GetTable()
    assert columns.GetNumberOfRows() == 64
    assert made["chart"].GetNumberOfPlotSeriesNodes() == 2
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(one)) for role, one in made.items()}
    assert len(parents) == 1
    count = scene.GetNumberOfNodes()
    again = logic_collect(tmp_path, node, output)
    assert again == made
    assert scene.GetNumberOfNodes() == count
    tu = logic_collect(tmp_path, node, timeUnit="tu")
    assert tu["CV"].GetVoxelValueUnits().GetCodeValue() == "mm/{TU}"


def test_traces_of_V(logic, scene, tmp_path):
    from PINNElectrophysiologyLib import traces

    V = np.arange(64 * 5, dtype=float).reshape(64, 5)
    V[3, 2] = np.nan
    node = model_node(V=V)
    pretend_fit(tmp_path, node, with_V=True)
    made = logic_collect(tmp_path, node, array="V")
    place = points_of(node)[17] + (0.3, -0.2, 0.1)
    assert traces.node_at(made["model"], place) == 17
    logic.showTrace(made["model"], place)
    table = made["traces"].GetTable()
    columns = {name: [table.GetColumnByName(name).GetValue(i) for i in range(5)] for name in ("time", "measured", "fitted")}
    assert columns == {"time": [0, 1, 2, 3, 4], "measured": V[17].tolist(), "fitted": [0, 0.25, 0.5, 0.75, 1]}
    logic.showTrace(node, place)  # no result: nothing happens


def test_one_array_a_frame(logic):
    from PINNElectrophysiologyLib import inputs

    node = model_node(**{f"V_{i}": np.full(64, float(i)) for i in range(3)}, speeds=np.ones((64, 3)))
    assert inputs.array_names(node) == ["LAT", "V"]  # three components are a vector
    assert inputs.point_array(node.GetMesh(), "V").tolist()[5] == [0, 1, 2]
    assert inputs.has_data(node)
    assert not inputs.has_data(model_node_without_data())


def model_node_without_data():
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    node.SetAndObserveMesh(polydata(*sheet()))
    return node


def test_scene_keeps_results_and_parameters(shim, logic, scene, tmp_path):
    import slicer

    node = model_node()
    pretend_fit(tmp_path, node)
    made = logic_collect(tmp_path, node)
    parameters = logic.getParameterNode()
    parameters.inputModel, parameters.outputModel, parameters.noise, parameters.given = node, made["model"], 2.5, "a=.02"
    CV, points = slicer.util.arrayFromModelPointData(made["model"], "CV").copy(), points_of(made["model"]).copy()
    for role in ("model", "CV"):
        one = made[role]
        one.SetName(role)
        one.AddDefaultStorageNode()
        one.GetStorageNode().SetFileName(str(tmp_path / f"{role}{'.vtp' if role == 'model' else '.nrrd'}"))
        assert one.GetStorageNode().WriteData(one)
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(tmp_path / "input.vtp"))
    assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    again = shim.new_scene()
    again.SetURL(str(tmp_path / "scene.mrml"))
    again.Connect()
    kept = logic.getParameterNode()
    assert (kept.noise, kept.given, kept.inputModel.GetName(), kept.outputModel.GetName()) == (2.5, "a=.02", "heart map", "model")
    model = kept.outputModel
    assert np.allclose(points_of(model), points, atol=1e-4)
    assert np.allclose(slicer.util.arrayFromModelPointData(model, "CV"), CV)
    assert model.GetDisplayNode().GetActiveScalarName() == "CV"
    assert again.GetFirstNodeByName("CV").GetVoxelValueUnits().GetCodeValue() == "m/s"
    assert model.GetNodeReference("PINN.CV").GetName() == "CV"


def test_tetrahedra_by_the_real_command_line(logic, scene):
    """A block of tissue as an unstructured grid; the model's cells, order and places stay."""
    import slicer

    from pinn_engine.cardiac.shapes import grid_mesh

    block = grid_mesh((9, 5, 3), 2.0)[0]
    assert block.cells.shape[1] == 4
    points = block.points + np.array([40.0, -30.0, 20.0])
    node = scene.AddNewNodeByClass("vtkMRMLModelNode", "block of tissue")
    node.SetAndObserveMesh(vtkmesh.to_vtk(Mesh(points, block.cells, {"LAT": block.points[:, 0] / 0.5})))
    made = logic.process(node, waitForCompletion=True, spacing=2.0, device="cpu")
    output = made["model"]
    assert output.GetMesh().IsA("vtkUnstructuredGrid")
    assert output.GetMesh().GetNumberOfCells() == len(block.cells)
    assert np.allclose(points_of(output), points)
    CV = slicer.util.arrayFromModelPointData(output, "CV")
    assert abs(float(np.median(CV)) - 0.5) < 0.05
    values, place = slicer.util.arrayFromVolume(made["CV"]), np.zeros(6)
    made["CV"].GetRASBounds(place)
    assert (place[::2] <= points.min(axis=0)).all()
    assert (place[1::2] >= points.max(axis=0)).all()
    assert values.max() > 0.4
    assert json.loads(output.GetAttribute("PINN.Fit"))


@pytest.mark.parametrize("name", ["fit_of_the_sample", "run_again_from_the_parameter_node", "bad_input_is_one_sentence"])
def test_scenarios(logic, scene, name):
    """What the module's self-test runs in Slicer, with the real command line."""
    from PINNElectrophysiologyLib import scenarios

    assert [one.__name__ for one in scenarios.ALL] == [
        "fit_of_the_sample",
        "run_again_from_the_parameter_node",
        "bad_input_is_one_sentence",
    ]
    assert getattr(scenarios, name)(logic)
