"""Launcher that runs a Python module as a process which never outlives its parent, even if that is killed.

Started by path, ``python -P lifeline.py FD MODULE [ARGUMENT...]``. FD is the read end of a pipe whose write end only
the parent holds. When the parent ends, even by SIGKILL, the kernel closes it, and the read here returns. Then this
process kills itself: no parent is left that waits for a clean end, and all accepted work is in the object store. (The
broker's server, which is not Python, uses ``tether.py``.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def _end_with_starter(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Watches the pipe in a thread and runs the module as ``__main__``."""
    pipe, module, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.set_inheritable(pipe, False)
    threading.Thread(target=_end_with_starter, args=(pipe,), name="lifeline", daemon=True).start()
    # last, and never the current folder: a folder named "workers" there must not be imported instead
    package_root = str(Path(__file__).resolve().parents[2])
    if package_root not in sys.path:
        sys.path.append(package_root)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
