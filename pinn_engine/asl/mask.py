"""Where the brain is: a mask that is given, or one made from the images; never silently empty."""

from __future__ import annotations

from os import PathLike, fspath

import numpy as np

from ..errors import InputError
from ..files import load as images
from ..files.grid import Grid

SMOOTHING = 3.0  # mm, standard deviation
SMOOTHING_NOISY = 5.0  # mm, for differences
CLOSING = 10.0  # mm, radius
DARKEST_SLICE = 0.25  # of the brightest; darker ones are mostly air
UNIFORM = 0.7  # of a slice's brightness: an image without anything darker shows no air
OVERSHOOT = 0.05  # of resampled masks: interpolation by splines leaves 0 to 1
MOST_LABELS = 1000  # a label image has no more
SMALLEST = 10  # voxels; less is no brain but noise


def read(path: str | PathLike[str], grid: Grid, notes: list[str], what: str = "mask", *, one_region: bool = False) -> np.ndarray:
    """(X, Y, Z) bool: above one half. What is no image of 0 and one other value is said in `notes`.

    Raises InputError for another grid, an empty mask, a picture, and with `one_region` for an image of several labels.
    """
    data, found = images.read(path, ndim=(3,), what=what)
    if not grid.matches(found):
        wanted = " x ".join(map(str, grid.shape))
        raise InputError(path, f"{what} must be on the grid of the ASL series ({wanted})", found=grid.difference(found), fix="resample it")
    data = np.nan_to_num(data, posinf=0.0, neginf=0.0)
    mask = data > 0.5
    if not mask.any():
        raise InputError(path, f"{what} is empty", found="no voxel above 0.5", fix="give a mask of 0 and 1, or none")
    values = np.unique(data[data != 0])
    if values.size > 1:
        _say_what_it_is(path, what, values, int(mask.sum()), one_region, notes)
    return mask


def _say_what_it_is(path: str | PathLike[str], what: str, values: np.ndarray, taken: int, one_region: bool, notes: list[str]) -> None:
    """An image of more than 0 and one other value: probabilities and labels are taken and told, all else is refused."""
    name, low, high = fspath(path).replace("\\", "/").rsplit("/", 1)[-1], float(values[0]), float(values[-1])
    whole = bool(np.all(values == np.round(values)))
    if low < -OVERSHOOT or (high > 1 + OVERSHOOT and (not whole or values.size > MOST_LABELS)):
        found = f"{values.size:,} different values from {low:.4g} to {high:.4g}"
        raise InputError(path, f"{what} is a picture, not a mask", found=found, fix="give an image of 0 and 1")
    if not whole:
        notes.append(f"{name}, the {what}, holds values between 0 and 1: the {taken:,} voxels above one half are taken.")
        return
    labels = ", ".join(f"{v:g}" for v in values[:4]) + (", …" if values.size > 4 else "")
    if one_region:
        fix = "give a mask of that one tissue, 0 and 1"
        raise InputError(path, f"{what} must be one region, and this is a label image", found=f"labels {labels}", fix=fix)
    notes.append(f"{name}, the {what}, is a label image ({labels}): every label is taken, {taken:,} voxels in all.")


def make(image: np.ndarray, grid: Grid, source: str, where: str, *, slice_axis: int = 2, noisy: bool = False) -> np.ndarray:
    """(X, Y, Z) bool: the largest bright region of `image` (M0, mean control or, `noisy`, mean absolute difference), holes filled.

    Smoothed, slices brought to like brightness, thresholded by Otsu's method, largest component, closed and filled.
    Raises InputError where that leaves next to nothing.
    """
    from scipy import ndimage

    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0).clip(min=0)
    if not values.any():
        raise InputError(where, f"no brain can be found in the {source}", found="no positive value", fix="give --mask")
    values = np.minimum(values, np.percentile(values[values > 0], 99))  # a few bright vessels must not set the scale
    smooth = ndimage.gaussian_filter(values, (SMOOTHING_NOISY if noisy else SMOOTHING) / grid.spacing, mode="nearest")
    # Slices read one after the other recover from background suppression for different times; the floor keeps air dark.
    across = tuple(axis for axis in range(3) if axis != slice_axis)
    brightness = np.percentile(smooth, 98, axis=across, keepdims=True)
    smooth = smooth / np.maximum(brightness, DARKEST_SLICE * brightness.max())
    if smooth.min() > UNIFORM:
        return np.ones(grid.shape, bool)
    mask = _largest(smooth > otsu(smooth[smooth > 0]))
    mask = mask | _close(mask, grid.spacing)
    mask = ndimage.binary_fill_holes(mask)
    for plane in np.moveaxis(mask, slice_axis, 0):  # views: a hole of one slice may be open in the next
        plane |= ndimage.binary_fill_holes(plane)
    if mask.sum() < min(SMALLEST, max(1, mask.size // 10)):
        raise InputError(where, f"no brain was found in the {source}", found=f"{int(mask.sum())} voxels", fix="give --mask")
    return mask


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold that separates two classes of values best (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.nan_to_num(between)
    best = np.flatnonzero(between >= between.max())  # a gap between the classes: its middle
    return float(edges[1 + (best[0] + best[-1]) // 2])


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _close(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Morphological closing with a ball of radius CLOSING in mm, by distances: its cost does not grow with the ball."""
    from scipy import ndimage

    margin = np.ceil(CLOSING / spacing).astype(int) + 1  # so that the image's border does not erode
    padded = np.pad(mask, [(n, n) for n in margin])
    dilated = ndimage.distance_transform_edt(~padded, sampling=spacing) <= CLOSING
    closed = ndimage.distance_transform_edt(dilated, sampling=spacing) > CLOSING
    return closed[tuple(slice(n, n + size) for n, size in zip(margin, mask.shape, strict=True))]
