"""Physics-informed neural networks for medical scans: perfusion (arterial spin labelling) and the heart's electrical wave.

`from pinn_engine import asl` reads and fits a perfusion scan; see the README for the three doors.
"""

__version__ = "0.1.0"
