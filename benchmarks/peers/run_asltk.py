"""asltk's `CBFMapping` on given.npz -> made.npz; run by asltk's own Python.

How its inputs and outputs were corrected:
- its times are in ms, and so is its flow: a fitted value is mL/g/ms. mL/100 g/min is 6e6 of that; its `cbf_norm` takes 3.6e6.
- its model asks for M0 of blood under the name M0: the differences arrive here per M0 of blood, and it is given a constant image.
- its T1' takes T1 of blood for that of tissue, inside its code: left as it is. Its lambda 0.98, alpha 0.85 and T1b 1.65 s are fixed there.
The series goes in as an array, 5-D with one echo; M0 and mask go through files, since its maps inherit the header of the M0 file. One
process, whose CPU time is taken together with that of the worker it starts (its memory is not).
"""

import importlib.metadata
import sys

import nibabel
import numpy as np
from asltk.asldata import ASLData
from asltk.reconstruction import CBFMapping
from asltk.utils.io import ImageIO
from told import Clock

M0 = 1000.0
FLOW = 6e6  # mL/g/ms -> mL/100 g/min


def main(given: str, made: str) -> None:
    data = np.load(given)
    signal = data["signal"] * M0
    count = len(signal)
    shape = (count, 1, 1)
    series = signal.T.reshape(1, -1, 1, 1, count).astype(np.float32)  # echo, delay, z, y, x
    for name, image in (("m0", np.full(shape, M0, np.float32)), ("mask", np.ones(shape, np.uint8))):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), f"{name}.nii.gz")
    milliseconds = {"ld_values": (data["tau"] * 1000).tolist(), "pld_values": (data["pld"] * 1000).tolist()}
    mapping = CBFMapping(ASLData(pcasl=series, m0="m0.nii.gz", **milliseconds))
    mapping.set_brain_mask(ImageIO("mask.nii.gz"))
    clock = Clock()
    maps = mapping.create_map(cores=1)
    cbf = np.asarray(maps["cbf"].get_as_numpy(), float).reshape(-1) * FLOW
    att = np.asarray(maps["att"].get_as_numpy(), float).reshape(-1) / 1000
    failed = (cbf == 0) & (att == 0)  # what it writes where curve_fit raised
    version = importlib.metadata.version("asltk")
    clock.write(made, version, cbf=np.where(failed, np.nan, cbf), att=np.where(failed, np.nan, att))


if __name__ == "__main__":
    main(*sys.argv[1:3])
