"""D (a, b) once more, by the simulator started from the networks' own state: noise in a fitted field draws D down, a run has none.

The networks give what a simulator cannot know, V and the hidden W everywhere at the first frame; one number each and a few runs side by
side then follow the data over the whole record.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...files.mesh import Mesh
from ..fem import Diffusion
from ..model import AlievPanfilov
from ..simulate import Start, simulate

CHANGES = {"D": 0.05, "a": 0.004, "b": 0.01}  # log D, a, b
MOST = {"D": 0.4, "a": 0.04, "b": 0.05}
STEP = 0.5  # TU between the frames that are compared


def refine(
    mesh: Mesh,
    V0: np.ndarray,
    W0: np.ndarray,
    node: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    D: float,
    model: AlievPanfilov,
    names: tuple[str, ...] = ("D",),
    steps: int = 3,
) -> tuple[dict[str, float], dict[str, float], float]:
    """Numbers, their standard deviations, and rms of the data (noise included); samples at `node` and `time` (TU since the state)."""
    at = {"D": float(np.log(D)), "a": float(model.a), "b": float(model.b)}
    frame = np.clip(np.rint(time / STEP).astype(int), 0, None)
    duration = max(STEP, float(frame.max()) * STEP)
    share = time / STEP - np.floor(time / STEP)
    low = np.floor(time / STEP).astype(int)
    spread: dict[str, float] = {}
    rms = float("nan")
    for _ in range(steps):
        runs = [at, *({**at, name: at[name] + CHANGES[name]} for name in names)]
        many = replace(model, **{n: torch.tensor([r[n] for r in runs], dtype=torch.float64) for n in ("a", "b")})
        movie = simulate(
            mesh,
            Diffusion(1.0),
            Start(V0, W0),
            duration=duration + STEP,
            model=many,
            frame_step=STEP,
            D_factor=[float(np.exp(r["D"])) for r in runs],
        ).V
        seen = movie[:, node, low] * (1.0 - share) + movie[:, node, np.minimum(low + 1, movie.shape[2] - 1)] * share
        slope = np.stack([(seen[k + 1] - seen[0]) / CHANGES[name] for k, name in enumerate(names)], axis=1)
        off = seen[0] - value
        rms = float(np.sqrt(np.mean(off**2)))
        move = -np.linalg.lstsq(slope, off, rcond=None)[0]
        spread = dict(zip(names, rms * np.sqrt(np.diag(np.linalg.pinv(slope.T @ slope))), strict=True))
        for name, m in zip(names, move, strict=True):
            at[name] += float(np.clip(m, -MOST[name], MOST[name]))
        if np.all(np.abs(move) < [0.2 * spread[n] for n in names]):
            break
    values = {name: float(np.exp(at["D"])) if name == "D" else at[name] for name in names}
    return values, {n: s * (values["D"] if n == "D" else 1.0) for n, s in spread.items()}, rms
