"""`PerfusionNetwork`: an nn.Module whose forward is the perfusion fit; `FitInferer` carries geometry past it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from .. import asl
from ..asl.acquisition import Acquisition, build
from ..asl.constants import Sourced
from ..asl.presets import preset_of
from ..asl.scan import Scan
from ..errors import InputError
from ..files.grid import Grid
from ..files.sidecar import Sidecar
from .settings import Settings

REFERENCE = {  # six delays each; the field's usual adult protocols (Alsop 2015, doi:10.1002/mrm.25197; Woods 2024, doi:10.1002/mrm.30091)
    "PCASL": {"PostLabelingDelay": [0.4, 0.8, 1.2, 1.6, 2.0, 2.4], "LabelingDuration": 1.8},
    "PASL": {"PostLabelingDelay": [0.6, 1.0, 1.4, 1.8, 2.2, 2.6], "BolusCutOffFlag": True, "BolusCutOffDelayTime": 0.8},
}
CONSTANTS = ("alpha", "t1_blood", "t1_tissue", "partition")


class PerfusionNetwork(torch.nn.Module):
    """`forward(image, acquisition=None)`: control-label differences (B, T, X, Y, Z) -> maps (B, P, X, Y, Z), by `asl.fit`.

    P: the value of every fitted map, then their standard deviations: CBF (mL/100 g/min; relative without `m0`), ATT (s), sd of CBF, sd of
    ATT. The fit is an optimisation; there are no trained weights. Buffers hold a reference protocol (delays and label duration, s; alpha,
    T1 of blood and tissue, lambda) that stands in where no acquisition is given; constants in `settings` replace its own.
    """

    pld: Tensor  # (T,) s
    label_duration: Tensor  # (T,) s

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None):
        super().__init__()
        self.settings = Settings.of("asl", settings)
        task = self.settings.task
        self.arguments = dict(task.fit)
        self.unknown = self.arguments["unknown"] or preset_of(self.arguments["preset"]).unknown
        given = task.read["options"]
        pulsed = (given.labeling or "").lower() == "pasl" or task.read["model"] == "simplified"
        self.labeling = "PASL" if pulsed else "PCASL"
        reference = _reference(self.labeling, {key: getattr(given, key) for key in ("alpha", "t1b", "t1_tissue", "partition")})
        self.register_buffer("pld", torch.tensor(reference.pld, dtype=torch.float32))
        self.register_buffer("label_duration", torch.tensor(reference.label_duration, dtype=torch.float32))
        for name in CONSTANTS:
            self.register_buffer(name, torch.tensor(getattr(reference, name).number, dtype=torch.float32))

    def forward(
        self,
        image: Tensor,
        acquisition: Acquisition | Sequence[Acquisition] | None = None,
        *,
        m0: Tensor | None = None,
        mask: Tensor | None = None,
        t1_tissue: Tensor | None = None,
    ) -> Tensor:
        """`m0` (of blood, as `asl.Scan.m0`), `mask`, `t1_tissue` (s) are (B, 1, X, Y, Z); without a mask every voxel with signal is fitted.

        Raises InputError for shapes that do not go together; a scan that cannot be fitted gets 0 in every channel, standard deviations
        included, and a warning says why. Leaves no_grad and inference_mode for the time of the fit.
        """
        if image.ndim != 5:
            raise InputError("image", "must be (batch, differences, x, y, z)", found=tuple(image.shape), fix="add the missing axes")
        several = one_each(acquisition, len(image))
        affine = image.affine if isinstance(image, MetaTensor) else None
        arrays = [plain(one) for one in (image, m0, mask, t1_tissue)]
        with torch.inference_mode(False), torch.enable_grad():
            made = []
            for n, protocol in enumerate(several):
                difference, calibration, brain, t1 = (None if a is None else a[n] for a in arrays)
                assert difference is not None
                grid = _grid(difference.shape[1:], affine, n)
                scan = self._scan(difference, protocol or self.reference(grid.shape[2]), grid, calibration, brain, t1)
                made.append(maps_or_none(partial(asl.fit, scan, **{**self.arguments, "device": str(image.device)}), grid.shape, n))
            return stacked(made, (2 * len(self.unknown), *image.shape[2:])).to(image.device)

    def reference(self, slices: int = 1) -> Acquisition:
        """The protocol in the buffers, for an image of so many slices, all read at once."""
        constants = {name: Sourced(round(float(getattr(self, name)), 6), "reference protocol") for name in CONSTANTS}
        pld, duration = (b.cpu().numpy().astype(float).round(6) for b in (self.pld, self.label_duration))
        return Acquisition(self.labeling, pld, duration, np.zeros(slices), 2, **constants, origins=dict(constants))  # type: ignore[arg-type]

    def _scan(self, difference: np.ndarray, acquisition: Acquisition, grid: Grid, m0: Any, mask: Any, t1: Any) -> Scan:
        """Of arrays (T, X, Y, Z) and (1, X, Y, Z)."""
        if len(difference) != len(acquisition.pld):
            found = f"{len(difference)} differences for {len(acquisition.pld)} delays"
            raise InputError("image", "must have one channel a delay", found=found, fix="give the scan's own acquisition")
        values = np.moveaxis(difference, 0, -1).astype(np.float32)
        brain = (np.nan_to_num(values) != 0).any(axis=-1) if mask is None else mask[0] > 0
        blood, tissue = (None if one is None else one[0].astype(np.float32) for one in (m0, t1))
        return Scan(values, acquisition, brain, grid, "image", "image", blood, tissue)


def one_each(given: Any, count: int) -> Sequence[Any]:
    """A list of `count` from a list of that length or from one for all."""
    if not isinstance(given, Sequence):
        return [given] * count
    if len(given) != count:
        raise InputError(
            "acquisition", "must be one, or one for each image of the batch", found=f"{len(given)} for {count}", fix="give them"
        )
    return given


def maps_or_none(fit: Callable[[], Any], shape: tuple[int, ...], index: int) -> Tensor | None:
    """(P, X, Y, Z): values, then standard deviations of a fit's maps; None, and a warning, where its data cannot be fitted."""
    try:
        maps = fit().maps.values()
    except InputError as error:
        warnings.warn(f"image {index} of the batch was not fitted, its maps are 0: {error}", stacklevel=3)
        return None
    return torch.from_numpy(np.stack([one.value.reshape(shape) for one in maps] + [one.std.reshape(shape) for one in maps]))


def stacked(made: Sequence[Tensor | None], shape: tuple[int, ...]) -> Tensor:
    """(B, P, X, Y, Z), zeros where there is nothing; `shape` is of one where none could be fitted."""
    fitted = [one for one in made if one is not None]
    nothing = torch.zeros_like(fitted[0]) if fitted else torch.zeros(shape)
    return torch.stack([nothing if one is None else one for one in made])


def _reference(labeling: str, constants: Mapping[str, Any]) -> Acquisition:
    """The package's own reading of the reference protocol, cited defaults included."""
    from ..asl.acquisition import AcquisitionOptions

    fields = {"ArterialSpinLabelingType": labeling, "MagneticFieldStrength": 3, **REFERENCE[labeling]}
    kinds = ["deltam"] * len(REFERENCE[labeling]["PostLabelingDelay"])  # type: ignore[arg-type]
    sidecar = Sidecar("reference protocol", fields | {"MRAcquisitionType": "3D"})
    return build(sidecar, kinds, (1, 1, 1), AcquisitionOptions(**constants), "reference protocol", [])[0]


def _grid(shape: tuple[int, ...], affine: Tensor | None, index: int) -> Grid:
    placed = np.eye(4) if affine is None else plain(affine).reshape(-1, 4, 4)[index if affine.ndim == 3 else 0].astype(float)
    return Grid((shape[0], shape[1], shape[2]), placed)


def plain(values: Tensor | None) -> Any:
    """The array of a tensor on any device, without MONAI's wrapping, which makes each small operation 2.6 times slower."""
    if values is None:
        return None
    bare = values.as_tensor() if isinstance(values, MetaTensor) else values
    return bare.detach().cpu().numpy()


class FitInferer(Inferer):
    """Calls the network on the whole image and gives its maps the image's geometry; further inputs go to the network by name."""

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        found = network(inputs, *args, **{key: value for key, value in kwargs.items() if value is not None})
        if not isinstance(inputs, MetaTensor):
            return found
        return MetaTensor(found).copy_meta_from(inputs, copy_attr=True)
