"""Runs in the subprocess: `python run_engine.py FOLDER ARGUMENTS…` calls the engine that lies in FOLDER.

The process id is told first, because PythonSlicer is a launcher: killing the launcher alone would leave the fit running. A session of
its own lets the fit's children be stopped with it.
"""

import contextlib
import json
import os
import sys


def main() -> int:
    folder, *arguments = sys.argv[1:]
    if hasattr(os, "setsid"):
        with contextlib.suppress(PermissionError):  # already the leader of its group
            os.setsid()
    sys.stderr.write(json.dumps({"pid": os.getpid()}) + "\n")
    sys.stderr.flush()
    sys.path[0] = folder  # in place of this file's folder
    from pinn_engine.cli import main as engine

    return engine(arguments)


if __name__ == "__main__":
    sys.exit(main())
