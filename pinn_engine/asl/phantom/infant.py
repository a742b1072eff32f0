"""`infant`: one slice of grey matter as in SUPINN's study (Galazis 2025, doi:10.3389/fnetp.2025.1488349), with its truth.

Two curved lobes, 12 inversion times, the simplified kinetic model, one T1 of blood a subject, every quantity of an infant's range.
The noise is given in the study's unit: the signal whose unit of CBF is mL/100 g/s, peaks are about 0.2 to 0.3.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ...files.grid import Grid
from ..acquisition import Acquisition, Sourced
from . import brain
from .make import Phantom, unmask

TIS = tuple(float(x) for x in np.round(0.15 + 0.3 * np.arange(12), 2))  # s
BOLUS = 0.6  # s
SHAPE, SPACING, THICKNESS = (24, 24, 1), 3.0, 5.0  # mm
CBF, ATT, T1B = (30.0, 60.0), (0.15, 1.2), (1.5, 2.25)  # ranges: mL/100 g/min, s, s
M0 = 1000.0  # of blood, scanner units
STATIC = 900.0  # scanner units
SECONDS = 60.0  # mL/100 g/min per mL/100 g/s
LESION_RADIUS, LESION_FLOW, LESION_DELAY = 6.5, -0.4, 0.35  # mm, relative, s
FIELDS = ("smooth", "steps", "ramp")


def infant(
    seed: int = 0, noise: float = 0.02, *, t1b: float | None = None, lesion: bool = True, fields: str = "smooth", alpha: float = 0.98
) -> Phantom:
    """Simulate one subject; same arguments, same phantom.

    `noise`: sd of a difference, in the signal of unit flow in mL/100 g/s (SUPINN's levels: 0 to 0.5). `t1b` (s): None draws it from
    1.5 to 2.25. `fields`: "smooth" random fields of CBF and arrival time, "steps" between territories, or a "ramp" across the slice.
    `lesion`: a focus of low flow and late arrival in one lobe. Differences are written as one control-label pair an inversion time.
    """
    if fields not in FIELDS:
        raise ValueError(f"fields must be one of {FIELDS}, not {fields!r}")
    settings = {"kind": "infant", "seed": seed, "noise": noise, "t1b": t1b, "lesion": lesion, "fields": fields}
    rng = np.random.default_rng([seed, 77])
    mask = lobes(rng)
    true_t1b = float(rng.uniform(*T1B)) if t1b is None else t1b
    at = np.argwhere(mask)[:, :2]
    flow, arrival = (field(rng, at, fields) for _ in range(2))
    cbf, att = (low + (high - low) * f for (low, high), f in ((CBF, flow), (ATT, arrival)))
    affine = np.diag([SPACING, SPACING, THICKNESS, 1.0])
    affine[:2, 3] = -0.5 * SPACING * (np.array(SHAPE[:2]) - 1)
    labels = np.zeros(len(at), np.uint8)
    foci: tuple[brain.Lesion, ...] = ()
    if lesion:
        middle = at[rng.integers(len(at))]
        inside = SPACING * np.linalg.norm(at - middle, axis=1) <= LESION_RADIUS
        cbf, att = np.where(inside, (1 + LESION_FLOW) * cbf, cbf), np.where(inside, att + LESION_DELAY, att)
        labels = inside.astype(np.uint8)
        x, y, z = (float(value) for value in affine[:3, :3] @ [*middle, 0] + affine[:3, 3])
        foci = (brain.Lesion(1, (x, y, z), LESION_RADIUS, LESION_FLOW, LESION_DELAY),)
    acquisition = protocol(true_t1b, alpha)
    since = np.clip(np.array(TIS) - att[:, None], 0, BOLUS)
    signal = cbf[:, None] * since * np.exp(-np.array(TIS) / true_t1b)
    unit = 2 * alpha * M0 / 6000.0  # scanner units per unit of flow
    sd = SECONDS * noise * unit / 2**0.5  # of one image
    clean = unmask((signal * unit).astype(np.float32), mask)
    static = np.where(mask[..., None], STATIC, 0.0) * np.ones(len(TIS))
    control, label = (static - part + sd * rng.standard_normal(static.shape) for part in (0.0, clean))
    one = mask.astype(np.float32)
    partition = acquisition.partition.number
    return Phantom(
        grid=Grid(SHAPE, affine),
        mask=mask,
        control=control.astype(np.float32),
        label=label.astype(np.float32),
        m0_image=one * np.float32(M0 * partition),
        cbf=unmask(cbf.astype(np.float32), mask),
        att=unmask(att.astype(np.float32), mask),
        t1_tissue=one * np.float32(brain.T1[brain.GM]),
        abv=0 * one,
        abat=0 * one,
        m0=one * np.float32(M0 * partition),
        tissue=(brain.GM * mask).astype(np.uint8),
        territory=np.zeros(SHAPE, np.uint8),
        lesion=unmask(labels, mask),
        lesions=foci,
        acquisition=acquisition,
        noise_sd=sd,
        background=1.0,
        settings=settings,
    )


def lobes(rng: np.random.Generator) -> np.ndarray:
    """(X, Y, 1) bool: two curved ribbons, one in each half, of about 140 voxels together, never twice the same."""
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE[:2]), indexing="ij")
    mask = np.zeros(SHAPE[:2], bool)
    for side in (-1, 1):
        centre, radius, width = rng.uniform(-1, 1, 2), rng.uniform(5.8, 6.8), rng.uniform(2.9, 3.5)
        radial = np.hypot(side * x - 1 - centre[0], 0.8 * (y - centre[1]))
        wave = 0.6 * np.sin(3 * np.arctan2(y, side * x) + rng.uniform(0, 6))
        mask |= (np.abs(radial + wave - radius) < width / 2) & (side * x > 1.5)
    return mask[..., None]


def field(rng: np.random.Generator, at: np.ndarray, kind: str) -> np.ndarray:
    """(V,) values within 0 to 1 at voxels `at` (V, 2)."""
    if kind == "smooth":
        image = gaussian_filter(rng.standard_normal((60, 60)), rng.uniform(2.0, 4.0))
        values = image[tuple((at + 17).T)]
    else:
        turn = rng.uniform(0, 2 * np.pi)
        values = at @ np.array([np.cos(turn), np.sin(turn)])
        if kind == "steps":
            values = np.digitize(values, np.quantile(values, [0.3, 0.6])) + 0.1 * rng.standard_normal(3)[0] + 0.02 * values
    even = 0.5 * (values - values.min()) / np.ptp(values) + 0.5 * values.argsort().argsort() / (len(values) - 1)  # use the whole range
    low, high = rng.uniform(0, 0.1), rng.uniform(0.9, 1.0)
    return low + (high - low) * even


def protocol(t1b: float, alpha: float) -> Acquisition:
    """One pair at each of SUPINN's inversion times; the true T1b, which a reader of the written files does not get."""
    constants = {
        "alpha": Sourced(alpha, "phantom"),
        "t1_blood": Sourced(t1b, "phantom", "s"),
        "t1_tissue": Sourced(brain.T1[brain.GM], "phantom: grey matter", "s"),
        "partition": Sourced(0.9, "phantom", "mL/g"),
    }
    tis = np.array(TIS)
    return Acquisition("PASL", tis, np.full_like(tis, BOLUS), np.zeros(1), 2, **constants, origins=dict(constants))
