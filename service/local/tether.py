"""Becomes another program, and sees to it that it does not outlive the process that started it.

Started by path, ``python -I -S tether.py [--watcher] PARENT_PID PROGRAM [ARGUMENT...]``. On Linux the kernel
itself sends SIGTERM when the parent's starting thread ends, however it ends; the wish survives exec, so
nothing stays behind but the program. It is made here, in a process of one thread, since making it between
fork and exec is not safe in a parent of many. Elsewhere (macOS), or with ``--watcher``, a small process looks
twice a second whether the parent is still there.
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
    """Tethers this process to its parent and turns into the program."""
    watched = sys.argv[1] == "--watcher"
    parent, *program = sys.argv[2:] if watched else sys.argv[1:]
    if watched or not _ask_kernel():
        _start_watcher(int(parent), os.getpid())
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    os.execv(program[0], program)


def _ask_kernel() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0)


def _start_watcher(parent: int, program: int) -> None:
    """Twice forked, so that the program never finds itself with a child it does not know."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    if os.fork() == 0:
        os.setsid()
        # What was handed to the program, such as a lock, must not be held by us.
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
    """Whether there is such a process, which gets the signal ``sending`` if it is not 0."""
    try:
        os.kill(pid, sending)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    main()
