"""Runs a Python module as a process that never outlives the one that started it, however that one ended.

Started by path, ``python -P lifeline.py FD MODULE [ARGUMENT...]``. FD is the reading end of a pipe whose writing end
the starter alone holds. When the starter ends, even by SIGKILL, the kernel closes it, and the read here comes back.
SIGKILL is right then: nobody is left to wait for a clean end, and what was promised is in the object store. (A program
that is not Python, the broker's server, is held by ``tether.py``.)
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
    # Behind everything else, and never the current folder: a folder named "workers" there must not be taken for ours.
    package_root = str(Path(__file__).resolve().parents[2])
    if package_root not in sys.path:
        sys.path.append(package_root)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
