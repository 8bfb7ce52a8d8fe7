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
    """What ``compute`` returned no more than ``hold_s`` ago; it runs once at a time, on a thread of its own."""

    def __init__(self, compute: Callable[[], Result], hold_s: float = 1.0) -> None:
        self.hold_s = hold_s
        self._compute = compute
        self._lock = threading.Lock()
        self._latest: Future[Result] | None = None
        self._ended_at = 0.0

    async def get(self, timeout_s: float) -> Result:
        """The result, or what ``compute`` raised. Raises TimeoutError if it is not there after ``timeout_s``."""
        with self._lock:
            latest = self._latest
            if latest is None or (latest.done() and time.monotonic() - self._ended_at > self.hold_s):
                latest = self._latest = Future()
                # a daemon: a store that hangs does not keep the process from ending
                threading.Thread(target=self._run, args=(latest,), name="shared-result", daemon=True).start()
        # shielded: a caller that goes away takes nothing from the others
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(latest)), timeout_s)

    def _run(self, found: Future[Result]) -> None:
        try:
            result = self._compute()
        except BaseException as error:
            self._ended_at = time.monotonic()
            found.set_exception(error)
        else:
            self._ended_at = time.monotonic()
            found.set_result(result)
