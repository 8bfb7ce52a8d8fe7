"""Launcher that runs any program as a process which does not outlive its parent.

Started by path, ``python -I -S tether.py [--watcher] PARENT_PID PROGRAM [ARGUMENT...]``. On Linux the kernel itself
sends SIGTERM when the parent's thread that started it ends (PR_SET_PDEATHSIG); this setting survives exec, so only the
program remains. It is set here, in a process with one thread, since setting it between fork and exec is not safe in a
parent with many. Elsewhere (macOS), or with ``--watcher``, a small process checks twice a second whether the parent
still runs.
"""

from __future__ import annotations

import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
POLL_INTERVAL_S = 0.5
GRACE_S = 10.0


def main() -> None:
    """Ties this process to its parent and replaces it with the program."""
    watched = sys.argv[1] == "--watcher"
    parent, *program = sys.argv[2:] if watched else sys.argv[1:]
    if watched or not _ask_kernel():
        _start_watcher(int(parent), os.getpid())
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child started")
    os.execv(program[0], program)


def _ask_kernel() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0)


def _start_watcher(parent: int, program: int) -> None:
    """Starts the watcher by a double fork, so that it is not a child of the program."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    if os.fork() == 0:
        os.setsid()
        # file descriptors of the program, such as a lock, must not be held by the watcher
        os.closerange(0, 1024)
        while _runs(parent) and _runs(program):
            time.sleep(POLL_INTERVAL_S)
        _end(program)
    os._exit(0)


def _end(program: int) -> None:
    deadline = time.monotonic() + GRACE_S
    sending: int = signal.SIGTERM
    while _runs(program, sending):
        time.sleep(POLL_INTERVAL_S)
        sending = signal.SIGKILL if time.monotonic() > deadline else 0


def _runs(pid: int, sending: int = 0) -> bool:
    """Whether the process runs; sends it the signal ``sending`` if that is not 0."""
    try:
        os.kill(pid, sending)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    main()
