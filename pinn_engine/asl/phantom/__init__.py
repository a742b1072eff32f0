"""A digital brain whose perfusion is known: `make` it, `write_bids` it, fit it, compare.

Anatomy and truth are in `brain.py`, the signal in `signal.py` (numerical convolution, independent of the fit's closed form).
"""

from .bids import write_bids
from .brain import TERRITORIES, Lesion
from .infant import infant
from .make import Phantom, make

__all__ = ["TERRITORIES", "Lesion", "Phantom", "infant", "make", "write_bids"]
