"""`python -m pinn_engine` is the same as `pinn-engine`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
