"""Reading as MONAI transforms: a path becomes the tensor that the network takes, by the organs' own readers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .network_heart import MovieSampling
from .settings import Settings


class ReadScand(MapTransform):
    """data["image"], a path -> the differences (T, X, Y, Z) with the scan's affine; beside it "acquisition", "mask", "m0", "t1_tissue"."""

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None, keys: str = "image"):
        super().__init__(keys)
        self.settings = Settings.of("asl", settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from .. import asl

        out = dict(data)
        for key in self.key_iterator(out):
            path = str(out[key])
            scan = asl.read(path, **self.settings.task.read)
            out[key] = _placed(np.moveaxis(scan.difference, -1, 0), scan.grid.affine, path)
            out |= {"acquisition": scan.acquisition, "mask": _placed(scan.mask[None], scan.grid.affine, path)}
            for name, values in (("m0", scan.m0), ("t1_tissue", scan.t1_tissue)):
                if values is not None:
                    out[name] = _placed(values[None], scan.grid.affine, path)
        return out


class ReadMovied(MapTransform):
    """data["image"], a path -> the movie of V (T, X, Y, Z) with its affine; beside it "acquisition", its `MovieSampling`."""

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None, keys: str = "image"):
        super().__init__(keys)
        self.settings = Settings.of("cardiac", settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from ..cardiac.read import read

        out = dict(data)
        for key in self.key_iterator(out):
            path = str(out[key])
            heart = read(path, **self.settings.task.read)
            assert heart.grid is not None
            assert heart.V is not None
            assert heart.times is not None
            out[key] = _placed(np.moveaxis(heart.V.reshape(*heart.grid.shape, -1), -1, 0).astype(np.float32), heart.grid.affine, path)
            start, after = (float(heart.unit.from_tu(t)) for t in heart.times[:2])
            x, y, z = (float(s) for s in heart.grid.spacing)
            out["acquisition"] = MovieSampling((x, y, z), after - start, start)
        return out


def _placed(values: np.ndarray, affine: np.ndarray, path: str) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values)), affine=torch.from_numpy(affine), meta={"filename_or_obj": path})
