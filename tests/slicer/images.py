"""Small scans for the tests of the extension: the phantom on awkward grids, and images in RAS to compare."""

import json

import numpy as np

TURNED = np.array([[0.96, -0.25, 0.10], [0.26, 0.95, -0.15], [-0.06, 0.17, 0.98]])  # nearly a rotation; made one below


def rotation():
    u, _, v = np.linalg.svd(TURNED)
    return u @ v


def write_scan(folder, affine_of, *, slice_time=0.04):
    """The 12 mm phantom as a BIDS scan, 2-D readout, on the grid `affine_of(affine, shape) -> (affine, flips)`; path of the series."""
    import nibabel

    from pinn_engine.asl.phantom import make, write_bids

    phantom = make((15, 18, 13), 12.0, 1, plds=[0.5, 1.5, 2.5], repeats=2, snr=250, slice_time=slice_time)
    path = write_bids(phantom, folder)["asl"]
    for file in (path, path.with_name("sub-01_m0scan.nii.gz")):
        image = nibabel.load(file)
        data, affine = affine_of(np.asarray(image.dataobj), image.affine)
        made = nibabel.Nifti1Image(data.astype(np.float32), affine)
        made.set_sform(affine, 1)
        made.set_qform(affine, 1)
        nibabel.save(made, file)
    return path


def left_handed(data, affine):
    """i turned around: the world is the same, the grid is LAS."""
    turned = affine.copy()
    turned[:3, 0], turned[:3, 3] = -affine[:3, 0], affine[:3, 3] + (data.shape[0] - 1) * affine[:3, 0]
    return data[::-1], turned


def oblique(data, affine):
    """Left-handed, turned in space, and 12 x 9 x 7 mm."""
    data, affine = left_handed(data, affine)
    moved = affine.copy()
    moved[:3, :3] = rotation() @ affine[:3, :3] @ np.diag([1.0, 0.75, 7 / 12])
    moved[:3, 3] = [31.0, -22.0, 17.0]
    return data, moved


def in_ras(node, path):
    """Pairs of values of a volume node and of a file at the same places in RAS, whatever the order of their voxels."""
    import nibabel
    import slicer
    import vtk

    array = slicer.util.arrayFromVolume(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    k, j, i = np.indices(array.shape).reshape(3, -1)
    ijk = np.stack([i, j, k, np.ones_like(i)])
    ras = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)]) @ ijk
    image = nibabel.load(path)
    there = np.linalg.inv(image.affine) @ ras
    index = np.rint(there[:3]).astype(int)
    assert np.abs(there[:3] - index).max() < 1e-2
    assert (index >= 0).all()
    assert (np.array(image.shape[:3])[:, None] > index).all()
    return array[k, j, i], np.asarray(image.dataobj)[tuple(index)]


def json_of(path):
    return json.loads(path.read_text("utf-8"))
