"""D (a, b) once more, by the simulator started from the networks' own state: noise in a fitted field draws D down, a run has none.

The networks give what a simulator cannot know, V and the hidden W everywhere at the first frame; one number each and a few runs side by
side then follow the data over the whole record. A shift of the state in time and one factor on W are left free, so that what the networks
have early or late as a whole does not count as speed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...files.mesh import Mesh
from ..fem import Diffusion
from ..model import AlievPanfilov
from ..simulate import Start, simulate

CHANGES = {"D": 0.05, "a": 0.004, "b": 0.01, "W": 0.05}  # log D, a, b, log W at the first frame
MOST = {"D": 0.4, "a": 0.04, "b": 0.05, "W": 0.3, "shift": 1.0}
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
    at = {"D": float(np.log(D)), "a": float(model.a), "b": float(model.b), "W": 0.0, "shift": 0.0}
    free = [*names, "W", "shift"]
    frames = int(np.ceil(float(time.max()) / STEP)) + 4
    spread: dict[str, float] = {}
    rms = float("nan")
    for _ in range(steps):
        runs = [at, *({**at, name: at[name] + CHANGES[name]} for name in free[:-1])]
        many = replace(model, **{n: torch.tensor([r[n] for r in runs], dtype=torch.float64) for n in ("a", "b")})
        movie = simulate(
            mesh,
            Diffusion(1.0),
            Start(np.tile(V0, (len(runs), 1)), np.stack([W0 * np.exp(r["W"]) for r in runs])),
            duration=frames * STEP,
            model=many,
            frame_step=STEP,
            D_factor=[float(np.exp(r["D"])) for r in runs],
        ).V
        place = np.clip((time + at["shift"]) / STEP, 0.0, movie.shape[2] - 1.001)
        low = place.astype(int)
        before, after = movie[:, node, low].astype(float), movie[:, node, low + 1].astype(float)
        seen = before + (after - before) * (place - low)
        slope = np.stack(
            [*((seen[k + 1] - seen[0]) / CHANGES[name] for k, name in enumerate(free[:-1])), (after[0] - before[0]) / STEP], axis=1
        )
        off = seen[0] - value
        rms = float(np.sqrt(np.mean(off**2)))
        move = -np.linalg.lstsq(slope, off, rcond=None)[0]
        spread = dict(zip(free, rms * np.sqrt(np.diag(np.linalg.pinv(slope.T @ slope))), strict=True))
        for name, m in zip(free, move, strict=True):
            at[name] += float(np.clip(m, -MOST[name], MOST[name]))
        if np.all(np.abs(move) < [0.2 * spread[n] for n in free]):
            break
    values = {name: float(np.exp(at["D"])) if name == "D" else at[name] for name in names}
    return values, {n: spread[n] * (values["D"] if n == "D" else 1.0) for n in names}, rms
