"""Classic single-frame MR series as scanners export them, written element by element: what the DICOM tests read."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

MR, CT, SECONDARY = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
ROOT = "1.2.826.0.1.3680043.10.1"  # any root will do: these files leave no test
LONG = ("OB", "OW", "SQ", "UN", "UT")
PATIENT = "ZZYZX^QUILLON"

Element = tuple[int, int, str, object]


def element(group: int, number: int, vr: str, value: object) -> bytes:
    """One data element, explicit little endian."""
    if isinstance(value, bytes):
        raw = value
    elif vr in ("US", "UL", "FD", "SL"):
        raw = b"".join(struct.pack("<" + {"US": "H", "UL": "I", "FD": "d", "SL": "i"}[vr], v) for v in np.atleast_1d(value).tolist())
    else:
        raw = (value if isinstance(value, str) else "\\".join(f"{v:.10g}" for v in np.atleast_1d(value).tolist())).encode()
    if len(raw) % 2:
        raw += b"\0" if vr in ("UI", "OB") else b" "
    head = struct.pack("<HH", group, number) + vr.encode()
    return head + (b"\0\0" + struct.pack("<I", len(raw)) if vr in LONG else struct.pack("<H", len(raw))) + raw


def dataset(elements: Iterable[Element]) -> bytes:
    return b"".join(element(*one) for one in sorted(elements, key=lambda one: one[:2]))


def file(sop_class: str, uid: str, elements: Iterable[Element]) -> bytes:
    """A whole DICOM file."""
    meta = dataset([(2, 1, "OB", b"\0\1"), (2, 2, "UI", sop_class), (2, 3, "UI", uid), (2, 0x10, "UI", "1.2.840.10008.1.2.1")])
    common: list[Element] = [(8, 0x16, "UI", sop_class), (8, 0x18, "UI", uid)]
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", len(meta)) + meta + dataset([*common, *elements])


def write_series(
    folder: Path,
    data: np.ndarray,
    affine: np.ndarray,
    *,
    number: int = 5,
    description: str = "pcasl 3D",
    modality: str = "MR",
    extra: Iterable[Element] = (),
    per_volume: Iterable[Iterable[Element]] | None = None,
    without: tuple[tuple[int, int], ...] = (),
) -> Path:
    """Write `data` (X, Y, Z, V) of whole numbers at the RAS+ `affine` (mm): one file a slice and volume, slices fastest.

    Columns run along axis 0, rows along axis 1, slices along axis 2. `extra` elements go into every file, `per_volume` into a volume's;
    elements named in `without` are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = data if data.ndim == 4 else data[..., None]
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    along = lps[:3, :3] / spacing
    own = [list(one) for one in per_volume] if per_volume is not None else [[] for _ in range(data.shape[3])]
    slices = data.shape[2]
    for v in range(data.shape[3]):
        for z in range(slices):
            instance = v * slices + z + 1
            uid = f"{ROOT}.{number}.{instance}"
            elements: list[Element] = [
                (8, 8, "CS", "ORIGINAL\\PRIMARY\\M\\ND"),
                (8, 0x20, "DA", "20200101"),
                (8, 0x30, "TM", "101010"),
                (8, 0x60, "CS", modality),
                (8, 0x70, "LO", "ACME"),
                (8, 0x103E, "LO", description),
                (0x10, 0x10, "PN", PATIENT),
                (0x10, 0x20, "LO", "ID-774411"),
                (0x10, 0x30, "DA", "19700131"),
                (0x18, 0x20, "CS", "GR"),
                (0x18, 0x23, "CS", "3D"),
                (0x18, 0x50, "DS", spacing[2]),
                (0x18, 0x80, "DS", 4800),
                (0x18, 0x81, "DS", 12),
                (0x18, 0x87, "DS", 3),
                (0x18, 0x88, "DS", spacing[2]),
                (0x18, 0x1030, "LO", description),
                (0x18, 0x1314, "DS", 90),
                (0x20, 0xD, "UI", f"{ROOT}.1"),
                (0x20, 0xE, "UI", f"{ROOT}.1.{number}"),
                (0x20, 0x11, "IS", number),
                (0x20, 0x12, "IS", v + 1),
                (0x20, 0x13, "IS", instance),
                (0x20, 0x32, "DS", lps[:3, 3] + lps[:3, 2] * z),
                (0x20, 0x37, "DS", np.concatenate([along[:, 0], along[:, 1]])),
                (0x20, 0x52, "UI", f"{ROOT}.2"),
                (0x20, 0x100, "IS", v + 1),
                (0x28, 2, "US", 1),
                (0x28, 4, "CS", "MONOCHROME2"),
                (0x28, 0x10, "US", data.shape[1]),
                (0x28, 0x11, "US", data.shape[0]),
                (0x28, 0x30, "DS", [spacing[1], spacing[0]]),
                (0x28, 0x100, "US", 16),
                (0x28, 0x101, "US", 16),
                (0x28, 0x102, "US", 15),
                (0x28, 0x103, "US", 0),
                (0x7FE0, 0x10, "OW", np.ascontiguousarray(data[:, :, z, v].T).astype("<u2").tobytes()),
            ]
            given = {(g, e): (g, e, vr, value) for g, e, vr, value in [*elements, *extra, *own[v]] if (g, e) not in without}
            content = file({"MR": MR, "CT": CT}.get(modality, SECONDARY), uid, given.values())
            (folder / f"IM{number:03d}_{instance:05d}.dcm").write_bytes(content)
    return folder


def write_enhanced(folder: Path, data: np.ndarray) -> Path:
    """All frames of `data` (X, Y, Z, V) in one file, as scanners of the newer kind export."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = data.transpose(3, 2, 1, 0)
    elements: list[Element] = [
        (8, 8, "CS", "ORIGINAL\\PRIMARY\\M\\NONE"),
        (8, 0x60, "CS", "MR"),
        (0x20, 0xD, "UI", f"{ROOT}.1"),
        (0x20, 0xE, "UI", f"{ROOT}.1.9"),
        (0x20, 0x11, "IS", 9),
        (0x28, 2, "US", 1),
        (0x28, 4, "CS", "MONOCHROME2"),
        (0x28, 8, "IS", frames.shape[0] * frames.shape[1]),
        (0x28, 0x10, "US", frames.shape[2]),
        (0x28, 0x11, "US", frames.shape[3]),
        (0x28, 0x100, "US", 16),
        (0x28, 0x101, "US", 16),
        (0x28, 0x102, "US", 15),
        (0x28, 0x103, "US", 0),
        (0x7FE0, 0x10, "OW", np.ascontiguousarray(frames).astype("<u2").tobytes()),
    ]
    (folder / "enhanced.dcm").write_bytes(file("1.2.840.10008.5.1.4.1.1.4.1", f"{ROOT}.9.1", elements))
    return folder
