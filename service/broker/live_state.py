"""Live state of jobs in Redis: their rate, stalls and cancel flags. All of it may be missing, late or lost.

Nothing depends on it. If Redis does not answer, readers get None and writers carry on. The keys are on the page of
:mod:`service.broker.redis_keys`. Other modules keep live state of their own through :meth:`LiveState.ask`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from service.broker import redis_keys
from service.broker.async_redis import AsyncRedis
from service.broker.connection import connect
from service.broker.lease_token import holder_of
from service.errors import BrokerUnavailable
from service.kit.states import JobState

if TYPE_CHECKING:
    from redis import Redis

_TTL_S = 86_400
_STALLED_TTL_S = 600
_JOBS_AT_ONCE = 500
_TIMEOUT_S = 1.0
_PAUSE_AFTER_FAILURE_S = 2.0
_log = logging.getLogger("twinset.live_state")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Stalled:
    """A stall of a job: what keeps it from going on for now, and since when. It goes on by itself.

    The cause lies outside the job, such as a full store.
    """

    since: datetime
    reason: str


JobLiveState = tuple[float | None, Stalled | None]
"""A job's rate in twins per second, and its stall; each None if there is none or Redis does not answer."""


class LiveState:
    """The live state in the Redis at ``broker_url``. May be used from many threads."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._client: Redis | None = None
        self._async_redis = AsyncRedis(broker_url)
        self._paused_until = 0.0

    def publish_progress(self, job: str, *, state: JobState, done: int, rate: float | None = None) -> None:
        """Stores the job's rate for readers, and publishes its state and count on the job's channel."""

        def publish(client: Redis) -> None:
            key = redis_keys.progress(job)
            with client.pipeline(transaction=True) as pipe:
                pipe.hset(key, "rate", "" if rate is None else f"{rate:.6g}")
                pipe.expire(key, _TTL_S)
                pipe.execute()
            client.publish(redis_keys.events(job), json.dumps({"done": done, "state": state.value}))

        self.ask(publish, None)

    def publish_stalled(self, job: str, reason: str) -> None:
        """Records why nothing of the job can be stored now. It expires, so repeat it while the stall lasts."""

        def publish(client: Redis) -> None:
            key = redis_keys.stalled(job)
            with client.pipeline(transaction=True) as pipe:
                pipe.hsetnx(key, "since", datetime.now(UTC).isoformat())
                pipe.hset(key, "reason", reason[:2000])
                pipe.expire(key, _STALLED_TTL_S)
                is_new = pipe.execute()[0]
            if is_new:
                client.publish(redis_keys.events(job), json.dumps({"stalled": reason[:200]}))

        self.ask(publish, None)

    def clear_stalled(self, job: str) -> None:
        """Ends the job's stall, if it has one."""

        def clear(client: Redis) -> None:
            if client.delete(redis_keys.stalled(job)):
                client.publish(redis_keys.events(job), json.dumps({"stalled": None}))

        self.ask(clear, None)

    def read_job(self, job: str) -> JobLiveState:
        """The live state of a job that has not ended, in one exchange with Redis."""

        def read(client: Redis) -> JobLiveState:
            with client.pipeline(transaction=False) as pipe:
                pipe.hget(redis_keys.progress(job), "rate")
                pipe.hmget(redis_keys.stalled(job), ("since", "reason"))
                return _job_live_state(*pipe.execute())

        unknown: JobLiveState = (None, None)
        return self.ask(read, unknown)

    async def read_job_async(self, job: str) -> JobLiveState:
        """:meth:`read_job`, for an event loop."""
        answers = await self._async_redis.ask(
            ("HGET", redis_keys.progress(job), "rate"), ("HMGET", redis_keys.stalled(job), "since", "reason")
        )
        return (None, None) if answers is None else _job_live_state(*answers)

    def flag_cancel(self, job: str) -> None:
        """Flags the job as cancelled, so that workers see it without asking the store."""
        self.ask(lambda client: client.set(redis_keys.cancel(job), "1", ex=_TTL_S), None)

    def is_cancel_flagged(self, job: str) -> bool:
        """Whether the job is flagged as cancelled. False proves nothing: the truth is the cancel object."""
        return self.ask(lambda client: bool(client.exists(redis_keys.cancel(job))), False)

    def lease_holders(self, jobs_or_runs: Sequence[str]) -> dict[str, list[str]] | None:
        """For each live lease on the jobs' chunks, or the runs, the worker that holds it; None without an answer."""

        def read(client: Redis) -> dict[str, list[str]]:
            seconds, micros = client.time()
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            held: dict[str, list[str]] = {}
            for first in range(0, len(jobs_or_runs), _JOBS_AT_ONCE):
                some = jobs_or_runs[first : first + _JOBS_AT_ONCE]
                with client.pipeline(transaction=False) as pipe:
                    for job in some:
                        pipe.zrangebyscore(redis_keys.leases(job), now_ms, "+inf")
                    chunks = pipe.execute()
                leased = [(job, int(chunk)) for job, found in zip(some, chunks, strict=True) for chunk in found]
                tokens = client.mget([redis_keys.lease(job, chunk) for job, chunk in leased]) if leased else []
                held |= {job: [] for job in some}
                for (job, _), token in zip(leased, tokens, strict=True):
                    if token is not None:
                        held[job].append(holder_of(str(token)))
            return held

        unknown: dict[str, list[str]] | None = None
        return self.ask(read, unknown)

    def ping(self) -> None:
        """Raises :class:`BrokerUnavailable` unless Redis answers."""
        from redis.exceptions import RedisError

        try:
            self._connected().ping()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}; see TWINSET_BROKER_URL") from error

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()

    async def aclose(self) -> None:
        """Closes the connections, also those of :meth:`read_job_async`; call it in their event loop."""
        await self._async_redis.close()
        self.close()

    def _connected(self) -> Redis:
        if self._client is None:
            self._client = connect(self._url, timeout_s=_TIMEOUT_S)
        return self._client

    def ask(self, question: Callable[[Redis], Answer], default: Answer) -> Answer:
        """What ``question`` returns, called with the Redis client; ``default`` if Redis does not answer."""
        from redis.exceptions import RedisError

        # A Redis that hangs would cost every request the timeout; after a failure it is not asked for a moment.
        if time.monotonic() < self._paused_until:
            return default
        try:
            return question(self._connected())
        except (RedisError, OSError) as error:
            self._paused_until = time.monotonic() + _PAUSE_AFTER_FAILURE_S
            _log.debug("no answer from Redis: %s", error)
            return default


def _job_live_state(rate: str | None, stalled: tuple[str | None, str | None]) -> JobLiveState:
    return _number(rate), _stalled(*stalled)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _stalled(since: str | None, reason: str | None) -> Stalled | None:
    if since is None or reason is None:
        return None
    try:
        return Stalled(datetime.fromisoformat(since), reason)
    except ValueError:
        return None
