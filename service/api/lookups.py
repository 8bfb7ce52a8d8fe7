"""Short blocking calls (look-ups) off the event loop, without a thread for each.

Many threads that read small files compete for the interpreter lock, which costs more than the reading. So one thread
makes the calls in their order, and returns the results to the event loop in batches. A call that takes long, because
the disk or Redis hangs, does not delay others: further threads start, and end when there is nothing left to do.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

STUCK_S = 0.02
"""A call that takes longer is stuck: the calls behind it get another thread."""
MAX_THREADS = 32
_BATCH_S = 0.002
_IDLE_S = 5.0
Found = TypeVar("Found")


@dataclass(eq=False)
class _Call(Generic[Found]):
    """One call, and the future of its result."""

    call: Callable[[], Found]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Found]
    found: Found | None = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.found = self.call()
        except StopIteration as error:  # the one exception that a future refuses
            self.error = RuntimeError(f"a call ended with {error!r}")
        except BaseException as error:
            self.error = error

    def resolve(self) -> None:
        if self.future.done():
            return  # cancelled: nobody waits for it
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.found)  # type: ignore[arg-type]


@dataclass(eq=False)
class _Worker:
    """A thread's state: when its current call began, and finished calls not yet returned to ``loop``."""

    began: float | None = None
    loop: asyncio.AbstractEventLoop | None = None
    found: deque[_Call[Any]] = field(default_factory=deque)

    def is_stuck(self, stuck_s: float) -> bool:
        began = self.began
        return began is not None and time.monotonic() - began >= stuck_s


class Lookups:
    """Runs short calls. Threads start when needed and end when idle, so there is nothing to close."""

    def __init__(self, *, stuck_s: float = STUCK_S, max_threads: int = MAX_THREADS) -> None:
        self._stuck_s = stuck_s
        self._max_threads = max_threads
        self._waiting: SimpleQueue[_Call[Any]] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._watching: asyncio.AbstractEventLoop | None = None

    async def run(self, call: Callable[[], Found]) -> Found:
        """What ``call`` returns or raises, called in another thread; also after a cancellation."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.put(_Call(call, loop, future))
        with self._lock:
            if not self._workers:
                self._start()
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self._stuck_s, self._watch, loop)
        return await future

    def _start(self) -> None:
        worker = _Worker()
        threading.Thread(target=self._work, args=(worker,), name="lookups", daemon=True).start()
        self._workers.append(worker)  # only now: a thread that could not be started runs no calls

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts another thread if all are stuck. Runs again while there are calls."""
        with self._lock:
            stuck = [worker for worker in self._workers if worker.is_stuck(self._stuck_s)]
            idle = self._waiting.empty() and not any(worker.began for worker in self._workers)
            if len(stuck) == len(self._workers) < self._max_threads and not self._waiting.empty():
                self._start()
        for worker in stuck:
            if worker.loop is loop:
                _resolve(worker.found)
        if idle:
            self._watching = None
        else:
            loop.call_later(self._stuck_s, self._watch, loop)

    def _work(self, worker: _Worker) -> None:
        call = self._next(worker)
        while call is not None:
            worker.loop, worker.found = call.loop, deque()
            first = worker.began = time.monotonic()
            following: _Call[Any] | None = call
            while following is not None and following.loop is worker.loop:
                call, following = following, None
                call.run()
                worker.found.append(call)
                worker.began = time.monotonic()
                if worker.began - first < _BATCH_S and not self._waiting.empty():
                    following = self._next_waiting()
            worker.began = None
            with suppress(RuntimeError):  # the loop is closed, nobody waits
                worker.loop.call_soon_threadsafe(_resolve, worker.found)
            call = following or self._next(worker)

    def _next_waiting(self) -> _Call[Any] | None:
        with suppress(Empty):
            return self._waiting.get_nowait()
        return None

    def _next(self, worker: _Worker) -> _Call[Any] | None:
        """The next call; None if the thread should end: another thread takes it, or there is none for a while."""
        call = self._next_waiting()
        if call is not None:
            return call
        with self._lock:
            if any(other is not worker and not other.is_stuck(self._stuck_s) for other in self._workers):
                self._workers.remove(worker)
                return None
        with suppress(Empty):
            return self._waiting.get(timeout=_IDLE_S)
        with self._lock:
            call = self._next_waiting()
            if call is None:
                self._workers.remove(worker)
            return call


def _resolve(found: deque[_Call[Any]]) -> None:
    """Resolves the futures of finished calls. It runs in the event loop, so never twice at the same time."""
    while found:
        found.popleft().resolve()
