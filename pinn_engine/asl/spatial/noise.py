"""How far the noise of neighbouring voxels is one noise: interpolation, motion and physiology make it so, the joint fit must know."""

from __future__ import annotations

import numpy as np
import torch

from ..curves import Curves, impossible
from ..scan import Scan
from ..weights import same_delay
from .balls import Balls


def noise_excess(scan: Scan, c: Curves) -> float:
    """Variance of the noise summed over a voxel and its face neighbours, per that of as many independent voxels; 1 without repeats.

    Repeats about their mean are noise alone. The median over volumes: a spoilt one is correlated all over. Larger balls find more, but with
    their figure the smooth fields get too stiff: the noise of single voxels is then taken for larger than it is (docs/spatial.md).
    """
    member, raw, sane = same_delay(scan), scan.difference[c.voxels], ~impossible(c)
    balls = Balls(tuple(axis[sane] for axis in c.voxels), np.ones(3), (1.01,))  # in voxels: faces, whatever their spacing
    ratio = []
    for delay in np.unique(member):
        columns = np.flatnonzero(member == delay)
        if len(columns) < 2:
            continue
        noise = (raw[sane][:, columns] - raw[sane][:, columns].mean(axis=1, keepdims=True)) * (c.scale / c.noise)[sane, None]
        for one in noise.T:
            both = balls.spread(torch.as_tensor(np.stack([one, one**2], axis=1).astype(np.float32)), 0)
            ratio.append(float(both[:, 0].square().sum() / both[:, 1].sum().clamp_min(1e-12)))
    return max(float(np.median(ratio)), 1.0) if ratio else 1.0
