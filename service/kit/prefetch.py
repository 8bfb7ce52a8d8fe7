"""Prefetching: many small reads in order, several of them in flight at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def prefetch(
    read: Callable[[Argument], Result], arguments: Iterable[Argument], *, ahead: int = 8
) -> Generator[tuple[Argument, Result], None, None]:
    """Yields ``(argument, read(argument))`` in order, with at most ``ahead`` reads in flight or waiting to be yielded.

    A read that fails raises here, in its place in the order. Closing the iterator stops the reading.
    """
    pool = ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="prefetch")
    waiting: deque[tuple[Argument, Future[Result]]] = deque()
    try:
        for argument in arguments:
            waiting.append((argument, pool.submit(read, argument)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
