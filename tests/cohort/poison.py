"""Options that kill the process that looks at them, as a machine out of memory would. Importable by the worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping


class Deadly(Mapping):
    """Kills in every process but `spared`; with `once`, a file's path, only while that file does not exist."""

    def __init__(self, spared: int, once: str = ""):
        self.spared, self.once = spared, once

    def _strike(self):
        if os.getpid() == self.spared or (self.once and os.path.exists(self.once)):
            return
        if self.once:
            with open(self.once, "w"):
                pass
        os.kill(os.getpid(), signal.SIGKILL)

    def __iter__(self):
        self._strike()
        return iter(())

    def __len__(self):
        self._strike()
        return 0

    def __getitem__(self, key):
        raise KeyError(key)
