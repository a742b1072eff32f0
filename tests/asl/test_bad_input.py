"""Bad input ends in one clear line: the file, the field, what was found, what to do. Extend the table with every reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_series import AFFINE, PCASL, SHAPE, brain, cycle, save, truth, write, write_m0
from dicom_series import write_enhanced, write_series

from pinn_engine.asl.acquisition import AcquisitionOptions
from pinn_engine.asl.scan import read
from pinn_engine.errors import InputError

PASL = {"ArterialSpinLabelingType": "PASL", "drop": ("LabelingDuration",)}
M0_ROW = [("m0scan", 0.0, 0), *cycle("CL")]


def sidecar(order=None, **fields):
    """A series with other sidecar fields."""
    return lambda folder: (write(folder, order, **fields), {})


def options(order=None, model="buxton", fields=None, **given):
    """A sound series read with options."""
    return lambda folder: (write(folder, order, **(fields or {})), {"options": AcquisitionOptions(**given), "model": model})


def argument(**given):
    """A sound series read with other arguments of `read`; images are given as functions of the folder."""

    def make(folder):
        path = write(folder)
        return path, {name: value(folder) if callable(value) else value for name, value in given.items()}

    return make


def m0scan(asl=None, **fields):
    """A series with an m0scan beside it."""

    def make(folder):
        path = write(folder, M0Type="Separate", **(asl or {}))
        write_m0(path, **fields)
        return path, {}

    return make


def image(name, data, affine=AFFINE):
    return lambda folder: save(folder / name, data, affine)


def changed(change, **fields):
    """A sound series, then `change(path)`."""

    def make(folder):
        path = write(folder, **fields)
        change(path)
        return path, {}

    return make


def bare(data=None, **given):
    """An image without sidecar, with options."""

    def make(folder):
        return save(folder / "perfusion.nii.gz", cube(3) if data is None else data), {"options": AcquisitionOptions(**given)}

    return make


def cube(volumes: int) -> np.ndarray:
    return np.stack([truth(1.0, repeat) for repeat in range(volumes)], axis=-1)


def of_type(dtype):
    return lambda path: nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 12), dtype), AFFINE), path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:5000]))


def text(suffix: str, content: str | bytes):
    """Overwrite the file beside the image."""

    def change(path: Path) -> None:
        file = path.with_name("sub-01" + suffix)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def nrrd(name: str = "scan.nrrd", cut: int = 0, data: bytes | None = None, sizes=(*SHAPE, 4), **changed):
    """(path) an NRRD series with other header fields (None: left out), or fewer bytes of data."""

    def make(folder: Path) -> Path:
        vectors = " ".join(["(-3,0,0)", "(0,3,0)", "(0,0,5)", *["none"] * (len(sizes) - 3)])
        fields = {"type": "float", "dimension": len(sizes), "space": "LPS", "sizes": " ".join(map(str, sizes)), "space directions": vectors}
        fields |= {"kinds": "domain domain domain" + " list" * (len(sizes) - 3), "endian": "little", "encoding": "raw"}
        fields |= {"space origin": "(0,0,0)"} | {key.replace("_", " "): value for key, value in changed.items()}
        text = "NRRD0005\n" + "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None) + "\n"
        values = np.arange(np.prod(sizes), dtype="<f4").tobytes() if data is None else data
        path = folder / name
        path.write_bytes(text.encode() + values[: len(values) - cut])
        return path

    return make


def series(**changed):
    """An NRRD series without sidecar, read with all options that it needs."""
    given = AcquisitionOptions(labeling="pcasl", plds=[1.0, 1.0], label_duration=1.8, volumes="control-label")
    return lambda folder: (nrrd(**changed)(folder), {"options": given})


def dicom(*change, extra=(), volumes: int = 2, modality: str = "MR", second: bool = False, without=(), **given):
    """A folder of DICOM files, changed by the functions `change`, read with other arguments of `read`."""

    def make(folder):
        pytest.importorskip("dcm2niix")
        data = np.stack([truth(1.0, repeat).round() for repeat in range(volumes)], axis=-1)
        path = write_series(folder / "dicom", data, AFFINE, extra=extra, modality=modality, without=without)
        if second:
            write_series(path, data[..., 0], AFFINE, number=6, description="T1 MPRAGE")
        for one in change:
            one(path)
        return path, given

    return make


def put(name: str, content: bytes):
    """A folder that holds one file."""

    def make(folder):
        pytest.importorskip("dcm2niix")
        (folder / "d").mkdir()
        (folder / "d" / name).write_bytes(content)
        return folder / "d", {}

    return make


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _cut(path: Path) -> Path:
    truncate(path)
    return path


def needs_dcm2niix() -> None:
    pytest.importorskip("dcm2niix")


def cut_all(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(file.read_bytes()[:700])


def lose_one(path: Path) -> None:
    sorted(path.iterdir())[3].unlink()


ROTATED = np.array([[0, 3.0, 0, 20], [-3.0, 0, 0, -15], [0, 0, 5.0, 7], [0, 0, 0, 1.0]])
NO_BRAIN = np.zeros(SHAPE)
NOISE = np.random.default_rng(0).uniform(1, 2, SHAPE)  # does not compress, so that half a file is half the data
SLICES_2D = {"MRAcquisitionType": "2D"}
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

BAD = {  # case: (what to read, file named, words that must stand in the line)
    # the image
    "missing file": (lambda folder: (folder / "sub-01_asl.nii.gz", {}), "sub-01_asl.nii.gz", "does not exist"),
    "folder of NIfTI": (lambda folder: (write(folder).parent, {}), "", "must be one file|.nii"),
    "not NIfTI": (changed(lambda path: path.write_bytes(b"hello" * 200)), "sub-01_asl.nii.gz", "not a readable NIfTI"),
    "empty file": (changed(lambda path: path.write_bytes(b"")), "sub-01_asl.nii.gz", "0 bytes"),
    "truncated gzip": (changed(truncate), "sub-01_asl.nii.gz", "truncated"),
    "truncated inside": (changed(truncate_inside), "sub-01_asl.nii.gz", "truncated"),
    "3-D": (sidecar(data=truth(1, 0)), "sub-01_asl.nii.gz", "4-D|3-D"),
    "3-D, one control": (sidecar([("control", 1, 0)], data=truth(1, 0)), "sub-01_asl.nii.gz", "4-D|3-D"),
    "5-D": (sidecar(data=np.ones((*SHAPE, 3, 4))), "sub-01_asl.nii.gz", "5-D"),
    "all zero": (sidecar(data=np.zeros((*SHAPE, 12))), "sub-01_asl.nii.gz", "zero everywhere"),
    "volumes of zeros": (
        sidecar(data=np.where(np.arange(12) < 10, 100.0, 0.0) * np.ones((*SHAPE, 12))),
        "sub-01_asl.nii.gz",
        "volumes hold nothing but zeros, found 2 of 12: 11, 12; export",
    ),
    "all NaN": (sidecar(data=np.full((*SHAPE, 12), np.nan)), "sub-01_asl.nii.gz", "finite"),
    "complex": (changed(of_type(np.complex64)), "sub-01_asl.nii.gz", "real numbers"),
    "RGB": (changed(of_type(RGB)), "sub-01_asl.nii.gz", "real numbers"),
    "control equals label": (sidecar(data=np.ones((*SHAPE, 12))), "sub-01_asl.nii.gz", "differences are zero"),
    # sidecar and context as files
    "no sidecar, no options": (bare(), "perfusion.nii.gz", "--labeling|--plds|--label-duration|--volumes"),
    "no sidecar, some options": (bare(labeling="pcasl", plds=[1, 2, 3]), "perfusion.nii.gz", "give --label-duration, --volumes"),
    "malformed JSON": (changed(text("_asl.json", '{"PostLabelingDelay": 1,')), "sub-01_asl.json", "JSON"),
    "JSON list": (changed(text("_asl.json", "[1, 2]")), "sub-01_asl.json", "object"),
    "JSON not UTF-8": (changed(text("_asl.json", b'{"a": "\xff\xfe"}')), "sub-01_asl.json", "UTF-8"),
    "TSV without header": (changed(text("_aslcontext.tsv", "control\nlabel\n")), "aslcontext.tsv", "volume_type"),
    "TSV empty": (changed(text("_aslcontext.tsv", "")), "aslcontext.tsv", "volume_type"),
    "TSV gap": (changed(text("_aslcontext.tsv", "volume_type\ncontrol\n\nlabel\n")), "aslcontext.tsv", "line 3"),
    "no aslcontext": (
        changed(lambda path: path.with_name("sub-01_aslcontext.tsv").unlink()),
        "sub-01_asl.nii.gz",
        "aslcontext.tsv|--volumes",
    ),
    # volumes
    "rows != volumes": (sidecar(data=np.ones((*SHAPE, 11))), "aslcontext.tsv", "volume_type|11 rows|found 12"),
    "PLDs != volumes": (sidecar(PostLabelingDelay=[0.5] * 6), "sub-01_asl.json", "PostLabelingDelay|12|found 6"),
    "PLDs without the m0scan": (sidecar(M0_ROW, PostLabelingDelay=[1.0] * 12), "sub-01_asl.json", "PostLabelingDelay|13|found 12"),
    "durations != volumes": (sidecar(LabelingDuration=[1.8] * 3), "sub-01_asl.json", "LabelingDuration|12|found 3"),
    "unknown volume type": (sidecar([("controll", 1, 0), ("label", 1, 0)]), "aslcontext.tsv", "line 2|controll"),
    "odd label and control": (sidecar([*cycle("CL"), ("control", 0.5, 2)]), "aslcontext.tsv", "volume_type|7 control and 6 label"),
    "only controls": (sidecar([("control", 1, 0)] * 4), "aslcontext.tsv", "4 control and 0 label"),
    "only labels": (sidecar([("label", 1, 0)] * 4), "aslcontext.tsv", "0 control and 4 label"),
    "only m0scan": (sidecar([("m0scan", 0, 0)] * 2), "aslcontext.tsv", "nothing to fit"),
    "only cbf": (sidecar([("cbf", 1, 0)] * 2), "aslcontext.tsv", "cbf"),
    "a pair of two delays": (sidecar([("control", 0.5, 0), ("label", 1, 0)]), "aslcontext.tsv", "delay 0.5 s|1 control and 0 label"),
    "--volumes odd": (options([*cycle("CL"), ("control", 1, 0)], volumes="control-label"), "", "--volumes|13 volumes"),
    "--volumes unknown": (options(volumes="tc"), "", "--volumes|tc|control-label"),
    # timings
    "PLD missing": (sidecar(drop=("PostLabelingDelay",)), "sub-01_asl.json", "PostLabelingDelay|--plds"),
    "PLD in ms": (sidecar(PostLabelingDelay=1800), "sub-01_asl.json", "PostLabelingDelay|milliseconds|1800"),
    "PLD negative": (sidecar(PostLabelingDelay=-0.5), "sub-01_asl.json", "PostLabelingDelay|negative"),
    "PLD a word": (sidecar(PostLabelingDelay="long"), "sub-01_asl.json", "PostLabelingDelay|'long'"),
    "PLD NaN": (sidecar(PostLabelingDelay=float("nan")), "sub-01_asl.json", "PostLabelingDelay|finite"),
    "PLD true": (sidecar(PostLabelingDelay=True), "sub-01_asl.json", "PostLabelingDelay|True"),
    "PLD nested": (sidecar(PostLabelingDelay=[[1.0], [2.0]]), "sub-01_asl.json", "PostLabelingDelay|number"),
    "PLD empty list": (sidecar(PostLabelingDelay=[]), "sub-01_asl.json", "PostLabelingDelay|empty"),
    "label duration absent": (sidecar(drop=("LabelingDuration",)), "sub-01_asl.json", "LabelingDuration|--label-duration"),
    "label duration zero": (sidecar(LabelingDuration=0), "sub-01_asl.json", "LabelingDuration|above zero"),
    "label duration negative": (sidecar(LabelingDuration=-1.8), "sub-01_asl.json", "LabelingDuration|-1.8"),
    "label duration in ms": (sidecar(LabelingDuration=1800), "sub-01_asl.json", "LabelingDuration|milliseconds"),
    "--plds in ms": (options(plds=[1800]), "", "--plds|milliseconds"),
    "--plds unique": (options(plds=[0.5, 1.0, 1.5]), "", "--plds|12|6 (one per pair)|found 3"),
    "--plds per pair, not alternating": (options(sorted(cycle("CL")), plds=[0.5] * 6), "", "--plds|found 6"),
    "--tis for PCASL": (options(tis=[1, 2, 3]), "", "--tis|--plds"),
    "--plds for PASL": (options(fields=PASL, plds=[1, 2]), "", "--plds|--tis"),
    "--label-duration for PASL": (options(fields=PASL, label_duration=1), "", "--label-duration|--bolus-duration"),
    "--bolus-duration for PCASL": (options(bolus_duration=1), "", "--bolus-duration|--label-duration"),
    "TI zero": (sidecar(**PASL, BolusCutOffDelayTime=0.7, PostLabelingDelay=0), "sub-01_asl.json", "PostLabelingDelay|above zero"),
    "bolus missing": (sidecar(**PASL, BolusCutOffFlag=True), "sub-01_asl.json", "BolusCutOffDelayTime|--bolus-duration"),
    "no bolus cut-off": (sidecar(**PASL, BolusCutOffFlag=False), "sub-01_asl.json", "BolusCutOffFlag|--bolus-duration"),
    "QUIPSS I": (sidecar(**PASL, BolusCutOffTechnique="QUIPSS", BolusCutOffDelayTime=0.7), "sub-01_asl.json", "QUIPSS|--bolus-duration"),
    "bolus in ms": (sidecar(**PASL, BolusCutOffDelayTime=700), "sub-01_asl.json", "BolusCutOffDelayTime|milliseconds"),
    "slice timing missing": (sidecar(**SLICES_2D), "sub-01_asl.json", "SliceTiming|--slice-timing"),
    "slice timing wrong length": (sidecar(**SLICES_2D, SliceTiming=[0, 0.1, 0.2]), "sub-01_asl.json", "SliceTiming|4 entries|found 3"),
    "slice timing in ms": (sidecar(**SLICES_2D, SliceTiming=[0, 45, 90, 135]), "sub-01_asl.json", "SliceTiming|milliseconds"),
    "slice direction": (
        sidecar(**SLICES_2D, SliceTiming=[0] * 4, SliceEncodingDirection="z"),
        "sub-01_asl.json",
        "SliceEncodingDirection|'z'",
    ),
    "--slice-timing wrong length": (options(slice_timing=[0, 0.1]), "", "--slice-timing|4 entries|found 2"),
    # labelling, model and constants
    "unknown labelling": (sidecar(ArterialSpinLabelingType="VSASL"), "sub-01_asl.json", "ArterialSpinLabelingType|VSASL|PASL"),
    "labelling missing": (sidecar(drop=("ArterialSpinLabelingType",)), "sub-01_asl.json", "ArterialSpinLabelingType|--labeling"),
    "--labeling unknown": (options(labeling="vsasl"), "", "--labeling|vsasl"),
    "Look-Locker": (sidecar(LookLocker=True), "sub-01_asl.json", "LookLocker"),
    "--model unknown": (options(model="grase"), "", "--model|grase|buxton"),
    "--model simplified for PCASL": (options(model="simplified"), "", "simplified|PCASL"),
    "LabelingEfficiency in percent": (sidecar(LabelingEfficiency=85), "sub-01_asl.json", "LabelingEfficiency|85"),
    "BS pulses": (sidecar(BackgroundSuppression=True, BackgroundSuppressionNumberPulses=-1), "sub-01_asl.json", "NumberPulses"),
    "a flag that is none": (sidecar(BackgroundSuppression="perhaps"), "sub-01_asl.json", "BackgroundSuppression|'perhaps'"),
    "field strength": (sidecar(MagneticFieldStrength=30000), "sub-01_asl.json", "MagneticFieldStrength|tesla"),
    "--alpha": (options(alpha=85.0), "", "--alpha|85"),
    "--t1b in ms": (options(t1b=1650.0), "", "--t1b|milliseconds|1650"),
    "--lambda": (options(partition=0.0), "", "--lambda"),
    # mask and T1 map
    "mask missing": (argument(mask="nowhere.nii.gz"), "nowhere.nii.gz", "mask|does not exist"),
    "mask empty": (argument(mask=image("mask.nii.gz", NO_BRAIN)), "mask.nii.gz", "zero everywhere"),
    "mask below one half": (argument(mask=image("mask.nii.gz", 0.2 * brain())), "mask.nii.gz", "empty"),
    "mask of another shape": (argument(mask=image("mask.nii.gz", np.ones((12, 10, 5)))), "mask.nii.gz", "12 x 10 x 4|found 12 x 10 x 5"),
    "mask elsewhere": (argument(mask=image("mask.nii.gz", brain(), ROTATED)), "mask.nii.gz", "position"),
    "mask 4-D": (argument(mask=image("mask.nii.gz", np.ones((*SHAPE, 2)))), "mask.nii.gz", "3-D"),
    "T1 map in ms": (argument(t1_map=image("t1.nii.gz", np.full(SHAPE, 1330.0))), "t1.nii.gz", "seconds"),
    "T1 map elsewhere": (argument(t1_map=image("t1.nii.gz", np.ones(SHAPE), ROTATED)), "t1.nii.gz", "grid"),
    # M0
    "M0 missing": (argument(m0="nowhere.nii.gz"), "nowhere.nii.gz", "M0|does not exist"),
    "M0 zero": (argument(m0=image("m0.nii.gz", NO_BRAIN)), "m0.nii.gz", "zero"),
    "M0 negative": (argument(m0=image("m0.nii.gz", -1.0 * brain())), "m0.nii.gz", "nowhere positive"),
    "M0 of another shape": (argument(m0=image("m0.nii.gz", np.ones((6, 5, 4)))), "m0.nii.gz", "12 x 10 x 4|6 x 5 x 4"),
    "M0 elsewhere": (argument(m0=image("m0.nii.gz", brain(), ROTATED)), "m0.nii.gz", "position"),
    "M0 outside the mask": (
        argument(m0=image("m0.nii.gz", ~brain()), mask=image("mask.nii.gz", brain())),
        "",
        "M0|mask",
    ),
    "--m0 0": (argument(m0="0"), "", "--m0|positive"),
    "--m0 nan": (argument(m0="nan"), "", "--m0|positive"),
    "--m0-scale": (argument(m0=1000, m0_scale=-1.0), "", "--m0-scale"),
    "a suppressed control as M0": (
        lambda folder: (write(folder, BackgroundSuppression=True), {"m0": "control"}),
        "sub-01_asl.json",
        "mean control|background-suppressed|--m0",
    ),
    "the suppressed series itself as M0": (
        lambda folder: (path := write(folder, BackgroundSuppression=True), {"m0": str(path)}),
        "sub-01_asl.json",
        "background-suppressed",
    ),
    "a suppressed m0scan": (m0scan(BackgroundSuppression=True), "sub-01_m0scan.json", "BackgroundSuppression|--m0"),
    "TR 0": (m0scan(RepetitionTimePreparation=0), "sub-01_m0scan.json", "RepetitionTimePreparation|found 0|--m0"),
    "TR missing": (m0scan(RepetitionTimePreparation=None), "sub-01_m0scan.json", "RepetitionTimePreparation|found nothing"),
    "TR in ms": (m0scan(RepetitionTimePreparation=4800), "sub-01_m0scan.json", "RepetitionTimePreparation|milliseconds"),
    "TR 0 of included M0": (
        sidecar(M0_ROW, M0Type="Included", RepetitionTimePreparation=0),
        "sub-01_asl.json",
        "RepetitionTimePreparation",
    ),
    "separate M0 that is not there": (sidecar(M0Type="Separate"), "sub-01_asl.json", "M0Type|--m0"),
    "included M0 that is not there": (sidecar(M0Type="Included"), "sub-01_asl.json", "M0Type|m0scan"),
    "estimate without a value": (sidecar(M0Type="Estimate"), "sub-01_asl.json", "M0Estimate|--m0"),
    "estimate zero": (sidecar(M0Type="Estimate", M0Estimate=0), "sub-01_asl.json", "M0Estimate|positive"),
    "M0Type unknown": (sidecar(M0Type="Other"), "sub-01_asl.json", "M0Type|Other|Separate"),
    # NRRD
    "NRRD missing": (lambda folder: (folder / "scan.nrrd", {}), "scan.nrrd", "does not exist"),
    "NRRD empty": (lambda folder: (_write(folder / "scan.nrrd", b""), {}), "scan.nrrd", "not a readable NRRD|0 bytes"),
    "NRRD without sidecar": (lambda folder: (nrrd()(folder), {}), "scan.nrrd", "scan.json|--labeling|--volumes"),
    "NRRD that is none": (
        lambda folder: (save(folder / "x.nii", cube(4)).rename(folder / "scan.nrrd"), {}),
        "scan.nrrd",
        "not a readable NRRD",
    ),
    "NRRD of ITK, 4-D": (series(space=None), "scan.nrrd", "where the patient's left is|NIfTI"),
    "NRRD truncated": (series(cut=100), "scan.nrrd", "truncated|bytes of"),
    "NRRD gzip truncated": (series(encoding="gzip", data=gzip.compress(bytes(7680)), cut=20), "scan.nrrd", "truncated"),
    "NRRD header alone": (lambda folder: (_write(folder / "scan.nrrd", b"NRRD0005\ntype: float\n"), {}), "scan.nrrd", "truncated|header"),
    "NRRD data file missing": (series(name="scan.nhdr", data_file="scan.raw"), "scan.nhdr", "scan.raw|beside the header"),
    "NRRD data in many files": (series(name="scan.nhdr", data_file="scan%03d.raw 1 9 1"), "scan.nhdr", "many files"),
    "NRRD type block": (series(type="block"), "scan.nrrd", "real numbers|block"),
    "NRRD encoding": (series(encoding="hex"), "scan.nrrd", "encoding|hex|gzip"),
    "NRRD endian missing": (series(endian=None), "scan.nrrd", "no endian"),
    "NRRD endian": (series(endian="middle"), "scan.nrrd", "endian|middle"),
    "NRRD sizes": (series(dimension=3), "scan.nrrd", "4 sizes|dimension 3"),
    "NRRD size 0": (series(sizes=(12, 10, 0, 4)), "scan.nrrd", "sizes"),
    "NRRD without a space": (series(space=None), "scan.nrrd", "no space"),
    "NRRD in scanner space": (series(space="scanner-xyz"), "scan.nrrd", "patient's left|scanner-xyz"),
    "NRRD without directions": (series(space_directions=None), "scan.nrrd", "space directions"),
    "NRRD directions": (series(space_directions="(1,0,0) (0,a,0) (0,0,1) none"), "scan.nrrd", "three numbers|(0,a,0)"),
    "NRRD singular": (series(space_directions="(1,0,0) (1,0,0) (0,0,1) none"), "scan.nrrd", "independent"),
    "NRRD too few directions": (series(space_directions="(1,0,0) (0,1,0) (0,0,1)"), "scan.nrrd", "4 entries"),
    "NRRD two spatial axes": (series(space_directions="(1,0,0) (0,1,0) none none"), "scan.nrrd", "three spatial axes|found 2"),
    "NRRD RGB": (series(kinds="domain domain domain RGB-color"), "scan.nrrd", "rgb-color|volumes"),
    "NRRD 5-D": (series(sizes=(*SHAPE, 2, 2)), "scan.nrrd", "2 further axes"),
    "NRRD units": (series(space_units='"furlong" "mm" "mm"'), "scan.nrrd", "furlong|mm"),
    "NRRD 3-D": (series(sizes=SHAPE), "scan.nrrd", "4-D|3-D"),
    "NRRD all zero": (series(data=bytes(7680)), "scan.nrrd", "zero everywhere"),
    "NRRD all NaN": (series(data=np.full(1920, np.nan, "<f4").tobytes()), "scan.nrrd", "no finite value"),
    "M0 in NRRD on another grid": (argument(m0=nrrd("m0.nrrd", sizes=SHAPE)), "m0.nrrd", "M0 must be on the grid|position"),
    "mask in NRRD truncated": (argument(mask=nrrd("mask.nrrd", sizes=SHAPE, cut=8)), "mask.nrrd", "mask is truncated"),
    "mask in NRRD of 4 volumes": (argument(mask=nrrd("mask.nrrd")), "mask.nrrd", "3-D|12 x 10 x 4 x 4"),
    "T1 map in NRRD of another shape": (argument(t1_map=nrrd("t1.nrrd", sizes=(12, 10, 5))), "t1.nrrd", "grid|12 x 10 x 5"),
    # DICOM
    "an empty folder": (lambda folder: ((folder / "d").mkdir() or folder / "d", {}), "d", "empty"),
    "a folder of text": (put("notes.txt", b"hello" * 200), "d", "no DICOM"),
    "a BIDS folder": (
        lambda folder: (pytest.importorskip("dcm2niix") and write(folder).parent, {}),
        "perf",
        "a folder of image files|.nii.gz",
    ),
    "DICOM truncated": (dicom(cut_all), "dicom", "no DICOM image"),
    "DICOM with a file missing": (dicom(lose_one), "dicom", "whole series"),
    "DICOM of another modality": (dicom(modality="CT"), "dicom", "must be MR|modality CT"),
    "DICOM without orientation": (dicom(without=((0x20, 0x37),)), "dicom", "how it lies in the patient|(0020,0037)"),
    "DICOM without positions": (dicom(without=((0x20, 0x32),)), "dicom", "where its slices are|0 positions"),
    "DICOM enhanced multi-frame": (
        lambda folder: (needs_dcm2niix() or write_enhanced(folder / "d", np.ones((7, 6, 4, 3))), {}),
        "d",
        "enhanced multi-frame|12 frames|classic",
    ),
    "DICOM of several series": (dicom(second=True), "dicom", "2 series|5 (pcasl 3D, 12 x 10 x 4 x 2)|6 (T1 MPRAGE|--series"),
    "--series not there": (dicom(second=True, series="7"), "dicom", "--series 7|6 (T1 MPRAGE"),
    "--m0-series not there": (
        dicom(m0_series="7", options=AcquisitionOptions("pcasl", 1.8, [1.0], volumes="control-label")),
        "dicom",
        "--m0-series 7|found 5",
    ),
    "DICOM of one volume": (dicom(volumes=1, options=AcquisitionOptions("pcasl", 1.8, [1.0], volumes="control-label")), "dicom", "4-D|3-D"),
    "DICOM without timings": (dicom(), "dicom", "--labeling|--plds|--volumes"),
    "--series for a file": (argument(series="5"), "sub-01_asl.nii.gz", "--series|a file"),
    "--m0-series for a file": (argument(m0_series="5"), "sub-01_asl.nii.gz", "--m0-series|a file"),
    "--m0-series and a number": (argument(m0_series="5", m0="1000"), "", "--m0-series|--m0 1000"),
    # labels
    "labels of another shape": (argument(labels=image("l.nii.gz", np.ones((12, 10, 5)))), "l.nii.gz", "12 x 10 x 4|12 x 10 x 5"),
    "labels elsewhere": (argument(labels=image("l.nii.gz", np.ones(SHAPE), ROTATED)), "l.nii.gz", "position"),
    "labels that are a map": (argument(labels=image("l.nii.gz", 0.3 * brain())), "l.nii.gz", "whole numbers|0.3"),
    "label names without labels": (argument(label_names="names.tsv"), "names.tsv", "--label-names needs --labels"),
    # damaged companions
    "mask truncated": (argument(mask=lambda folder: _cut(save(folder / "mask.nii.gz", NOISE))), "mask.nii.gz", "mask is truncated"),
    "M0 truncated": (argument(m0=lambda folder: _cut(save(folder / "m0.nii.gz", NOISE))), "m0.nii.gz", "M0 is truncated"),
    "T1 map truncated": (argument(t1_map=lambda folder: _cut(save(folder / "t1.nii.gz", NOISE))), "t1.nii.gz", "T1 map is truncated"),
    "labels truncated": (argument(labels=lambda folder: _cut(save(folder / "l.nii.gz", NOISE))), "l.nii.gz", "label image is truncated"),
    "mask all NaN": (argument(mask=image("mask.nii.gz", np.full(SHAPE, np.nan))), "mask.nii.gz", "no finite value"),
    "M0 all NaN": (argument(m0=image("m0.nii.gz", np.full(SHAPE, np.nan))), "m0.nii.gz", "no finite value"),
    "T1 map all NaN": (argument(t1_map=image("t1.nii.gz", np.full(SHAPE, np.nan))), "t1.nii.gz", "no finite value"),
    "T1 map 4-D": (argument(t1_map=image("t1.nii.gz", np.ones((*SHAPE, 2)))), "t1.nii.gz", "3-D"),
    "M0 5-D": (argument(m0=image("m0.nii.gz", np.ones((*SHAPE, 2, 2)))), "m0.nii.gz", "5-D"),
}


@pytest.mark.parametrize(("make", "file", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line(tmp_path, make, file, words):
    path, arguments = make(tmp_path)
    with pytest.raises(InputError) as caught:
        read(path, **arguments)
    line = str(caught.value)
    where, _, what = line.partition(": ")
    assert "\n" not in line
    assert where.endswith(file)
    assert ";" in what, f"no advice: {line}"
    for word in words.split("|"):
        assert word in what, line


def test_the_table_begins_from_a_sound_series(tmp_path):
    assert read(write(tmp_path)).difference.any()
    assert PCASL["M0Type"] == "Absent"
