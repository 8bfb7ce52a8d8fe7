"""A result that all callers share for a moment, so that what needs no key costs the same however often it is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SharedResult(Generic[Result]):
    """What ``compute`` returned no more than ``hold_s`` ago; it runs once at a time, on a thread of its own.

    While it runs, callers are given what it returned before, if that is no older than ``stale_s``.
    """

    def __init__(self, compute: Callable[[], Result], hold_s: float = 1.0, stale_s: float = 0.0) -> None:
        self._compute = compute
        self._hold_s = hold_s
        self._stale_s = stale_s
        self._lock = threading.Lock()
        self._latest: Future[Result] | None = None
        self._previous: Future[Result] | None = None
        self._ended_at = 0.0

    async def get(self, timeout_s: float) -> Result:
        """The result, or what ``compute`` raised. Raises TimeoutError if it is not there after ``timeout_s``."""
        # shielded: a caller that goes away takes nothing from the others
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._shared())), timeout_s)

    def wait(self, timeout_s: float) -> Result:
        """The same for a thread that may wait."""
        return self._shared().result(timeout_s)

    def _shared(self) -> Future[Result]:
        with self._lock:
            latest, age_s = self._latest, time.monotonic() - self._ended_at
            if latest is None or (latest.done() and age_s > self._hold_s):
                self._previous = latest if latest is not None and latest.exception() is None else None
                latest = self._latest = Future()
                # a daemon: a store that hangs does not keep the process from ending
                threading.Thread(target=self._run, args=(latest,), name="shared-result", daemon=True).start()
            if self._previous is not None and not latest.done() and age_s <= self._stale_s:
                return self._previous
            return latest

    def _run(self, found: Future[Result]) -> None:
        try:
            result = self._compute()
        except BaseException as error:
            self._ended_at = time.monotonic()
            found.set_exception(error)
        else:
            self._ended_at = time.monotonic()
            found.set_result(result)
