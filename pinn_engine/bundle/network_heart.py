"""`HeartNetwork`: an nn.Module whose forward is the cardiac fit of a movie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cardiac.fit import fit
from ..cardiac.read import movie_data
from ..cardiac.result import HeartFit
from ..cardiac.units import TimeUnit
from ..errors import InputError
from ..files.grid import Grid
from ..files.movie import Movie
from .network import maps_or_none, one_each, plain, stacked
from .settings import Settings

STEP = 0.5  # TU
SPACING = 0.5  # mm


@dataclass(frozen=True)
class MovieSampling:
    """How a movie was taken: voxel size in mm, time from frame to frame and of the first frame in the settings' time unit."""

    spacing: tuple[float, float, float]
    step: float
    start: float = 0.0


class HeartNetwork(torch.nn.Module):
    """`forward(image, acquisition=None)`: movies of V (B, T, X, Y, Z), NaN = not observed -> maps (B, P, X, Y, Z), by `cardiac.fit`.

    P: the value of every map, then their standard deviations; with `--map D` these are D, CV, LAT in the units of `--time-unit`, else D and
    LAT. Buffers hold a reference sampling (mm, TU), which stands in where no acquisition is given. The fit runs on the CPU.
    """

    spacing: Tensor  # (3,) mm
    step: Tensor  # () TU

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None):
        super().__init__()
        self.settings = Settings.of("cardiac", settings)
        task = self.settings.task
        self.arguments, self.unit = dict(task.fit), TimeUnit(task.read["time_unit"])
        self.register_buffer("spacing", torch.full((3,), SPACING))
        self.register_buffer("step", torch.tensor(STEP))

    def forward(self, image: Tensor, acquisition: MovieSampling | Sequence[MovieSampling] | None = None) -> Tensor:
        """A movie that cannot be fitted gets 0 in every channel, and a warning says why. Leaves no_grad and inference_mode for the fit."""
        if image.ndim != 5:
            raise InputError("image", "must be (batch, frames, x, y, z)", found=tuple(image.shape), fix="add the missing axes")
        several = one_each(acquisition, len(image))
        movies = plain(image)
        with torch.inference_mode(False), torch.enable_grad():
            made = []
            for n, (V, sampling) in enumerate(zip(movies, several, strict=True)):
                movie = self._movie(V, sampling or self.reference())
                made.append(maps_or_none(partial(self._fit, movie), V.shape[1:], n))
            return stacked(made, (6 if self.arguments["map"] else 4, *image.shape[2:])).to(image.device)

    def reference(self) -> MovieSampling:
        """The sampling in the buffers, in the settings' time unit."""
        x, y, z = (float(s) for s in self.spacing)
        return MovieSampling((x, y, z), float(self.unit.from_tu(float(self.step))))

    def _fit(self, movie: Movie) -> HeartFit:
        return fit(movie_data(movie, self.unit, "image"), **self.arguments)

    def _movie(self, V: np.ndarray, sampling: MovieSampling) -> Movie:
        """Of an array (T, X, Y, Z)."""
        _, x, y, z = V.shape
        grid = Grid((x, y, z), np.diag([*sampling.spacing, 1.0]))
        return Movie(np.moveaxis(V, 0, -1).astype(np.float32), grid, sampling.step, self.unit.name, sampling.start, "image")
