"""The joint spatial fit on other kinds of data than those it was designed on: pulsed labelling, foci that are no balls, voxels that hold
two tissues, vessels, and noise-free white matter; beside a constant, blurs with the closed form and the voxelwise closed form.

python -m benchmarks.spatial_kinds [--kinds pasl,shapes,mixed,vessels,free,asldro] [--asldro FOLDER] [--seeds 401,402]
writes results/spatial_kinds.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from nibabel import load
from scipy.ndimage import distance_transform_edt, gaussian_filter

from pinn_engine import asl
from pinn_engine.asl.phantom.brain import CSF, DENSITY, GM, T1, WM, Lesion, lookup
from pinn_engine.asl.phantom.make import Phantom, noisy, positions, simulate, unmask
from pinn_engine.files.grid import Grid

from . import methods
from .scoring import Estimate
from .spatial import HEAD, SHAPES, SNR_3MM, capped, figures, kept, listed, row

SPACING = 4.0  # mm
SNR = SNR_3MM * (SPACING / 3.0) ** 1.5
SIZES = (8.0, 11.0)  # mm: radius of the ball of like volume
DISTANCE = 12.0  # mm, at least, between two foci
VESSELS, LENGTH, FLOW = 0.007, 4, 4.0  # share of grey voxels in which a vessel begins, its voxels, and their flow over the tissue's
WEDGE, LONG = np.cos(np.deg2rad(28)), (2.0, 0.7071, 0.7071)  # half angle of a wedge; axes of an ellipsoid


@dataclass(frozen=True)
class Made:
    """A phantom, its CBF without foci (X, Y, Z), and the shape of each focus."""

    phantom: Phantom
    without: np.ndarray
    shapes: dict[int, str]


def again(p: Phantom, snr: float, seed: int) -> Phantom:
    """The phantom's images made again from its maps, with noise."""
    truth = {k: getattr(p, k)[p.mask] for k in ("cbf", "att", "t1_tissue", "m0", "abv", "abat")}
    delta = unmask(simulate(truth, p.acquisition, np.nonzero(p.mask)[2], 0.0, "gamma"), p.mask)
    sd = float(p.m0[p.mask & (p.tissue == GM)].mean()) / snr
    rng = np.random.default_rng([seed, 511])
    static = np.broadcast_to(p.m0[..., None], delta.shape)
    images = {"control": noisy(static, sd, rng), "label": noisy(static - delta, sd, rng), "m0_image": noisy(p.m0, sd, rng)}
    return replace(p, noise_sd=sd, **images)


def ball(away: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    return (np.linalg.norm(away, axis=-1) <= radius).astype(float)


def ellipsoid(away: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return (np.linalg.norm(away @ turn / np.array(LONG), axis=-1) <= radius).astype(float)


def soft(away: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """No edge: half of the change at the radius."""
    return np.exp(-np.log(2) * (np.linalg.norm(away, axis=-1) / radius) ** 2)


def wedge(away: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A cone towards the middle of the head, as of a closed end artery, its base outwards; as much volume as the ball."""
    height = (4 * radius**3 * WEDGE**2 / (1 - WEDGE**2)) ** (1 / 3)
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    along = away @ axis + height / 2
    return ((along > 0) & (along < height) & (along >= WEDGE * np.linalg.norm(away + height / 2 * axis, axis=-1))).astype(float)


SHAPE: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "ball": ball, "ellipsoid, axes 2.8 : 1 : 1": ellipsoid, "wedge": wedge, "no edge": soft, "cortical patch": ball,
}  # fmt: skip


def with_shapes(seed: int) -> Made:
    """A brain with foci of every shape and size, low and high; patches of cortex leave white matter as it is, and are wider."""
    p = asl.phantom(SHAPES[SPACING], SPACING, seed, snr=SNR, lesions=False)
    rng = np.random.default_rng([seed, 510])
    place, cbf = positions(p.grid), p.cbf.astype(float)
    label, foci, shapes = np.zeros(p.mask.shape, np.uint8), [], {}
    candidates = place[p.mask & (p.tissue == GM)]
    for size in sorted(SIZES, reverse=True):
        for name, shape in SHAPE.items():
            for contrast in (-0.4, 0.4):
                radius = size * (1.3 if name == "cortical patch" else 1.0)
                for centre in candidates[rng.permutation(len(candidates))[:400]]:
                    if all(np.linalg.norm(centre - f.centre) > radius + f.radius + DISTANCE for f in foci):
                        break
                else:
                    continue
                share = shape(place - centre, radius, rng) * (p.tissue != CSF) * p.mask
                share = share * (p.tissue == GM) if name == "cortical patch" else share
                number = len(foci) + 1
                cbf = cbf * (1 + contrast * share)
                label[(share > 0.3) & (label == 0)] = number
                foci.append(Lesion(number, tuple(float(x) for x in centre), radius, contrast, 0.0))  # type: ignore[arg-type]
                shapes[number] = name
    changed = replace(p, cbf=cbf.astype(np.float32), lesion=label, lesions=tuple(foci))
    return Made(again(changed, SNR, seed), p.cbf, shapes)


def contrast_kept(made: Made, cbf: np.ndarray, number: int) -> float:
    """Share of a focus' change in grey matter that a map shows, capped at 1."""
    inside = (made.phantom.lesion == number) & (made.phantom.tissue == GM)
    true = (made.phantom.cbf - made.without)[inside].sum()
    return min(float((cbf - made.without)[inside].sum() / true), 1.0)


def mixed(seed: int, spacing: float = SPACING) -> tuple[Phantom, np.ndarray]:
    """A brain made at half the voxel size and averaged: most voxels of the cortex hold two or three tissues.

    Truth is the signal's own: CBF weighed by M0; tissue is the largest share, T1 and arrival time are weighed by signal. Also the shares
    (X, Y, Z, 3) of GM, WM and CSF, as a segmented anatomical image would give them.
    """
    fine = asl.phantom(tuple(2 * n for n in SHAPES[spacing]), spacing / 2, seed, snr=None, lesions=False)  # type: ignore[arg-type]

    def average(x: np.ndarray) -> np.ndarray:
        a, b, c = (n // 2 for n in x.shape[:3])
        return x.reshape(a, 2, b, 2, c, 2, *x.shape[3:]).mean(axis=(1, 3, 5))

    share = np.stack([average((fine.mask & (fine.tissue == k)).astype(float)) for k in (GM, WM, CSF)], axis=3)
    coarse = asl.phantom(SHAPES[spacing], spacing, seed, snr=None, lesions=False)
    m0, mask = average(fine.m0), share.sum(axis=3) > 0.5
    flow = average(fine.m0 * fine.cbf)
    rng = np.random.default_rng([seed, 512])
    sd = coarse.m0[coarse.mask & (coarse.tissue == GM)].mean() / (SNR_3MM * (spacing / 3.0) ** 1.5)
    delta = average(fine.difference)
    static = np.broadcast_to(m0[..., None], delta.shape)
    made = replace(
        coarse,
        mask=mask,
        control=noisy(static, sd, rng),
        label=noisy(static - delta, sd, rng),
        m0_image=noisy(m0, sd, rng),
        m0=m0.astype(np.float32),
        cbf=(flow / np.maximum(m0, 1e-6) * mask).astype(np.float32),
        att=(average(fine.m0 * fine.cbf * fine.att) / np.maximum(flow, 1e-6) * mask).astype(np.float32),
        t1_tissue=(average(fine.m0 * fine.cbf * fine.t1_tissue) / np.maximum(flow, 1e-6) * mask + 1.33 * (flow <= 0)).astype(np.float32),
        tissue=((share.argmax(axis=3) + 1) * mask).astype(np.uint8),
        lesion=np.zeros(mask.shape, np.uint8),
        lesions=(),
        noise_sd=float(sd),
    )
    return made, (share / np.maximum(share.sum(axis=3, keepdims=True), 1e-6)).astype(np.float32)


def with_vessels(p: Phantom, seed: int) -> Phantom:
    """The phantom with straight lines of voxels of fourfold signal, which are of no tissue: only what lies beside them is scored."""
    rng, at = np.random.default_rng([seed, 513]), np.zeros(p.mask.shape, bool)
    grey = np.argwhere(p.mask & (p.tissue == GM))
    for begin in grey[rng.choice(len(grey), round(VESSELS * len(grey)), replace=False)]:
        line = begin + np.outer(np.arange(LENGTH), np.eye(3, dtype=int)[rng.integers(3)])
        at[tuple(line[(line < at.shape).all(axis=1)].T)] = True
    at &= p.mask
    truth = {k: getattr(p, k)[at] for k in ("cbf", "att", "t1_tissue", "m0", "abv", "abat")}
    more = unmask(simulate(truth, p.acquisition, np.nonzero(at)[2], 0.0, "gamma"), at)
    return replace(p, label=p.label - (FLOW - 1) * more, tissue=np.where(at, 0, p.tissue).astype(np.uint8))


def asldro(folder: Path, seed: int) -> Phantom:
    """The head of asldro's reference object (ICBM 2009a), each voxel of the nearest pure tissue, with fields of our own.

    Nothing of our phantoms' anatomy or waves: relative CBF (sd .13) and arrival (sd .09 s) of grey and white matter are white noise after a
    Gaussian filter of 45 mm FWHM, each its own. No steps, no foci. Averaged grey-matter SNR about 1 a delay, as in our phantoms.
    """
    labels = load(folder / "ground_truth" / "puretissue_dseg.nii.gz")  # 1 GM, 2 WM
    t1, m0 = (np.asarray(load(path).dataobj) for path in (folder / "ground_truth" / "t1.nii.gz", next(folder.rglob("*_m0scan.nii.gz"))))
    pure = np.asarray(labels.dataobj).astype(int)
    mask = m0 > 0.3 * m0.max()
    nearest = distance_transform_edt(pure == 0, return_distances=False, return_indices=True)
    tissue = np.where(t1 > 2.0, CSF, pure[tuple(nearest)]) * mask
    grid = Grid(mask.shape, labels.affine)
    rng = np.random.default_rng([seed, 513])

    def waves() -> np.ndarray:
        made = gaussian_filter(rng.standard_normal(mask.shape), 45 / 2.355 / grid.spacing, mode="wrap")
        return made / made.std()

    relative, late = ([waves(), waves()] for _ in range(2))
    true_cbf, att = np.zeros(mask.shape), np.zeros(mask.shape)
    for kind, typical, arrival, a, b in zip((GM, WM), (60.0, 20.0), (0.8, 1.2), relative, late, strict=True):
        true_cbf += (tissue == kind) * typical * (1 + 0.13 * a)
        att += (tissue == kind) * (arrival + 0.09 * b)
    density = lookup(DENSITY, tissue) * mask
    base = asl.phantom((12, 14, 8), 14.0, seed)  # its protocol
    maps = {"cbf": true_cbf.clip(0), "att": att, "t1_tissue": np.where(mask, lookup(T1, tissue), 1.33), "m0": 1000 * density}
    nothing = np.zeros(mask.shape, np.float32)
    volume = float(grid.spacing.prod()) / 27.0  # per voxel of 3 mm
    empty = replace(
        base, grid=grid, mask=mask, tissue=tissue.astype(np.uint8), territory=nothing, lesion=nothing.astype(np.uint8), lesions=(),
        abv=nothing, abat=nothing, **{k: v.astype(np.float32) for k, v in maps.items()},
        acquisition=replace(base.acquisition, slice_delay=np.zeros(mask.shape[2])),
    )  # fmt: skip
    return again(empty, SNR_3MM * volume**0.5, seed)


def jointly(name: str, scan: asl.Scan) -> tuple[Estimate, asl.PerfusionFit]:
    begin = time.process_time()
    fit = asl.fit(scan, device="cpu", spatial=True)
    return Estimate.of(name, fit, time.process_time() - begin), fit


def estimates(p: Phantom, share: np.ndarray | None = None) -> tuple[list[Estimate], asl.PerfusionFit]:
    """All methods; with `share` of tissues also the joint fit that is given them, which is then the last one."""
    ours, joint = jointly("joint spatial fit, tissue from M0", p.scan())
    out = [methods.constant(p), methods.ours("nlls", p.scan(t1_map=True), label="closed form, true T1")]
    out += [replace(methods.smoothed(p.scan(t1_map=True), mm), name=f"blur {mm:g} mm + closed form, true T1") for mm in (4.0, 6.0, 8.0)]
    out.append(methods.ours("pinn, features", p.scan(t1_map=True), label="PINN voxelwise, true T1"))
    if share is None:
        return [*out, ours], joint
    told, joint = jointly("joint spatial fit, tissue maps given", replace(p.scan(), tissue=share))
    return [*out, ours, told], joint


def table(title: str, seeds: list[int], make: Callable[[int], tuple[Phantom, np.ndarray | None]]) -> list[str]:
    many: dict[str, list[dict[str, float]]] = {}
    notes = []
    for seed in seeds:
        p, share = make(seed)
        found, joint = estimates(p, share)
        for e in found:
            many.setdefault(e.name, []).append(figures(p, e))
        hit, false = listed(p, joint)
        here = len(p.lesions)
        all_kept = f", contrast kept {capped(kept(p, found[-1].cbf, hit)):.2f}" if here else ""
        notes.append(
            f"- seed {seed}: strict list {len(hit)} of {here} foci, {false} false{all_kept}; {found[-1].seconds:.1f} s CPU, "
            f"{int(p.mask.sum()):,} voxels"
        )
    return [f"## {title}, seeds {_text(seeds)}", "", HEAD, "|" + " --- |" * 8, *(row(n, m) for n, m in many.items()), "", *notes, ""]


def shapes(seeds: list[int]) -> list[str]:
    kept_by: dict[str, dict[str, list[float]]] = {}
    many: dict[str, list[dict[str, float]]] = {}
    notes, on_list = [], dict.fromkeys(SHAPE, 0)
    for seed in seeds:
        made = with_shapes(seed)
        found, joint = estimates(made.phantom)
        for e in found:
            many.setdefault(e.name, []).append(figures(made.phantom, e))
            for number, name in made.shapes.items():
                kept_by.setdefault(e.name, {}).setdefault(name, []).append(contrast_kept(made, e.cbf, number))
        hit, false = listed(made.phantom, joint)
        for number in hit:
            on_list[made.shapes[number]] += 1
        notes.append(f"- seed {seed}: strict list {len(hit)} of {len(made.shapes)} foci, {false} false; {found[-1].seconds:.1f} s CPU")
    lines = [f"## Foci of other shapes (±40 %, volume of balls of 8 and 11 mm), seeds {_text(seeds)}", "", HEAD, "|" + " --- |" * 8]
    lines += [row(name, rows) for name, rows in many.items()]
    count = {name: len(values) for name, values in next(iter(kept_by.values())).items()}
    lines += ["", "| contrast kept, capped at 1 | " + " | ".join(f"{name} ({count[name]})" for name in SHAPE if name in count) + " |"]
    lines.append("|" + " --- |" * (1 + len(count)))
    for method, by in kept_by.items():
        lines.append(f"| {method} | " + " | ".join(f"{np.mean(by[name]):.2f}" for name in SHAPE if name in by) + " |")
    lines.append("| on the strict list | " + " | ".join(str(on_list[name]) for name in SHAPE if name in count) + " |")
    return [*lines, "", *notes, ""]


def noise_free(seeds: list[int]) -> list[str]:
    lines = [f"## White matter without noise, seeds {_text(seeds)}", "", "| method | WM CBF bias, % | WM ATT bias, s | GM CBF bias, % |"]
    lines.append("| --- | --- | --- | --- |")
    for seed in seeds:
        p = asl.phantom(SHAPES[SPACING], SPACING, seed, snr=None)
        found = {
            "closed form, T1 map": asl.fit(p.scan(t1_map=True), method="nlls", device="cpu"),
            "PINN voxelwise, T1 map": asl.fit(p.scan(t1_map=True), spatial=False, device="cpu"),
            "joint, T1 map": asl.fit(p.scan(t1_map=True), spatial=True, device="cpu"),
            "joint, tissue from M0": asl.fit(p.scan(), spatial=True, device="cpu"),
        }
        for mm in (4.0, 6.0, 8.0):
            found[f"blur {mm:g} mm + closed form, T1 map"] = asl.fit(methods.blurred(p.scan(t1_map=True), mm), method="nlls", device="cpu")
        for name, fit in found.items():
            white, grey = (p.mask & (p.tissue == k) for k in (WM, GM))
            bias = [100 * float((fit.maps["cbf"].value[w] - p.cbf[w]).sum() / p.cbf[w].sum()) for w in (white, grey)]
            late = float((fit.maps["att"].value[white] - p.att[white]).mean())
            lines.append(f"| {name}, seed {seed} | {bias[0]:+.2f} | {late:+.4f} | {bias[1]:+.2f} |")
    return [*lines, ""]


def brain(seed: int) -> Phantom:
    return asl.phantom(SHAPES[SPACING], SPACING, seed, snr=SNR)


def _text(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="pasl,shapes,mixed,vessels,free")
    parser.add_argument("--seeds", default="401,402")
    parser.add_argument("--asldro", help="for the kind asldro: folder of the reference object")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "spatial_kinds.md"))
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    seeds = [int(part) for part in o.seeds.split(",")]
    made: dict[str, Callable[[], list[str]]] = {
        "pasl": lambda: table(
            "Pulsed labelling, 7 inversion times x 4 pairs",
            seeds,
            lambda seed: (asl.phantom(SHAPES[SPACING], SPACING, seed, labeling="PASL", snr=SNR), None),
        ),
        "shapes": lambda: shapes(seeds),
        "mixed": lambda: table("Voxels that hold several tissues", seeds, lambda seed: mixed(seed)),
        "vessels": lambda: [
            *table("Vessels: fourfold flow, in lines of 4 voxels", seeds, lambda seed: (with_vessels(brain(seed), seed), None)),
            *table("The same without vessels", seeds, lambda seed: (brain(seed), None)),
        ],
        "free": lambda: noise_free(seeds[:1]),
        "asldro": lambda: table(
            "Another head (asldro, ICBM 2009a), smooth fields", seeds, lambda seed: (asldro(Path(o.asldro), seed), None)
        ),
    }
    lines = [f"# The joint spatial fit on other kinds of data: {SPACING:g} mm", ""]
    for kind in o.kinds.split(","):
        lines += made[kind]()
        print("\n".join(lines), flush=True)
        Path(o.out).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
