"""vaby's analytic variational Bayes (BASIL's method), model `aslrest`, on given.npz -> made.npz; vaby_models_asl's source is on the path.

How its inputs were corrected: it has no labelling efficiency and no calibration, and starts its flow at 0.1 at least, so it is given
6000 x difference / M0 of blood, and its flow is CBF x alpha. It gets all repeats, grouped by delay as it wants them (its noise comes from
them), one label duration and one tissue T1, grey matter's; 50 iterations and spatial priors off, the model's other settings as they are.
"""

import sys

import numpy as np
import tensorflow as tf
from told import Clock
from vaby import __version__
from vaby.data import DataModel
from vaby_avb import Avb
from vaby_models_asl import AslRestModel


def main(given: str, made: str) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = np.load(given)
    repeats = data["repeats"]  # (V, delays, repeats)
    count, delays, each = repeats.shape
    series = 6000 * repeats.reshape(count, 1, 1, delays * each).astype(np.float32)
    clock = Clock()
    model = DataModel(series, mask=np.ones((count, 1, 1), np.int32))
    options = {"casl": True, "tau": float(data["tau"][0]), "plds": data["pld"].tolist(), "repeats": [each]}
    options |= {"t1": float(data["t1_tissue"]), "t1b": float(data["t1b"]), "pc": float(data["partition"])}
    state = Avb(model, AslRestModel(model, **options)).run(max_iterations=50)
    mean, sd = state["model_mean"], np.sqrt(state["model_var"])
    alpha = float(data["alpha"])
    clock.write(made, __version__, cbf=mean[0] / alpha, att=mean[1], cbf_sd=sd[0] / alpha, att_sd=sd[1])


if __name__ == "__main__":
    main(*sys.argv[1:3])
