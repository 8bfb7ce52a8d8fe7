"""A thread keeps the number of CPU threads that it has set, whatever others set for themselves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from workers.engine.threads import run_in_own_thread, use_threads


def product() -> int:
    """The thread's number of CPU threads, after a use of torch."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    return torch.get_num_threads()


def test_numbers_set_by_other_threads_before_and_after_change_nothing() -> None:
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as engine, ThreadPoolExecutor(1) as decoder, ThreadPoolExecutor(1) as late:
            engine.submit(use_threads, 3).result()
            decoder.submit(use_threads, 1).result()
            assert engine.submit(product).result() == 3, "though it used torch only after the other had set its own"
            assert decoder.submit(product).result() == 1
            late.submit(use_threads, 2).result()
            assert [pool.submit(product).result() for pool in (engine, decoder, late)] == [3, 1, 2]
    finally:
        torch.set_num_threads(before)


def test_a_call_in_its_own_thread_leaves_no_thread_behind_and_raises_here() -> None:
    before, threads = torch.get_num_threads(), threading.active_count()
    try:
        assert run_in_own_thread(2, product) == 2
        with pytest.raises(ZeroDivisionError):
            run_in_own_thread(1, lambda: 1 // 0)
        assert threading.active_count() == threads
    finally:
        torch.set_num_threads(before)
