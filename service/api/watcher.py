"""Waits for a job or a run to change: woken by messages in Redis, or by the clock if there are none.

The state is read from the store either way; Redis only says when to read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from anyio import CapacityLimiter, to_thread

from service.broker.connection import connect_async
from service.broker.redis_keys import EVENTS_PREFIX
from service.kit.states import JobState

_POLL_S = 0.25
_POLL_LISTENING_S = 2.0
_RECONNECT_S = 2.0
_THREADS = 4
_log = logging.getLogger("twinset.api")


class Snapshot(Protocol):
    """The progress of a job or a run at one moment."""

    @property
    def state(self) -> JobState: ...


Seen = TypeVar("Seen", bound=Snapshot)
Found = TypeVar("Found")


@dataclass
class Watcher:
    """Watches jobs and runs for any number of clients, with one Redis connection per process.

    All clients of one job or run share its reads, and all reads have a few threads of their own, so that streams,
    however many, keep no thread from other requests. A watcher belongs to one event loop.
    """

    broker_url: str
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _listener: asyncio.Task[None] | None = None
    _listening: bool = False
    _next_reads: dict[str, asyncio.Task[object]] = field(default_factory=dict)
    _reads: dict[str, asyncio.Task[object]] = field(default_factory=dict)
    _limiter: CapacityLimiter | None = None

    async def watch(
        self,
        subject: str,
        read: Callable[[], Seen],
        *,
        key: Callable[[Seen], object] = lambda seen: seen,
        heartbeat_s: float = 15.0,
    ) -> AsyncGenerator[Seen, None]:
        """Yields snapshots of a job or a run, the last one when it has ended. Raises what ``read`` raises.

        A snapshot comes at once, at each change of its ``key``, and at least every ``heartbeat_s`` seconds.
        """
        last_key: object = None
        yielded_at = float("-inf")
        with self._woken_for(subject) as wake:
            while True:
                wake.clear()
                now = await self._read(subject, read)
                current = key(now)
                if current != last_key or time.monotonic() - yielded_at >= heartbeat_s:
                    last_key, yielded_at = current, time.monotonic()
                    yield now
                if now.state.ended:
                    return
                poll_s = _POLL_LISTENING_S if self._listening else _POLL_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), min(poll_s, heartbeat_s))

    async def until_ended(self, subject: str, read: Callable[[], Seen], *, timeout_s: float) -> Seen:
        """The snapshot at the end, or after ``timeout_s`` seconds."""
        latest: Seen | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), contextlib.aclosing(self.watch(subject, read)) as changes:
                async for now in changes:
                    latest = now
        return latest if latest is not None else await self.in_thread(read)

    async def in_thread(self, call: Callable[[], Found]) -> Found:
        """What ``call`` returns or raises, in one of the watcher's threads."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        return await to_thread.run_sync(call, limiter=self._limiter)

    async def _read(self, subject: str, read: Callable[[], Seen]) -> Seen:
        """A snapshot that is read from now on: by this call, or by one that waits to do the same."""
        waiting = self._next_reads.get(subject)
        if waiting is None:
            before = self._reads.get(subject)

            async def read_next() -> Seen:
                if before is not None:
                    await asyncio.wait([before])
                self._reads[subject] = self._next_reads.pop(subject)
                try:
                    return await self.in_thread(read)
                finally:
                    if self._reads.get(subject) is task:
                        del self._reads[subject]

            task = waiting = asyncio.create_task(read_next())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # if all have gone meanwhile
            self._next_reads[subject] = task
        # a client that goes away does not take the others' snapshot with it
        return cast(Seen, await asyncio.shield(waiting))

    async def close(self) -> None:
        """Stops listening."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
            self._listener = None

    @contextlib.contextmanager
    def _woken_for(self, subject: str) -> Iterator[asyncio.Event]:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen(), name="twinset-live-events")
        wake = asyncio.Event()
        self._waiting.setdefault(subject, set()).add(wake)
        try:
            yield wake
        finally:
            self._waiting[subject].discard(wake)
            if not self._waiting[subject]:
                del self._waiting[subject]

    async def _listen(self) -> None:
        from redis.exceptions import RedisError

        while True:
            client = connect_async(self.broker_url, connect_timeout_s=1.0, health_check_interval=10)
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.psubscribe(EVENTS_PREFIX + "*")
                    self._listening = True
                    async for message in pubsub.listen():
                        self._wake(message)
            except (RedisError, OSError) as error:
                _log.debug("not listening to Redis: %s", error)
            finally:
                self._listening = False
                await client.aclose()
            await asyncio.sleep(_RECONNECT_S)

    def _wake(self, message: dict[str, object]) -> None:
        channel = message["channel"]
        if message["type"] == "pmessage" and isinstance(channel, bytes):
            for wake in self._waiting.get(channel.decode().removeprefix(EVENTS_PREFIX), ()):
                wake.set()
