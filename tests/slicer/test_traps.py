"""L1: what MRML does to images, each trap that was found with a test of our answer to it."""

import nibabel as nib
import numpy as np
import pytest
from images import in_ras, left_handed, oblique, rotation, write_scan
from modules import load_perfusion


@pytest.fixture
def nodes(shim, scene):
    import modules  # noqa: F401  # puts the extension on the path
    from PINNCommonLib import nodes

    return nodes


def nifti(path, data, affine, scode=1, qcode=1, qform=None):
    import nibabel

    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, scode)
    image.set_qform(affine if qform is None else qform, qcode)
    nibabel.save(image, path)
    return path


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1


RIGHT = np.array([[3.0, 0, 0, -20], [0, 4.0, 0, -10], [0, 0, 5.0, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("grid", [left_handed, oblique, lambda data, affine: (data, affine)], ids=["left-handed", "oblique", "plain"])
def test_images_keep_their_place_in_ras(nodes, tmp_path, grid):
    """MRML turns left-handed files around, in every frame of a series; what we write and read again stays in its place."""
    import slicer

    series, affine = grid(numbers(4, 5, 6, 3), RIGHT)
    path = nifti(tmp_path / "one.nii.gz", series[..., 1], affine)
    node = nodes.read_volume(path, "one")
    assert np.linalg.det(nodes.matrix_of(node)[:3, :3]) > 0
    ours, theirs = in_ras(node, path)
    assert np.array_equal(ours, theirs)
    four = nodes.read_sequence(nifti(tmp_path / "four.nii.gz", series, affine), "four")
    assert four.GetNumberOfDataNodes() == 3
    assert np.array_equal(in_ras(four.GetNthDataNode(1), path)[0], theirs)
    nodes.write_nrrd(tmp_path / "again.nrrd", slicer.util.arrayFromVolume(node), nodes.matrix_of(node))
    again = nodes.read_volume(tmp_path / "again.nrrd", "again")
    assert np.allclose(nodes.matrix_of(again), nodes.matrix_of(node), atol=1e-5)
    assert np.array_equal(in_ras(again, path)[0], theirs)


@pytest.mark.parametrize("volumes", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_the_engine_reads_what_is_written(nodes, tmp_path, volumes, dtype):
    from pinn_engine.files import nrrd

    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation() @ np.diag([2.0, 3.0, 4.0]), [5, -6, 7]
    array = (numbers(volumes, 4, 5, 6) % 100).astype(dtype)
    nodes.write_nrrd(tmp_path / "a.nrrd", array if volumes > 1 else array[0], matrix)
    data, grid = nrrd.read(tmp_path / "a.nrrd")
    assert np.allclose(grid.affine, matrix, atol=1e-6)
    assert np.array_equal(data, array.transpose(3, 2, 1, 0) if volumes > 1 else array[0].transpose(2, 1, 0))


def test_right_handed_turns_a_left_handed_node(nodes):
    left = RIGHT @ np.diag([1, 1, -1, 1.0])
    array, matrix, turned = nodes.right_handed(numbers(2, 6, 5, 4), left)
    assert turned
    assert np.linalg.det(matrix[:3, :3]) > 0
    assert np.array_equal(array, numbers(2, 6, 5, 4)[:, ::-1])
    assert np.allclose(matrix @ [1, 2, 0, 1], left @ [1, 2, 5, 1])
    assert nodes.right_handed(array, matrix)[2] is False


def test_sheared_images_are_one_sentence(nodes, scene, tmp_path):
    from PINNCommonLib.explain import Problem

    sheared = RIGHT.copy()
    sheared[0, 1] = 2.0
    with pytest.raises(Problem, match="resample it first"):
        nodes.read_volume(nifti(tmp_path / "a.nii", numbers(4, 5, 6), sheared, qcode=0, qform=RIGHT), "a")
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "tilted")
    node.SetIJKToRASDirections(1, 0.4, 0, 0, 1, 0, 0, 0, 1)
    with pytest.raises(Problem, match="tilted: its axes are not at right angles"):
        nodes.matrix_of(node)


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (2, 1), (3, 0), (4, 2)])
def test_sform_and_qform_as_mrml_takes_them(nodes, tmp_path, codes):
    """Which of the two MRML takes decides whether slices are turned around; where they differ the person is told."""
    from PINNPerfusionLib import sidecars

    other = left_handed(np.zeros((4, 5, 6)), RIGHT)[1] + np.diag([0, 0, 0, 0.0])
    other[2, 3] += 30
    path = nifti(tmp_path / "a.nii.gz", numbers(4, 5, 6), RIGHT, *codes, qform=other)
    matrix, differ = sidecars.header_matrix(path)
    assert differ == (codes[0] > 0 and codes[1] > 0)
    found = nodes.matrix_of(nodes.read_volume(path, "a"))
    if np.linalg.det(matrix[:3, :3]) > 0:
        assert np.allclose(found, np.vstack([matrix, [0, 0, 0, 1]]), atol=1e-4)
    else:
        assert np.allclose(found[:3, 2], -matrix[:3, 2], atol=1e-4)
    assert bool(sidecars.look_beside(path).notes) == differ


@pytest.mark.parametrize("values", [0.0, 7.0, "noise"])
def test_window_is_never_automatic(nodes, scene, values):
    """A constant map would get a window of -0.0008, inf one of NaN."""
    import slicer
    from PINNPerfusionLib.mapspecs import CBF, RELATIVE

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "map")
    array = np.random.default_rng(1).normal(50, 10, (4, 5, 6)) if values == "noise" else np.full((4, 5, 6), values)
    slicer.util.updateVolumeFromArray(node, array.astype(np.float32))
    node.CreateDefaultDisplayNodes()
    for spec in (CBF, CBF.std(), RELATIVE):
        nodes.dress_volume(node, spec)
        display = node.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        assert np.isfinite([low, high]).all()
        assert high > low
        assert not display.GetAutoWindowLevel()
        assert (low, high) == (spec.window or (low, high))
        assert display.GetColorNodeID() is not None
        assert display.GetColorNodeID() != "vtkMRMLColorTableNodeRainbow"  # shows 0, the background, red
        assert display.GetLowerThreshold() == pytest.approx(1e-6)


def test_colours_fall_back_to_what_every_scene_has(nodes, scene):
    from PINNPerfusionLib.mapspecs import SCALAR

    for spec in SCALAR.values():
        assert nodes.color_node(spec.colors) is not None
        assert nodes.color_node(spec.std().colors) is not None
    assert nodes.color_node(["vtkMRMLColorTableNodeNone"]) is None


def test_maps_are_those_of_the_engine(nodes):
    """Units and windows here and in the engine's own table."""
    from PINNPerfusionLib.mapspecs import SCALAR

    from pinn_engine.asl import maps

    for kind in (maps.CBF, maps.RELATIVE_CBF, maps.ATT, maps.T1B, maps.ABV, maps.ABAT):
        spec = SCALAR[kind.suffix]
        assert (spec.unit, spec.window, spec.title) == (kind.unit, kind.window, kind.title)
        assert kind.std_suffix == f"desc-std_{spec.key}"


def test_series_without_delays(shim, scene, tmp_path):
    """A 4-D NIfTI comes as frames: delays from a pasted list, a preset or the index of the sequence; else they are missing."""
    logic = load_perfusion(shim).PINNPerfusionLogic()
    from PINNPerfusionLib import options

    path = nifti(tmp_path / "scan.nii.gz", numbers(4, 5, 6, 4), RIGHT)
    node = logic.getParameterNode()
    assert logic.missing(node) == ["ASL series"]
    node.asl = logic.load(path)
    assert node.asl.GetNumberOfDataNodes() == 4
    assert logic.missing(node) == ["Labelling", "Delays", "Label duration", "Order of volumes"]
    logic.applyPreset(node, next(name for name in options.PRESETS if "pCASL" in name))
    node.volumes = "control, label, control, …"
    assert logic.missing(node) == []
    assert (node.delays, node.duration, node.labeling, node.unknown) == ("1.8", "1.8", "pCASL", "CBF alone")
    node.delays = "[0.5; 1.0\t1.5]"
    call = options.arguments(options.Settings.of(node), {})
    assert call[call.index("--plds") + 1] == "0.5,1.0,1.5"
    logic.applyPreset(node, next(name for name in options.PRESETS if "QUIPSS" in name))
    call = options.arguments(options.Settings.of(node), {})
    assert call[call.index("--tis") + 1] == "1.8"
    assert call[call.index("--bolus-duration") + 1] == "0.8"
    logic.applyPreset(node, options.INFANT)
    call = options.arguments(options.Settings.of(node), {})
    assert call[call.index("--preset") + 1] == "infant"
    assert "--no-spatial" not in call
    node.spatial = False
    assert "--no-spatial" in options.arguments(options.Settings.of(node), {})
    node.spatial = True
    logic.applyPreset(node, options.FROM_FILES)
    assert "Delays" in logic.missing(node)
    node.asl.SetIndexName("PLD")
    node.asl.SetIndexUnit("ms")
    for index in range(4):
        node.asl.UpdateIndexValue(node.asl.GetNthIndexValue(0), str(500.0 + index))
    assert logic.missing(node) == ["Labelling", "Label duration"]


@pytest.mark.parametrize("share", [0.99, 0.5])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_short_is_refused(shim, scene, tmp_path, suffix, share):
    """MRML reads what is missing as zeros without a word; half a series then gave maps of another perfusion."""
    module = load_perfusion(shim)
    logic = module.PINNPerfusionLogic()
    scan = write_scan(tmp_path, left_handed)
    path = tmp_path / f"cut_asl{suffix}"
    nib.save(nib.load(scan), path)
    whole = path.read_bytes()
    assert logic.load(path) is not None
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Exception, match=f"cut_asl{suffix} is cut short: what is missing would be read as zeros"):
        logic.load(path)
    from PINNCommonLib import nodes

    added = nodes.read_sequence(path, "cut")  # as by File > Add Data
    added.SetAttribute("PINN.File", str(path))
    with pytest.raises(RuntimeError, match="is cut short"):
        logic.process(added, waitForCompletion=True)


def test_what_is_no_image_or_no_choice_is_one_sentence(shim, scene, tmp_path):
    """Scripts can pass what the selectors of the panel never offer."""
    logic = load_perfusion(shim).PINNPerfusionLogic()
    scan = logic.load(write_scan(tmp_path, left_handed))
    model = scene.AddNewNodeByClass("vtkMRMLModelNode", "a model")
    for asl, m0, settings, words in (
        (None, None, {}, "ASL series: choose a volume or a sequence of volumes."),
        (model, None, {}, "ASL series: choose a volume or a sequence of volumes, not a model."),
        (scan, model, {}, "M0: choose a volume or a sequence of volumes, not a model."),
        (scan, None, {"method": "bayes"}, "method: 'bayes' is not one of "),
    ):
        with pytest.raises(RuntimeError, match=words):
            logic.process(asl, m0, waitForCompletion=True, **settings)


def test_bundled_names_are_slicers(shim):
    """PyPI has another package called slicer; with it nothing here would mean anything."""
    import slicer

    assert hasattr(slicer, "vtkMRMLScene")
    assert "slicer_core" in slicer.vtkMRMLScene.__module__
