"""What a fit writes by itself: the same files from Python as from the command line, and never a map that is not finite."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from small_scans import fitted, phantom, some_voxels

from pinn_engine.asl.fit import fit
from pinn_engine.asl.quality import quality
from pinn_engine.asl.save import timings
from pinn_engine.errors import InputError


def test_saved_maps_are_the_fit_s(tmp_path):
    f = fitted()
    files = f.save(tmp_path / "new" / "out")
    assert all(file.is_file() for file in files)
    assert len({file.name for file in files}) == len(files)
    for name in ("cbf", "att"):
        for prefix, array in (("", f.maps[name].value), ("desc-std_", f.maps[name].std)):
            image = nib.load(tmp_path / "new" / "out" / f"sub-01_{prefix}{name}.nii.gz")
            np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), array)
    np.testing.assert_array_equal(nib.load(tmp_path / "new/out/sub-01_desc-status_dseg.nii.gz").get_fdata(), f.status)
    np.testing.assert_array_equal(nib.load(tmp_path / "new/out/sub-01_desc-fit_asl.nii.gz").get_fdata(dtype=np.float32), f.fitted)


def test_the_same_fit_is_the_same_bytes(tmp_path):
    for name in "ab":
        fitted().save(tmp_path / name)
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert a == b


def test_a_map_that_is_not_finite_is_never_written(tmp_path):
    f = fitted()
    broken = f.maps["cbf"].value.copy()
    broken[8, 8, 5] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        replace(f, maps=f.maps | {"cbf": replace(f.maps["cbf"], value=broken)}).save(tmp_path)
    assert not list(tmp_path.glob("*_cbf.nii.gz"))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="--out"):
        fitted().save(tmp_path / "x")


def test_pasl_sidecars_speak_of_a_bolus():
    pasl = fit(some_voxels(phantom(labeling="PASL").scan(), 20))
    assert set(timings(pasl)) == {"PostLabelingDelay", "BolusCutOffDelayTime", "Repeats"}
    assert set(timings(fitted())) == {"PostLabelingDelay", "LabelingDuration", "Repeats"}


def test_quality_counts_by_status():
    f = fitted()
    row, inside = quality(f), f.status[f.scan.mask]
    assert row["voxels"] == f.scan.mask.sum()
    assert row["share_converged"] == np.mean(inside == 1)
    assert row["share_converged"] + sum(v for k, v in row.items() if k.startswith("share_status_")) == pytest.approx(1)
    used = f.scan.mask & (f.maps["cbf"].std > 0)
    assert row["cbf_median"] == pytest.approx(np.median(f.maps["cbf"].value[used]))
    assert row["att_q75"] == pytest.approx(np.percentile(f.maps["att"].value[used], 75))
