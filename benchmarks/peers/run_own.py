"""One of the functions of benchmarks/work.py in a process of its own, so that its memory is its own: given.npz -> made.npz."""

import pickle
import sys

import numpy as np
from told import Clock

from benchmarks import work


def main(given: str, made: str) -> None:
    name, arguments = pickle.loads(np.load(given)["call"].item())
    function = getattr(work, name)
    work.one_thread()
    work.warm_up(name)
    clock = Clock()
    results, version = function(**arguments)
    clock.write(made, version, **results)


if __name__ == "__main__":
    main(*sys.argv[1:3])
