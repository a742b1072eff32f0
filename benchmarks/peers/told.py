"""What every adapter says of its run besides the results. NumPy and the standard library only: each runs in its peer's Python."""

import os
import sys
import time

import numpy as np


def peak() -> float:
    """GiB of this process at its highest. Linux's own count is taken first: `ru_maxrss` there begins with the parent's."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 2**20 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


class Clock:
    """CPU seconds (of children too, once they have ended) and wall seconds since it was made."""

    def __init__(self):
        self.before, self.cpu, self.wall = peak(), sum(os.times()[:4]), time.perf_counter()

    def write(self, made, version, **results):
        told = {"seconds": sum(os.times()[:4]) - self.cpu, "wall": time.perf_counter() - self.wall}
        np.savez(made, **{**told, "peak": peak(), "before": self.before, "version": version, **results})
