"""`make`: an ASL scan of the digital brain, as control and label images, with everything that is true about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...files.grid import Grid
from ..acquisition import Acquisition, Labeling, Sourced
from ..scan import Scan
from . import brain, signal

FIELD_OF_VIEW = np.array([200.0, 200.0, 126.0])  # mm, when no spacing is given
PCASL_PLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5)  # s
PASL_TIS = (0.5, 0.9, 1.3, 1.7, 2.1, 2.5, 2.9)  # s
VESSELS = (  # mm, mirrored to the other side: carotid, middle, anterior and posterior cerebral arteries
    ((14, 6, -40), (12, 8, -22)),
    ((12, 8, -22), (42, 2, -12)),
    ((12, 8, -22), (3, 34, -8), (3, 44, 20)),
    ((2, -22, -24), (18, -44, -12), (12, -68, -2)),
)


@dataclass(frozen=True)
class Phantom:
    """A simulated scan of N pairs and its truth. Maps are (X, Y, Z), 0 outside `mask`; CBF and ATT are 0 in CSF."""

    grid: Grid
    mask: np.ndarray  # bool
    control: np.ndarray  # (X, Y, Z, N) float32, scanner units
    label: np.ndarray  # (X, Y, Z, N) float32
    m0_image: np.ndarray  # float32: fully relaxed M0 of tissue as acquired, with noise
    cbf: np.ndarray  # float32, mL/100 g/min
    att: np.ndarray  # float32, s
    t1_tissue: np.ndarray  # float32, s
    abv: np.ndarray  # float32, fraction; all 0 without `arterial`
    abat: np.ndarray  # float32, s, arrival in those arteries
    m0: np.ndarray  # float32: m0_image without noise
    tissue: np.ndarray  # uint8: 1 GM, 2 WM, 3 CSF
    territory: np.ndarray  # uint8, see TERRITORIES
    lesion: np.ndarray  # uint8, 0 or the label of one of `lesions`
    lesions: tuple[brain.Lesion, ...]
    acquisition: Acquisition
    noise_sd: float  # of one image, scanner units
    background: float  # share of the static tissue signal left by background suppression
    settings: dict[str, object]  # the call that made it

    @property
    def difference(self) -> np.ndarray:
        """(X, Y, Z, N) float32 control - label."""
        return self.control - self.label

    def scan(self, *, t1_map: bool = False) -> Scan:
        """The scan as the reader would give it, with the true mask; `t1_map` adds the true tissue T1."""
        return Scan(
            difference=self.difference,
            acquisition=self.acquisition,
            mask=self.mask,
            grid=self.grid,
            prefix="sub-01",
            source="sub-01_asl.nii.gz",
            m0=(self.m0_image / float(self.acquisition.partition.value or 0.9)).astype(np.float32),
            t1_tissue=self.t1_tissue if t1_map else None,
            notes=("Simulated data: a digital phantom, not a person.",),
        )


def make(
    shape: tuple[int, int, int] = (64, 64, 24),
    spacing: float | Sequence[float] | None = None,
    seed: int = 0,
    *,
    labeling: Labeling = "PCASL",
    plds: Sequence[float] | None = None,
    label_duration: float | Sequence[float] | None = None,
    repeats: int = 4,
    snr: float | None = 250.0,
    noise_sd: float | None = None,
    dispersion: float = 0.0,
    kernel: str = "gamma",
    arterial: float = 0.0,
    lesions: bool = True,
    territories: bool = True,
    background: float = 1.0,
    slice_time: float = 0.0,
    alpha: float | None = None,
    t1_blood: float = 1.65,
    partition: float = 0.9,
) -> Phantom:
    """Simulate a scan of the digital brain. Same arguments, same phantom.

    The head has a fixed size (132 x 164 x 105 mm): `spacing` (mm) decides how many voxels it fills; None fits it to `shape`.
    3 mm gives about 50,000 mask voxels in (48, 60, 40), 1.1 mm about 1,000,000 in (124, 152, 98).

    `plds` (s) are post-labelling delays, for PASL inversion times; `label_duration` (s, one, or one per delay) is the bolus for PASL.
    `snr` = mean grey-matter M0 / noise sd of one image, None = noise-free; `noise_sd` (scanner units) overrides it. Noise is Gaussian.
    With 6 delays and 4 repeats, voxelwise grey-matter CBF errs by a median of about 9 mL/100 g/min at 250 and 20 at 100.
    `dispersion` (s) is the sd of the arterial dispersion `kernel` ("gamma" | "gaussian"); `arterial` the blood volume (fraction) in the
    middle of the large vessels. `background` is the share of static tissue left (1 = no background suppression); `slice_time` (s) > 0
    reads 2-D slices one after another, from the base upwards.
    """
    if labeling not in ("PCASL", "CASL", "PASL"):
        raise ValueError(f"labeling must be PCASL, CASL or PASL, not {labeling!r}")
    if snr is not None and not snr > 0:
        raise ValueError(f"snr must be above 0, or None for a scan without noise, not {snr!r}")
    settings = {k: v for k, v in locals().items() if k != "settings"}
    grid = head_grid(shape, spacing)
    b = brain.grow(positions(grid), seed, lesions=lesions, territories=territories)
    if not (b.tissue == brain.GM).any():
        raise ValueError(f"no grey matter falls into {shape} voxels of {grid.spacing.max():g} mm; give more, smaller voxels")
    acquisition = protocol(labeling, plds, label_duration, repeats, slice_time * np.arange(shape[2]), alpha, t1_blood, partition)
    abv = arterial * vessels(b.position, float(grid.spacing.max()))
    abat = np.where(b.att > 0, np.maximum(b.att - 0.3, 0.2), 0.5) * (abv > 0)
    maps = {"cbf": b.cbf, "att": b.att, "t1_tissue": b.t1, "m0": b.m0, "abv": abv, "abat": abat}
    truth = {k: v.astype(np.float32) for k, v in maps.items()}
    delta = simulate(truth, acquisition, np.nonzero(b.mask)[2], dispersion, kernel)
    sd = noise_sd if noise_sd is not None else 0.0 if snr is None else float(b.m0[b.tissue == brain.GM].mean()) / snr
    rng = np.random.default_rng([seed, 11])
    static = unmask(truth["m0"] * np.float32(background), b.mask)[..., None]
    control = noisy(np.broadcast_to(static, (*shape, len(acquisition.pld))), sd, rng)
    label = noisy(static - unmask(delta, b.mask), sd, rng)
    images = {k: unmask(v, b.mask) for k, v in truth.items()}
    return Phantom(
        grid=grid,
        mask=b.mask,
        control=control,
        label=label,
        m0_image=noisy(images["m0"], sd, rng),
        **images,
        tissue=unmask(b.tissue, b.mask),
        territory=unmask(b.territory, b.mask),
        lesion=unmask(b.lesion, b.mask),
        lesions=b.lesions,
        acquisition=acquisition,
        noise_sd=sd,
        background=background,
        settings=settings,
    )


def head_grid(shape: tuple[int, int, int], spacing: float | Sequence[float] | None) -> Grid:
    """A RAS+ grid centred on the head."""
    size = FIELD_OF_VIEW / shape if spacing is None else np.broadcast_to(np.asarray(spacing, float), 3)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    affine[2, 3] += 6.0  # the crown reaches 58 mm above the centre, the base 46 mm below
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def positions(grid: Grid) -> np.ndarray:
    """(X, Y, Z, 3) mm, of the voxel centres."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def protocol(
    labeling: Labeling,
    plds: Sequence[float] | None,
    label_duration: float | Sequence[float] | None,
    repeats: int,
    slice_delay: np.ndarray,
    alpha: float | None,
    t1_blood: float,
    partition: float,
) -> Acquisition:
    """The timings of N = delays x repeats pairs, grouped by delay. Efficiencies 0.85 and 0.98: Alsop 2015, doi:10.1002/mrm.25197."""
    pasl = labeling == "PASL"
    delays = np.asarray(plds if plds is not None else PASL_TIS if pasl else PCASL_PLDS, float)
    duration = np.broadcast_to(np.asarray(label_duration if label_duration is not None else 0.8 if pasl else 1.8, float), delays.shape)
    alpha = alpha if alpha is not None else {"PASL": 0.98, "CASL": 0.68, "PCASL": 0.85}[labeling]
    origins = {
        "alpha": Sourced(alpha, "phantom"),
        "t1_blood": Sourced(t1_blood, "phantom", "s"),
        "t1_tissue": Sourced(brain.T1[brain.GM], "phantom: grey matter", "s"),
        "partition": Sourced(partition, "phantom", "mL/g"),
    }
    return Acquisition(labeling, np.repeat(delays, repeats), np.repeat(duration, repeats), slice_delay, 2, **origins, origins=dict(origins))


def simulate(truth: dict[str, np.ndarray], acquisition: Acquisition, slice_index: np.ndarray, dispersion: float, kernel: str) -> np.ndarray:
    """(V, N) float32 control - label in scanner units, without noise; each distinct (time, duration) is computed once."""
    a, partition = acquisition, float(acquisition.partition.value or 0)
    distinct, volume = np.unique(np.column_stack([a.times, a.label_duration]), axis=0, return_inverse=True)
    late = a.slice_delay[slice_index]
    perfused, arteries = truth["cbf"] > 0, truth["abv"] > 0
    curves = np.zeros((len(late), len(distinct)), np.float32)
    for duration in np.unique(distinct[:, 1]):
        bolus = signal.Bolus(duration, a.labeling, float(a.alpha.value or 0), float(a.t1_blood.value or 0), dispersion, kernel)
        k = np.flatnonzero(distinct[:, 1] == duration)
        time = late[:, None] + distinct[k, 0]
        total = np.zeros(time.shape)
        cbf, att, t1 = (truth[name][perfused] for name in ("cbf", "att", "t1_tissue"))
        total[perfused] = signal.difference(bolus, cbf, att, t1, time[perfused], partition)
        if arteries.any():
            total[arteries] += signal.arterial(bolus, truth["abv"][arteries], truth["abat"][arteries], time[arteries])
        curves[:, k] = total * truth["m0"][:, None] / partition
    return curves[:, volume.ravel()]


def vessels(p: np.ndarray, voxel: float) -> np.ndarray:
    """(V,) 0…1: Gaussian tubes of 3 mm (at least half a voxel) around the large arteries."""
    mirrored = np.column_stack([np.abs(p[:, 0]), p[:, 1:]])
    near = np.full(len(p), np.inf)
    for path in VESSELS:
        for a, c in zip(np.array(path[:-1], float), np.array(path[1:], float), strict=True):
            along = np.clip((mirrored - a) @ (c - a) / ((c - a) @ (c - a)), 0, 1)
            near = np.minimum(near, np.linalg.norm(mirrored - a - along[:, None] * (c - a), axis=1))
    shape = np.exp(-0.5 * (near / max(3.0, voxel / 2)) ** 2)
    return np.where(shape > 0.01, shape, 0.0)


def noisy(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """A float32 copy with Gaussian noise of standard deviation `sd`."""
    if sd == 0:
        return np.array(image, np.float32)
    return rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sd) + image.astype(np.float32, copy=False)


def unmask(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(V, …) values back on the grid (X, Y, Z, …), 0 outside."""
    out = np.zeros(mask.shape + values.shape[1:], values.dtype)
    out[mask] = values
    return out
