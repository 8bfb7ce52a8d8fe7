"""How many threads the calling thread's torch operations use on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Found = TypeVar("Found")


def use_threads(count: int) -> None:
    """Sets it for the calling thread, whatever other threads set for themselves, before or after.

    A thread takes up the number that was set last in the process when it first uses torch, also over one that it has
    set itself before: so first comes a use, then the number.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def apart(count: int, call: Callable[[], Found]) -> Found:
    """What ``call`` returns or raises, in a thread of its own that uses ``count`` and ends with it.

    OpenMP keeps a team of threads for each thread that has used several. While all teams together are no more than the
    cores, idle ones spin and are at once there for the next operation; with one team more they sleep, and a forward of
    many small operations takes half as long again. So only the engine's team is to stay.
    """
    with ThreadPoolExecutor(1, "apart", initializer=use_threads, initargs=(count,)) as pool:
        return pool.submit(call).result()
