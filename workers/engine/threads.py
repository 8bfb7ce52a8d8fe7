"""How many threads the calling thread's torch operations use on the CPU."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Sets it for the calling thread, whatever other threads set for themselves, before or after.

    A thread takes up the number that was set last in the process when it first uses torch, also over one that it has set
    itself before: so first comes a use, then the number.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)
