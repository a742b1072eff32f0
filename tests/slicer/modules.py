"""The extension's modules for tests: found on the path, loaded by the shim without a panel unless one is wanted."""

import sys
from pathlib import Path

EXTENSION = Path(__file__).parents[2] / "slicer_pinn"
for _name in ("PINNCommon", "PINNPerfusion"):
    if str(EXTENSION / _name) not in sys.path:
        sys.path.append(str(EXTENSION / _name))


def load_perfusion(shim, *, panel=False):
    """The Python module PINNPerfusion, or with `panel` what the shim says of the loaded panel."""
    loaded = shim.load_module(EXTENSION / "PINNPerfusion" / "PINNPerfusion.py", with_widget=panel)
    return loaded if panel else loaded.python
