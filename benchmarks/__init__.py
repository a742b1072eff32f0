"""Benchmarks of the perfusion fit against its bars and its peers: `python -m benchmarks.asl`; see README.md beside this file.

Importing the package limits every numerical library to one thread, here and in the processes started from here: all figures are per thread.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
