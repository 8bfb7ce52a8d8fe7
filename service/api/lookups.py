"""Look-ups: what most requests do for a moment, away from the event loop, but without a thread for each.

Of many threads that read small files at once, one at a time has the interpreter, and passing it around costs more than
the reading. So one thread takes the looks that have come, in their order, and the event loop hears of all of them
together. A look that takes long, since the disk or Redis hangs, keeps no others: further threads step in, and end when
they find no more.
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
"""A look that has taken this long waits for something, and what is behind it gets another thread."""
MAX_THREADS = 32
_TOLD_AFTER_S = 0.002
_IDLE_S = 5.0
Found = TypeVar("Found")


@dataclass(eq=False)
class _Look(Generic[Found]):
    """One call, and who waits for what it finds."""

    call: Callable[[], Found]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Found]
    found: Found | None = None
    error: BaseException | None = None

    def take(self) -> None:
        try:
            self.found = self.call()
        except StopIteration as error:  # the one exception that no future takes
            self.error = RuntimeError(f"a look ended with {error!r}")
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        if self.future.done():
            return  # cancelled: whoever waited has gone
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.found)  # type: ignore[arg-type]


@dataclass(eq=False)
class _Looker:
    """A thread's state: since when it is at its present look, and what it has found for ``loop`` and not told yet."""

    began: float | None = None
    loop: asyncio.AbstractEventLoop | None = None
    found: deque[_Look[Any]] = field(default_factory=deque)

    def is_stuck(self, stuck_s: float) -> bool:
        began = self.began
        return began is not None and time.monotonic() - began >= stuck_s


class Lookups:
    """Takes looks. Its threads start as they are needed and end when they are not, so there is nothing to close."""

    def __init__(self, *, stuck_s: float = STUCK_S, max_threads: int = MAX_THREADS) -> None:
        self._stuck_s = stuck_s
        self._max_threads = max_threads
        self._waiting: SimpleQueue[_Look[Any]] = SimpleQueue()
        self._lookers: list[_Looker] = []
        self._lock = threading.Lock()
        self._watching: asyncio.AbstractEventLoop | None = None

    async def run(self, look: Callable[[], Found]) -> Found:
        """What ``look`` returns or raises, called in another thread. One that is cancelled may still be called."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.put(_Look(look, loop, future))
        with self._lock:
            if not self._lookers:
                self._start()
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self._stuck_s, self._watch, loop)
        return await future

    def _start(self) -> None:
        looker = _Looker()
        threading.Thread(target=self._work, args=(looker,), name="lookups", daemon=True).start()
        self._lookers.append(looker)  # only now, for a thread that cannot be started takes no looks

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Helps what is behind a look that hangs; comes again while there are looks."""
        with self._lock:
            stuck = [looker for looker in self._lookers if looker.is_stuck(self._stuck_s)]
            idle = self._waiting.empty() and not any(looker.began for looker in self._lookers)
            if len(stuck) == len(self._lookers) < self._max_threads and not self._waiting.empty():
                self._start()
        for looker in stuck:
            if looker.loop is loop:
                _tell(looker.found)
        if idle:
            self._watching = None
        else:
            loop.call_later(self._stuck_s, self._watch, loop)

    def _work(self, looker: _Looker) -> None:
        look = self._next(looker)
        while look is not None:
            looker.loop, looker.found = look.loop, deque()
            first = looker.began = time.monotonic()
            following: _Look[Any] | None = look
            while following is not None and following.loop is looker.loop:
                look, following = following, None
                look.take()
                looker.found.append(look)
                looker.began = time.monotonic()
                if looker.began - first < _TOLD_AFTER_S and not self._waiting.empty():
                    following = self._at_once()
            looker.began = None
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                looker.loop.call_soon_threadsafe(_tell, looker.found)
            look = following or self._next(looker)

    def _at_once(self) -> _Look[Any] | None:
        with suppress(Empty):
            return self._waiting.get_nowait()
        return None

    def _next(self, looker: _Looker) -> _Look[Any] | None:
        """The next look; None where the thread is to end: since another will take it, or after a while without any."""
        look = self._at_once()
        if look is not None:
            return look
        with self._lock:
            if any(other is not looker and not other.is_stuck(self._stuck_s) for other in self._lookers):
                self._lookers.remove(looker)
                return None
        with suppress(Empty):
            return self._waiting.get(timeout=_IDLE_S)
        with self._lock:
            look = self._at_once()
            if look is None:
                self._lookers.remove(looker)
            return look


def _tell(found: deque[_Look[Any]]) -> None:
    """Tells all that has been found; in the event loop, so that nobody else does at the same time."""
    while found:
        found.popleft().tell()
