"""A filter of system calls for a child on Linux: it starts no program and no process, and opens no socket.

The filter is a program of classic BPF that the kernel runs at every call (``seccomp(2)``, ``prctl(2)``). It needs no
privilege and works inside containers, where namespaces often are forbidden. A refused call fails with EPERM. On other
systems and processors there is no filter, and only the limits hold.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Loads a word at an offset; jumps if it is equal, at least, or has a bit; returns."""
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in ``struct seccomp_data``."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_X32 = 0x40000000

# audit number of the architecture; clone and clone3; what is refused: execve, execveat, fork, vfork, socket,
# socketpair, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, unshare, setns, mount, bpf, kexec_load
_CALLS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 56, 435, (59, 322, 57, 58, 41, 53, 101, 310, 311, 425, 272, 308, 165, 321, 246)),
    "aarch64": (0xC00000B7, 220, 435, (221, 281, 198, 199, 117, 270, 271, 425, 97, 268, 40, 280, 104)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid_programs_and_network() -> bool:
    """Installs the filter for this process and its threads, for good; False where there is none."""
    known = _CALLS.get(platform.machine()) if sys.platform.startswith("linux") else None
    if known is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    code = _filter(*known)
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(architecture: int, clone: int, clone3: int, refused: tuple[int, ...]) -> bytes:
    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    steps = [
        step(_LOAD, _ARCHITECTURE),
        step(_EQUAL, architecture, 1, 0),
        step(_RETURN, _KILL),
        step(_LOAD, _NUMBER),
        step(_AT_LEAST, _X32, 0, 1),
        step(_RETURN, _KILL),
        # a C library that is refused clone3 uses clone, whose flags a filter can read
        step(_EQUAL, clone3, 0, 1),
        step(_RETURN, _ERROR | errno.ENOSYS),
    ]
    for number in refused:
        steps += [step(_EQUAL, number, 0, 1), step(_RETURN, _ERROR | errno.EPERM)]
    steps += [
        step(_EQUAL, clone, 0, 3),
        step(_LOAD, _FIRST_ARGUMENT),
        step(_ANY_BIT, _CLONE_THREAD, 1, 0),
        step(_RETURN, _ERROR | errno.EPERM),
        step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)
