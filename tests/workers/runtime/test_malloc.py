"""Freed memory stays with the process, measured in the page faults that returning it would cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.runtime.malloc import keep_memory

COUNT = """
import ctypes, resource, sys, threading
from workers.runtime.malloc import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def work():
    for size in [24 << 20, 16 << 20, 8 << 20] * 10:
        place = libc.malloc(size)
        ctypes.memset(place, 1, size)
        libc.free(place)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc alone can be told")
def test_another_threads_large_allocations_cost_no_page_faults() -> None:
    assert faults("keep") < 0.1 * faults("as it is")


def test_on_other_systems_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False
