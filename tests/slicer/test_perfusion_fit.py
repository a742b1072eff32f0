"""L1: the perfusion logic on real MRML with the real command line, from nodes to nodes."""

import json

import numpy as np
import pytest
from images import in_ras, left_handed, oblique, write_scan
from modules import load_perfusion


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Left-handed, oblique, anisotropic, 2-D with slice times, M0 in a file of its own."""
    return write_scan(tmp_path_factory.mktemp("scan"), oblique)


@pytest.fixture(scope="module")
def reference(scan, tmp_path_factory):
    """What the command line makes of the file itself."""
    from pinn_engine.cli import main

    out = tmp_path_factory.mktemp("reference")
    assert main(["asl", str(scan), "--out", str(out), "--device", "cpu", "--threads", "1", "--progress", "none"]) == 0
    return out


def alike(found, expected):
    """The order of voxels differs, and with it the last digits."""
    assert np.any(expected != 0)
    return np.mean(np.abs(found - expected) <= 1e-3 * np.abs(expected) + 1e-4) > 0.998


def test_maps_are_those_of_the_command_line_in_ras(shim, scene, scan, reference, tmp_path):
    """Also the settings: saved with the scene, loaded into another one, run again without the original files."""
    import slicer

    logic = load_perfusion(shim).PINNPerfusionLogic()
    node = logic.getParameterNode()
    node.asl, node.device, node.outputFolder = logic.load(scan), "cpu", str(tmp_path / "kept")
    assert "PCASL; delays 0.5, 1.5, 2.5 s; label duration 1.8 s; 6 control, 6 label" in logic.acquisition(node.asl)
    assert logic.missing(node) == []
    maps = logic.processParameterNode(node, waitForCompletion=True)
    for role, suffix in {
        "cbf": "cbf",
        "cbf_std": "desc-std_cbf",
        "att": "att",
        "status": "desc-status_dseg",
        "mask": "desc-brain_mask",
    }.items():
        assert alike(*in_ras(maps[role], reference / f"sub-01_{suffix}.nii.gz")), role
    assert (tmp_path / "kept" / "sub-01_cbf.json").is_file()  # units are lost in NIfTI and NRRD themselves
    assert logic.report(node).name == "sub-01_report.html"
    assert "voxels fitted, median" in logic.run.message

    cbf, display = maps["cbf"], maps["cbf"].GetDisplayNode()
    assert cbf.GetVoxelValueUnits().GetCodeValue() == "ml/(100.g.min)"
    assert cbf.GetVoxelValueQuantity().GetCodingSchemeDesignator() == "DCM"
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    assert display.GetApplyThreshold()
    assert "Rainbow" not in display.GetColorNodeID()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cbf)
    assert "mL/100 g/min" in legend.GetTitleText()
    names = maps["status"].GetDisplayNode().GetColorNode()
    assert names.GetColorName(1) == "The fit converged."
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = {hierarchy.GetItemName(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(one))) for one in maps.values()}
    assert parents == {"sub-01 perfusion"}

    scene.SetRootDirectory(str(tmp_path / "saved"))
    (tmp_path / "saved").mkdir()
    save(scene, tmp_path / "saved")
    before = {role: slicer.util.arrayFromVolume(maps[role]).copy() for role in ("cbf", "att")}
    again = shim.new_scene()
    again.SetURL(str(tmp_path / "saved" / "scene.mrml"))
    assert again.Connect()
    logic = load_perfusion(shim).PINNPerfusionLogic()
    node = logic.getParameterNode()
    assert (node.device, node.asl.GetName()) == ("cpu", "sub-01_asl")
    assert logic.results(node)["cbf"].GetVoxelValueUnits().GetCodeValue() == "ml/(100.g.min)"
    node.m0 = logic.load(scan.with_name("sub-01_m0scan.nii.gz"))
    scan.rename(scan.with_name("gone.nii.gz"))  # the saved scene needs neither file nor sidecar any more
    try:
        assert "PCASL" in logic.acquisition(node.asl)
        maps = logic.processParameterNode(node, waitForCompletion=True)
    finally:
        scan.with_name("gone.nii.gz").rename(scan)
    for role, values in before.items():
        assert np.allclose(slicer.util.arrayFromVolume(maps[role]), values, rtol=1e-4, atol=1e-3)


def save(scene, folder):
    """As the application saves: every storable node into a file of its own, then the scene."""
    import slicer

    nodes = scene.GetNodesByClass("vtkMRMLStorableNode")
    nodes.UnRegister(None)
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        if not node.GetSaveWithScene() or node.IsA("vtkMRMLColorNode") or node.IsA("vtkMRMLSubjectHierarchyNode"):
            continue
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        if storage is not None:
            extension = ".seq.nrrd" if node.IsA("vtkMRMLSequenceNode") else "." + storage.GetDefaultWriteFileExtension()
            storage.SetFileName(str(folder / f"{node.GetID()}{extension}"))
            assert storage.WriteData(node), node.GetName()
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Commit()
    assert slicer.mrmlScene is scene


def test_curve_of_a_voxel_is_that_of_the_files(shim, scene, scan, reference):
    """Data, fit and band at a point in RAS, with the slice's own time, from nodes alone; outside the mask nothing."""
    import nibabel
    import slicer
    from PINNPerfusionLib import curve, results

    asl = load_perfusion(shim).PINNPerfusionLogic().load(scan)
    made = {}
    results.collect(reference, "sub-01", "sub-01 perfusion", asl, None, made)
    mask = nibabel.load(reference / "sub-01_desc-brain_mask.nii.gz")
    voxels = np.argwhere(np.asarray(mask.dataobj) > 0)
    voxel = voxels[len(voxels) // 3]
    ras = (mask.affine @ [*voxel, 1])[:3]
    columns = curve.curve_at(made, ras)
    about = json.loads((reference / "sub-01_desc-fit_asl.json").read_text("utf-8"))
    data, fit, std = (
        np.asarray(nibabel.load(reference / f"sub-01_desc-{name}_asl.nii.gz").dataobj)[tuple(voxel)] for name in ("data", "fit", "fitstd")
    )
    assert np.allclose(columns["data"], data)
    assert np.allclose(columns["high"] - columns["fit"], 1.96 * std, rtol=1e-4)
    assert np.allclose(columns["fit"], fit)
    assert about["SliceDelay"][voxel[2]] != about["SliceDelay"][0]
    assert np.allclose(columns["delay"], np.array(about["PostLabelingDelay"]) + about["SliceDelay"][voxel[2]])
    plot = {}
    assert curve.show_curve(made, ras, plot)
    assert plot["table"].GetNumberOfRows() == 3
    assert plot["chart"].GetNumberOfPlotSeriesNodes() == 4
    assert not curve.show_curve(made, ras + 500, plot)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = slicer.util.vtkMatrixFromArray(np.array([[1, 0, 0, 40.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    transform.SetMatrixTransformToParent(matrix)
    made["mask"].SetAndObserveTransformNodeID(transform.GetID())
    assert np.allclose(curve.curve_at(made, ras + np.array([40, 0, 0]))["data"], data)


def test_region_table_is_the_engines(shim, scene, scan, tmp_path):
    """Segments that are drawn in Slicer against `--labels` with the same voxels."""
    import nibabel
    import slicer
    from PINNPerfusionLib import regions, results

    from pinn_engine.cli import main

    image = nibabel.load(scan.with_name("sub-01_m0scan.nii.gz"))
    labels = np.zeros(image.shape[:3], np.uint8)
    labels[4:8, 5:12, 4:9], labels[8:11, 5:12, 4:9] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), tmp_path / "labels.nii.gz")
    call = [
        "asl",
        str(scan),
        "--out",
        str(tmp_path / "out"),
        "--labels",
        str(tmp_path / "labels.nii.gz"),
        "--device",
        "cpu",
        "--progress",
        "none",
    ]
    assert main(call) == 0
    rows = [line.split("\t") for line in (tmp_path / "out" / "sub-01_desc-roi_cbf.tsv").read_text("utf-8").splitlines()]
    logic = load_perfusion(shim).PINNPerfusionLogic()
    made = {}
    results.collect(tmp_path / "out", "sub-01", "sub-01 perfusion", logic.load(scan), None, made)
    labelmap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    from PINNCommonLib import nodes

    nodes.read_volume(tmp_path / "labels.nii.gz", "labels", labelmap)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lobes")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labelmap, segmentation)
    by_segments = regions.region_table(made, segmentation).GetTable()
    by_labels = regions.region_table(made, labelmap).GetTable()
    at = {name: rows[0].index(name) for name in ("voxels", "cbf_mean", "cbf_median", "cbf_se", "cbf_se_together", "att_mean")}
    ours = {"voxels": "Voxels", "cbf_mean": "CBF mean", "cbf_median": "CBF median", "cbf_se": "CBF se"}
    ours |= {"cbf_se_together": "CBF se together", "att_mean": "ATT mean"}
    for table in (by_segments, by_labels):
        assert table.GetNumberOfRows() == 2
        for row, engine in enumerate(rows[1:]):
            for theirs, column in ours.items():
                if theirs != "voxels":  # theirs are those in the mask
                    assert float(table.GetColumnByName(column).GetValue(row)) == pytest.approx(float(engine[at[theirs]]), rel=2e-3), column
    node = regions.region_table(made, segmentation)
    assert node.GetColumnUnitLabel("CBF mean") == "mL/100 g/min"


def test_left_handed_file_keeps_its_slice_times(shim, scene, tmp_path):
    """Trap: MRML turns k around in left-handed files, so the order of slices must be told turned around as well."""
    from PINNPerfusionLib import sidecars

    path = write_scan(tmp_path / "las", left_handed)
    right = write_scan(tmp_path / "ras", lambda data, affine: (data, affine))
    assert sidecars.look_beside(path).fields["SliceEncodingDirection"] == "k-"
    assert sidecars.look_beside(right).fields.get("SliceEncodingDirection", "k") == "k"
    assert sidecars.turned({"SliceTiming": [0, 1], "SliceEncodingDirection": "k-"})["SliceEncodingDirection"] == "k"
    assert sidecars.turned({"SliceTiming": [0, 1], "SliceEncodingDirection": "j"})["SliceEncodingDirection"] == "j"


def test_every_kind_of_mask_and_series_gives_the_same_files(shim, scene, scan, tmp_path):
    """Label map, volume or segmentation; the sequence or the volume that plays it; a transform that all share changes nothing."""
    import slicer
    from PINNPerfusionLib import inputs, options

    logic = load_perfusion(shim).PINNPerfusionLogic()
    asl, m0 = logic.load(scan), logic.load(scan.with_name("sub-01_m0scan.nii.gz"))
    slicer.app.processEvents()
    proxy = inputs.proxy_of(asl)
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume")
    inside = np.zeros(slicer.util.arrayFromVolume(m0).shape, np.uint8)
    inside[3:9, 4:12, 5:9] = 1
    for node in (labels, volume):
        slicer.util.updateVolumeFromArray(node, inside)
        node.CopyOrientation(m0)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, segmentation)
    count, written = scene.GetNumberOfNodes(), {}
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = slicer.util.vtkMatrixFromArray(np.array([[1, 0, 0, 40.0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    transform.SetMatrixTransformToParent(matrix)
    cases = {"labels": (asl, labels), "volume": (proxy, volume), "segmentation": (asl, segmentation), "moved": (proxy, segmentation)}
    for name, (series, mask) in cases.items():
        if name == "moved":
            for node in (proxy, m0, segmentation):
                node.SetAndObserveTransformNodeID(transform.GetID())
        folder = tmp_path / name
        folder.mkdir()
        call = inputs.export(folder, options.Settings(), series, m0, mask)
        assert call[call.index("--mask") + 1] == str(folder / "mask.nrrd")
        written[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(written["labels"]) == {
        "mask.nrrd",
        "sub-01_asl.nrrd",
        "sub-01_asl.json",
        "sub-01_aslcontext.tsv",
        "sub-01_m0scan.nrrd",
        "sub-01_m0scan.json",
    }
    assert all(files == written["labels"] for files in written.values())
    assert np.frombuffer(written["labels"]["mask.nrrd"][-inside.size :], np.uint8).sum() == inside.sum()
    assert scene.GetNumberOfNodes() == count + 1  # nothing is left behind but the transform


def test_maps_follow_the_transform_of_the_series(shim, scene, scan, reference):
    from PINNPerfusionLib import results

    asl = load_perfusion(shim).PINNPerfusionLogic().load(scan)
    transform, made = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode"), {}
    results.collect(reference, "sub-01", "moved", asl, transform, made)
    assert made["cbf"].GetParentTransformNode() is made["status"].GetParentTransformNode() is transform


def test_refused_by_the_engine_is_one_line_of_the_panel(shim, scene, scan):
    """The real engine: two delays for six pairs; no temporary path, no option of the command line in the sentence."""
    logic = load_perfusion(shim).PINNPerfusionLogic()
    with pytest.raises(RuntimeError) as error:
        logic.process(logic.load(scan), delays="0.5, 1.0", waitForCompletion=True, device="cpu")
    said = str(error.value)
    assert said.startswith("sub-01_asl.nrrd: “Delays” must have")
    assert "2" in said
    assert "--" not in said
    assert "\n" not in said
