"""The limits of a child process, and how the child sets them for itself before it opens any data.

Nothing but the standard library is imported here: the limits must hold before anything large is loaded.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_MAX_OPEN_FILES = 256
_CPU_GRACE_S = 5
_FIRST_TO_DIE = 1000


@dataclass(frozen=True)
class SandboxLimits:
    """What a child may use.

    ``memory_bytes`` of addresses, ``cpu_s`` seconds of processor time, ``timeout_s`` seconds in all; files of at most
    ``file_bytes``; ``folder_bytes`` and ``folder_files`` in its folder. Processes and sockets: none.
    """

    memory_bytes: int
    cpu_s: int
    timeout_s: float
    file_bytes: int = 0
    folder_bytes: int = 0
    folder_files: int = 0


def enforce(*, memory_bytes: int, cpu_s: int, file_bytes: int, parent: int) -> None:
    """Sets the limits of this process, for good. ``parent`` is the process with which this one ends."""
    hard = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
    }
    for kind, value in hard.items():
        _lower(kind, value, value)
    # at the soft limit the kernel sends SIGXCPU, which ends the process; at the hard one SIGKILL
    _lower(resource.RLIMIT_CPU, cpu_s, cpu_s + _CPU_GRACE_S)
    if not sys.platform.startswith("linux"):
        return
    # where the kernel runs out of memory, it is to end this process, and not a neighbour
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_FIRST_TO_DIE))
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # no other process of this user may look into this one, nor this one leave a core
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before its child started")


def _lower(kind: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    # macOS refuses a limit of addresses
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (soft, hard))
