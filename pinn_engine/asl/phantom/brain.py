"""The anatomy and perfusion of our own digital brain, as formulas in mm: the same brain at any resolution, from a seed alone.

No atlas is used. A tapered ellipsoid carries a cortex folded by the level sets of band-limited noise, white matter, deep grey matter,
ventricles and a fissure; the folds are nearly, not exactly, mirror images. Tissue is one class a voxel (no partial volume).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEMI_AXES = np.array([66.0, 82.0, 58.0])  # mm: right, anterior, superior
GM, WM, CSF = 1, 2, 3
TERRITORIES = {1: "ACA left", 2: "MCA left", 3: "PCA left", 4: "ACA right", 5: "MCA right", 6: "PCA right"}
T1 = {GM: 1.33, WM: 0.83, CSF: 4.3}  # s at 3 T
DENSITY = {GM: 0.82, WM: 0.70, CSF: 1.0}  # M0 relative to CSF
CORTEX, FOLD_WIDTH, FOLD_REACH, FOLD_WAVE = 3.4, 0.78, 32.0, 24.0  # mm; half width of a fold in units of the noise (~3 mm); mm; mm
RADII = (14.0, 10.0, 8.0, 8.0, 6.0, 6.0, 5.0, 5.0, 4.0, 4.0)  # mm, of the focal lesions
CONTRASTS = (-0.4, 0.4, -0.4, 0.4, -0.4, 0.4, -0.4, 0.4, -0.4, 0.4)
DELAYS = (0.5, 0.0, 0.3, 0.0, 0.5, 0.0, 0.0, 0.0, 0.3, 0.0)  # s added to the arrival


@dataclass(frozen=True)
class Lesion:
    """A ball of altered perfusion, in grey and white matter alike. `contrast` -0.4 = 40 % less CBF than without it."""

    label: int
    centre: tuple[float, float, float]  # mm, RAS
    radius: float  # mm
    contrast: float
    delay: float  # s


@dataclass(frozen=True)
class Brain:
    """Truth at V voxels inside the head (those of `mask`, C order)."""

    mask: np.ndarray  # (X, Y, Z) bool
    position: np.ndarray  # (V, 3) mm, RAS, head centre at 0
    tissue: np.ndarray  # (V,) uint8
    territory: np.ndarray  # (V,) uint8, 0 where territories are switched off
    cbf: np.ndarray  # (V,) mL/100 g/min, 0 in CSF
    att: np.ndarray  # (V,) s, 0 in CSF
    t1: np.ndarray  # (V,) s
    m0: np.ndarray  # (V,) tissue M0 with coil bias, scanner units
    lesion: np.ndarray  # (V,) uint8
    lesions: tuple[Lesion, ...]


def grow(position: np.ndarray, seed: int, *, lesions: bool, territories: bool) -> Brain:
    """The brain sampled at voxel centres `position` (X, Y, Z, 3) mm. Each part draws its own random numbers, so any can be left out."""
    depth = surface_depth(position)
    mask = depth > 0
    p, depth = position[mask], depth[mask]
    tissue = tissues(p, depth, seed)
    territory = vascular_territories(p, seed)
    grey = tissue == GM
    cbf = np.where(grey, 60 * (1 + 0.13 * smooth(p, seed, 5, 70)), 21 * (1 + 0.13 * smooth(p, seed, 6, 80)))
    att = np.where(grey, 1.0 + 0.09 * smooth(p, seed, 7, 75), 1.35 + 0.10 * smooth(p, seed, 8, 85))
    if territories:
        att = att + territory_delay(seed)[territory]
    cbf, att = np.clip(cbf, 8, 130), np.clip(att, 0.4, 2.3)
    found = place_lesions(p, depth, tissue, seed) if lesions else ()
    label = np.zeros(len(p), np.uint8)
    for one in found:
        inside = (np.linalg.norm(p - one.centre, axis=1) <= one.radius) & (tissue != CSF)
        label[inside] = one.label
        cbf[inside] *= 1 + one.contrast
        att[inside] += one.delay
    perfused = tissue != CSF
    m0 = 1000 * lookup(DENSITY, tissue) * coil(p, seed)
    territory = territory if territories else np.zeros_like(territory)
    return Brain(mask, p, tissue, territory, cbf * perfused, att * perfused, lookup(T1, tissue), m0, label, found)


def surface_depth(p: np.ndarray) -> np.ndarray:
    """Depth below the smooth outer surface, about in mm, negative outside; the front is narrower and the base flatter than the crown."""
    x, y, z = (p[..., i] / SEMI_AXES[i] for i in range(3))
    x = x / (1 - 0.10 * np.clip(y, -1, 1))
    z = np.where(z < 0, z * 1.25, z)
    return (1 - (np.abs(x) ** 2.3 + np.abs(y) ** 2.3 + np.abs(z) ** 2.3) ** (1 / 2.3)) * SEMI_AXES.mean()


def tissues(p: np.ndarray, depth: np.ndarray, seed: int) -> np.ndarray:
    """(V,) 1 GM, 2 WM, 3 CSF."""
    side = np.abs(p[:, 0])
    joined = np.clip(1 - (p[:, 1] / 44) ** 2 - ((p[:, 2] + 6) / 28) ** 2, 0, 1)  # > 0 where the hemispheres meet
    pial = np.minimum(depth, side - 0.8 + 60 * joined)  # mm below the nearest cortical surface
    mirrored = np.column_stack([side, p[:, 1:]])
    fold = np.abs(0.93 * smooth(mirrored, seed, 1, FOLD_WAVE) + 0.37 * smooth(p, seed, 2, FOLD_WAVE))
    reach = np.sqrt(np.clip(1 - pial / FOLD_REACH, 0, 1))
    tissue = np.where((pial < CORTEX) | (fold < FOLD_WIDTH * reach), GM, WM)
    tissue[(fold < 0.14 * (1 - pial / 18)) | (pial < 0)] = CSF  # sulci and the fissure
    for centre, radii, kind in (
        ((13, -14, 0), (9, 13, 9), GM),  # thalamus
        ((25, 6, 1), (7, 18, 11), GM),  # putamen
        ((12, 12, 8), (6, 14, 8), GM),  # caudate
        ((8, -4, 10), (5, 30, 7), CSF),  # lateral ventricle
        ((20, -36, -2), (5, 12, 9), CSF),  # its horn
    ):
        tissue[np.sum(((mirrored - centre) / radii) ** 2, axis=1) < 1] = kind
    return tissue.astype(np.uint8)


def vascular_territories(p: np.ndarray, seed: int) -> np.ndarray:
    """(V,) 1…6 as in TERRITORIES: the anterior artery feeds the medial front, the posterior the back and base, the middle the rest."""
    wobble = 5 * smooth(p, seed, 3, 45)
    side = np.abs(p[:, 0])
    kind = np.full(len(p), 2)
    kind[side < 22 + wobble + 0.12 * p[:, 1] + 0.5 * np.minimum(p[:, 2] + 10 + wobble, 0)] = 1
    base = (side / 40) ** 2 + ((p[:, 1] + 34 + wobble) / 40) ** 2 + ((p[:, 2] + 44) / 24) ** 2 < 1
    kind[(p[:, 1] < -42 + wobble + 0.3 * p[:, 2]) | base] = 3
    return (kind + 3 * (p[:, 0] > 0)).astype(np.uint8)


def territory_delay(seed: int) -> np.ndarray:
    """(7,) s added to the arrival in each territory; one middle cerebral artery is late, as behind a narrowed carotid."""
    rng = np.random.default_rng([seed, 4])
    delay = np.array([0, 0.0, -0.12, 0.24, 0.0, -0.12, 0.24]) + np.append(0, rng.uniform(-0.04, 0.04, 6))
    delay[2 if rng.random() < 0.5 else 5] += 0.32
    return delay


def place_lesions(p: np.ndarray, depth: np.ndarray, tissue: np.ndarray, seed: int) -> tuple[Lesion, ...]:
    """Up to ten balls around grey-matter voxels, largest first, none touching another."""
    rng = np.random.default_rng([seed, 9])
    candidates = np.flatnonzero((tissue == GM) & (depth > 4) & (depth < 24))
    if len(candidates) == 0:
        return ()
    order = p[rng.choice(candidates, min(len(candidates), 4000), replace=False)]
    placed: list[Lesion] = []
    for radius, contrast, delay in zip(RADII, CONTRASTS, DELAYS, strict=True):
        free = np.ones(len(order), bool)
        for other in placed:
            free &= np.linalg.norm(order - other.centre, axis=1) > radius + other.radius + 8
        if free.any():
            x, y, z = order[np.argmax(free)]
            placed.append(Lesion(len(placed) + 1, (float(x), float(y), float(z)), radius, contrast, delay))
    return tuple(placed)


def coil(p: np.ndarray, seed: int) -> np.ndarray:
    """(V,) receive sensitivity, smooth, within about 20 % of 1: brighter towards the coil."""
    return 0.94 + 0.12 * np.mean((p / SEMI_AXES) ** 2, axis=1) + 0.05 * smooth(p, seed, 10, 160)


def smooth(p: np.ndarray, seed: int, stream: int, wavelength: float) -> np.ndarray:
    """(V,) a band-limited random field of unit variance at positions (V, 3): a sum of 32 plane waves of about `wavelength` mm."""
    rng = np.random.default_rng([seed, stream])
    direction = rng.standard_normal((32, 3))
    k = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (2 * np.pi / wavelength) * rng.uniform(0.75, 1.25, (32, 1))
    phase = rng.uniform(0, 2 * np.pi, 32)
    total = np.zeros(len(p))
    for wave, shift in zip(k, phase, strict=True):  # one wave at a time: memory stays at a few values a voxel
        total += np.cos(p @ wave + shift)
    return total * np.sqrt(2 / 32)


def lookup(table: dict[int, float], label: np.ndarray) -> np.ndarray:
    """(V,) the table's value at each label."""
    values = np.zeros(max(table) + 1)
    values[list(table)] = list(table.values())
    return values[label]
