"""Waiting for a job to change: woken by Redis where it speaks, by the clock where it does not.

The store is asked in either case; Redis only says when it is worth asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from service.jobs.hints import EVENTS_CHANNEL
from service.jobs.progress import Progress, ProgressReader
from service.jobs.spec import JobSpec

_POLL_S = 0.25
_POLL_LISTENING_S = 2.0
_RECONNECT_S = 2.0
_log = logging.getLogger("twinset.api")


@dataclass
class JobWatcher:
    """Watches jobs for any number of clients, over one Redis connection per process."""

    reader: ProgressReader
    broker_url: str
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _listener: asyncio.Task[None] | None = None
    _listening: bool = False

    async def watch(self, spec: JobSpec, *, beat_s: float = 15.0) -> AsyncGenerator[Progress, None]:
        """Yields the job's progress now, at each change, and at least every ``beat_s`` seconds, until it has ended."""
        seen: Progress | None = None
        spoke_at = 0.0
        with self._woken_for(spec.job) as wake:
            while True:
                wake.clear()
                now = await run_in_threadpool(self.reader.read, spec)
                if now != seen or time.monotonic() - spoke_at >= beat_s:
                    seen, spoke_at = now, time.monotonic()
                    yield now
                if now.state.ended:
                    return
                poll_s = _POLL_LISTENING_S if self._listening else _POLL_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), min(poll_s, beat_s))

    async def until_ended(self, spec: JobSpec, *, timeout_s: float) -> Progress:
        """The job's progress when it has ended, or after ``timeout_s`` seconds."""
        latest: Progress | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), contextlib.aclosing(self.watch(spec)) as changes:
                async for progress in changes:
                    latest = progress
        return latest if latest is not None else await run_in_threadpool(self.reader.read, spec)

    async def close(self) -> None:
        """Stops listening."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
            self._listener = None

    @contextlib.contextmanager
    def _woken_for(self, job: str) -> Iterator[asyncio.Event]:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen(), name="twinset-hints")
        wake = asyncio.Event()
        self._waiting.setdefault(job, set()).add(wake)
        try:
            yield wake
        finally:
            self._waiting[job].discard(wake)
            if not self._waiting[job]:
                del self._waiting[job]

    async def _listen(self) -> None:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        while True:
            client = Redis.from_url(self.broker_url, socket_connect_timeout=1.0, health_check_interval=10)
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.psubscribe(EVENTS_CHANNEL + "*")
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
            for wake in self._waiting.get(channel.decode().removeprefix(EVENTS_CHANNEL), ()):
                wake.set()
