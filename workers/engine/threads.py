"""The number of CPU threads that a thread's torch operations use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def use_threads(count: int) -> None:
    """Sets the number for the calling thread, whatever other threads set for themselves before or after.

    At its first use of torch a thread adopts the number set last in the process, even over one that it has set itself.
    So a use comes first, then the number.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def run_in_own_thread(count: int, call: Callable[[], Result]) -> Result:
    """Runs ``call`` in a thread of its own with ``count`` CPU threads; returns or raises what it does.

    OpenMP keeps a team of threads for each thread that has used several. While all teams together fit the cores, idle
    ones spin and are ready at once for the next operation; with one team more they sleep, and a forward of many small
    operations takes half as long again. So only the engine's team should stay.
    """
    with ThreadPoolExecutor(1, "torch-threads", initializer=use_threads, initargs=(count,)) as pool:
        return pool.submit(call).result()
