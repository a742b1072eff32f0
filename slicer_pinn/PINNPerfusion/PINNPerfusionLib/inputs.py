"""From the chosen nodes to the files and options of one call of the engine, all on one right-handed grid in RAS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import slicer
import vtk
from PINNCommonLib import nodes
from PINNCommonLib.explain import Problem

from . import sidecars
from .options import Settings, arguments
from .sidecars import Beside

DELAY_NAMES = r"pld|delay|ti\b|inversion"  # index names of a sequence whose values are delays


@dataclass(frozen=True)
class Image:
    """`array` (volumes, k, j, i) float32 on the grid `matrix` (index to RAS, right-handed); `turned`: k was turned around for that."""

    array: np.ndarray
    matrix: np.ndarray
    transform: object
    turned: bool


def sequence_of(node):
    """The sequence that a node is, or that it plays through a browser; else None."""
    if node is None or node.IsA("vtkMRMLSequenceNode"):
        return node
    browsers = slicer.mrmlScene.GetNodesByClass("vtkMRMLSequenceBrowserNode")
    browsers.UnRegister(None)
    found = (browsers.GetItemAsObject(index).GetSequenceNode(node) for index in range(browsers.GetNumberOfItems()))
    return next((one for one in found if one is not None), None)


def proxy_of(sequence):
    """The volume that shows a sequence in the views; None where it has none."""
    browsers = slicer.mrmlScene.GetNodesByClass("vtkMRMLSequenceBrowserNode")
    browsers.UnRegister(None)
    found = (browsers.GetItemAsObject(index).GetProxyNode(sequence) for index in range(browsers.GetNumberOfItems()))
    return next((one for one in found if one is not None), None)


def file_of(node) -> Path | None:
    """The file that a node was read from, if it still stands there."""
    holder = sequence_of(node) or node
    storage = holder.GetStorageNode()
    name = (storage.GetFileName() if storage is not None else None) or holder.GetAttribute("PINN.File")
    return Path(name) if name and Path(name).is_file() else None


def beside(node) -> Beside:
    """What is known of the acquisition from beside the file: read once and kept in the node; a saved scene needs the file no more."""
    holder = sequence_of(node) or node
    if holder.GetAttribute("PINN.Sidecar") is None:
        file = file_of(node)
        found = sidecars.look_beside(file) if file is not None else Beside()
        if file is not None:
            holder.SetAttribute("PINN.File", str(file))
        holder.SetAttribute("PINN.Sidecar", json.dumps(found.fields))
        holder.SetAttribute("PINN.Context", found.context)
        holder.SetAttribute("PINN.SidecarName", found.name)
        holder.SetAttribute("PINN.Notes", json.dumps(found.notes))
    kept = {name: holder.GetAttribute(f"PINN.{name}") or "" for name in ("Context", "SidecarName")}
    notes = tuple(json.loads(holder.GetAttribute("PINN.Notes") or "[]"))
    found = Beside(json.loads(holder.GetAttribute("PINN.Sidecar")), kept["Context"], kept["SidecarName"], notes)
    delays = index_delays(holder if holder.IsA("vtkMRMLSequenceNode") else None)
    if delays and "PostLabelingDelay" not in found.fields:
        found = replace(found, fields=found.fields | {"PostLabelingDelay": delays}, name=found.name or "the sequence's index")
    return found


def load(path: Path):
    """A node of an image file: a sequence for a 4-D one, with a volume that plays it where the application does that."""
    try:
        series = sidecars.is_series(path)
    except (OSError, ValueError) as error:
        raise Problem(f"{path.name} cannot be read as an image: {error}") from None
    _refuse_cut(path)
    if not series:
        volume = nodes.read_volume(path, sidecars.stem(path))
        volume.SetAttribute("PINN.File", str(path))
        return volume
    sequence = nodes.read_sequence(path, sidecars.stem(path))
    sequence.SetAttribute("PINN.File", str(path))
    beside(sequence)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{sequence.GetName()} browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence


def read_image(node, what: str) -> Image:
    """All volumes of a sequence, or of a scalar or multi-component volume. Raises Problem for what is no image."""
    if node is None or not (node.IsA("vtkMRMLSequenceNode") or node.IsA("vtkMRMLVolumeNode")):
        raise Problem(f"{what}: choose a volume or a sequence of volumes" + (f", not {node.GetName()}." if node is not None else "."))
    file = file_of(node)
    if file is not None:
        _refuse_cut(file)
    sequence = sequence_of(node)
    if sequence is not None:
        frames = [sequence.GetNthDataNode(index) for index in range(sequence.GetNumberOfDataNodes())]
        if not frames or not all(frame.IsA("vtkMRMLVolumeNode") and frame.GetImageData() is not None for frame in frames):
            raise Problem(f"{what} {node.GetName()}: it is not a sequence of volumes.")
        sizes = {frame.GetImageData().GetDimensions() for frame in frames}
        if len(sizes) > 1:
            raise Problem(f"{what} {node.GetName()}: its volumes have different sizes, {_sizes(sizes)}.")
        matrix = nodes.matrix_of(frames[0])
        if any(not np.allclose(nodes.matrix_of(frame), matrix, atol=1e-3) for frame in frames[1:]):
            raise Problem(f"{what} {node.GetName()}: its volumes do not lie in one place; resample them to the first.")
        array = np.stack([_float(slicer.util.arrayFromVolume(frame)) for frame in frames])
        proxy = proxy_of(sequence) if node.IsA("vtkMRMLSequenceNode") else node
        transform = None if proxy is None else proxy.GetParentTransformNode()
    else:
        if node.GetImageData() is None:
            raise Problem(f"{what} {node.GetName()}: the volume is empty.")
        matrix, array = nodes.matrix_of(node), _float(slicer.util.arrayFromVolume(node))
        array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
        transform = node.GetParentTransformNode()
    array, matrix, turned = nodes.right_handed(array, matrix)
    return Image(array, matrix, transform, turned)


def export(folder: Path, settings: Settings, asl, m0=None, mask=None) -> list[str]:
    """Write the files and return the arguments of the call, the output folder included."""
    image = read_image(asl, "ASL series")
    found = beside(asl)
    known = found.fields
    name = prefix(asl)
    path = folder / f"{name}_asl.nrrd"
    nodes.write_nrrd(path, image.array if len(image.array) > 1 else image.array[0], image.matrix)
    if known:
        _write_json(folder / f"{name}_asl.json", sidecars.turned(known) if image.turned else known)
    if found.context.strip():
        (folder / f"{name}_aslcontext.tsv").write_text(found.context, encoding="utf-8")
    call = ["asl", str(path), "--out", str(output_folder(folder, settings)), *arguments(settings, known)]
    calibration = _m0(folder, name, settings, known, image, asl, m0)
    if calibration:
        call += ["--m0", calibration]
    if mask is not None:
        call += ["--mask", str(_mask(folder, image, asl, mask))]
    return call


def output_folder(folder: Path, settings: Settings) -> Path:
    return Path(settings.outputFolder).expanduser() if settings.outputFolder.strip() else folder / "out"


def prefix(asl) -> str:
    """What the files are called after: the node's name as far as a file can have it."""
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", (sequence_of(asl) or asl).GetName() or "").strip("_.")
    return re.sub("_asl$", "", name) or "scan"


def index_delays(sequence) -> list[float]:
    """Delays in s that the index of a sequence holds, empty where it counts frames or measures something else."""
    if sequence is None or not re.search(DELAY_NAMES, str(sequence.GetIndexName()), re.IGNORECASE):
        return []
    factor = {"s": 1.0, "ms": 1e-3, "": 1.0}.get(str(sequence.GetIndexUnit() or ""))
    try:
        values = [float(sequence.GetNthIndexValue(index)) for index in range(sequence.GetNumberOfDataNodes())]
    except ValueError:
        return []
    return [] if factor is None else [round(value * factor, 6) for value in values]


def _m0(folder: Path, name: str, settings: Settings, known: Mapping[str, object], image: Image, asl, m0) -> str:
    """The value of --m0, empty where the engine finds M0 in the series itself or there is none. A separate M0 beside the file is read."""
    if settings.meanControl:
        return "control"
    file = file_of(m0) if m0 is not None else None
    if m0 is not None:
        volume = read_image(m0, "M0")
        _refuse_other_transform(volume.transform, image.transform, m0)
    elif str(known.get("M0Type", "")).lower() == "separate":
        beside = file_of(asl)
        file = sidecars.m0_beside(beside) if beside is not None else None
        if file is None:
            raise Problem("The sidecar says that M0 is an image of its own: load it and choose it as M0.")
        volume = _read_file(file)
    else:
        return ""
    if volume.array.shape[1:] != image.array.shape[1:]:
        sizes = _sizes([volume.array.shape[:0:-1], image.array.shape[:0:-1]], " against ")
        raise Problem(f"M0 and the ASL series have different sizes, {sizes}: resample M0 to the series.")
    path = folder / f"{name}_m0scan.nrrd"
    nodes.write_nrrd(path, volume.array if len(volume.array) > 1 else volume.array[0], volume.matrix)
    about = sidecars.look_beside(file).fields if file is not None else {}
    if about:
        _write_json(folder / f"{name}_m0scan.json", about)
    return str(path)


def _read_file(path: Path) -> Image:
    """An image file through MRML, without leaving a node in the scene."""
    _refuse_cut(path)
    node = nodes.read_sequence(path, path.name) if sidecars.is_series(path) else nodes.read_volume(path, path.name)
    try:
        return read_image(node, "M0")
    finally:
        slicer.mrmlScene.RemoveNode(node)


def _mask(folder: Path, image: Image, asl, mask) -> Path:
    """A label map, a volume (not 0 = inside) or a segmentation (all its segments) as a file on the grid of the series."""
    if mask.IsA("vtkMRMLSegmentationNode"):
        array = segments_on_grid(image, mask)[0] > 0
    else:
        volume = read_image(mask, "Mask")
        _refuse_other_transform(volume.transform, image.transform, mask)
        array = volume.array[0] != 0
        if array.shape != image.array.shape[1:]:
            sizes = _sizes([array.shape[::-1], image.array.shape[:0:-1]], " against ")
            raise Problem(f"Mask and ASL series have different sizes, {sizes}: resample the mask to the series.")
        if not np.allclose(volume.matrix, image.matrix, atol=1e-2):
            raise Problem("Mask and ASL series do not lie on one grid: resample the mask to the series (nearest neighbour).")
    if not array.any():
        raise Problem(f"Mask {mask.GetName()}: it holds no voxel of the series.")
    path = folder / "mask.nrrd"
    nodes.write_nrrd(path, array.astype(np.uint8), image.matrix)
    return path


def segments_on_grid(image: Image, segmentation) -> tuple[np.ndarray, dict[int, str]]:
    """(k, j, i) labels of all segments on a grid, and their names. Where segments overlap the later one counts."""
    scene = slicer.mrmlScene
    before = _node_ids()
    reference = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "pinn reference")
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "pinn labels")
    try:
        slicer.util.updateVolumeFromArray(reference, np.zeros(image.array.shape[1:], np.uint8))
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(image.matrix.ravel())
        reference.SetIJKToRASMatrix(matrix)
        if image.transform is not None:
            reference.SetAndObserveTransformNodeID(image.transform.GetID())
        ids = vtk.vtkStringArray()
        segmentation.GetSegmentation().GetSegmentIDs(ids)
        if ids.GetNumberOfValues() == 0:
            raise Problem(f"Segmentation {segmentation.GetName()}: it has no segments.")
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if not logic.ExportSegmentsToLabelmapNode(segmentation, ids, labels, reference):
            raise Problem(f"Segmentation {segmentation.GetName()}: its segments cannot be laid on the grid of the series.")
        array = np.array(slicer.util.arrayFromVolume(labels))
        names = [segmentation.GetSegmentation().GetSegment(ids.GetValue(index)).GetName() for index in range(ids.GetNumberOfValues())]
        return array, {index + 1: name for index, name in enumerate(names)}
    finally:
        for name in _node_ids() - before:  # the export makes a display node and a colour table as well
            scene.RemoveNode(scene.GetNodeByID(name))


def _node_ids() -> set[str]:
    return {slicer.mrmlScene.GetNthNode(index).GetID() for index in range(slicer.mrmlScene.GetNumberOfNodes())}


def _refuse_cut(path: Path) -> None:
    if sidecars.cut_short(path):
        raise Problem(f"{path.name} is cut short: what is missing would be read as zeros. Copy or export it again.")


def _refuse_other_transform(one, other, node) -> None:
    if one is not other:
        raise Problem(f"{node.GetName()} and the ASL series stand under different transforms: harden or remove them first.")


def _sizes(sizes, joined: str = ", ") -> str:
    return joined.join(" x ".join(str(size) for size in one) for one in sizes)


def _float(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
