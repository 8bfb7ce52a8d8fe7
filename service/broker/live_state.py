"""Hints: what Redis says of jobs at this moment. All of it may be missing, late or lost, and nothing depends on it.

    twinset:progress:{job}   hash     rate, in twins per second
    twinset:events:{job}     channel  {"done", "state"}, published with each word of progress; runs have such channels, too
    twinset:cancel:{job}     flag     the cancel object exists in the store
    twinset:stalled:{job}    hash     since, reason: why nothing of the job can be stored now; gone with the next record

Readers get None where Redis does not answer; writers carry on. :mod:`service.auth` keeps its own, by
:meth:`LiveState.ask`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from service.broker.async_redis import AsyncRedis
from service.errors import BrokerUnavailable
from service.kit.states import JobState

if TYPE_CHECKING:
    from redis import Redis

EVENTS_CHANNEL = "twinset:events:"
_TTL_S = 86_400
_STALLED_TTL_S = 600
_TIMEOUT_S = 1.0
_PAUSE_AFTER_FAILURE_S = 2.0
_log = logging.getLogger("twinset.hints")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Stalled:
    """What keeps a job from going on for now, through no fault of its own, and since when. It goes on by itself."""

    since: datetime
    reason: str


Heard = tuple[float | None, Stalled | None]
"""A job's rate in twins per second, and its trouble, as far as anything is known."""


class LiveState:
    """The hints in the Redis at ``broker_url``. May be used from many threads."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._client: Redis | None = None
        self._async_redis = AsyncRedis(broker_url)
        self._silent_until = 0.0

    def publish_progress(self, job: str, *, state: JobState, done: int, rate: float | None = None) -> None:
        """Says where the job stands: its rate to readers, the rest to those who wait on its channel."""

        def say(client: Redis) -> None:
            key = f"twinset:progress:{job}"
            with client.pipeline(transaction=True) as pipe:
                pipe.hset(key, "rate", "" if rate is None else f"{rate:.6g}")
                pipe.expire(key, _TTL_S)
                pipe.execute()
            client.publish(EVENTS_CHANNEL + job, json.dumps({"done": done, "state": state.value}))

        self.ask(say, None)

    def publish_stalled(self, job: str, reason: str) -> None:
        """Says why nothing of the job can be stored now; to be said again while it lasts, or it is forgotten."""

        def say(client: Redis) -> None:
            key = f"twinset:stalled:{job}"
            with client.pipeline(transaction=True) as pipe:
                pipe.hsetnx(key, "since", datetime.now(UTC).isoformat())
                pipe.hset(key, "reason", reason[:2000])
                pipe.expire(key, _STALLED_TTL_S)
                is_new = pipe.execute()[0]
            if is_new:
                client.publish(EVENTS_CHANNEL + job, json.dumps({"stalled": reason[:200]}))

        self.ask(say, None)

    def clear_stalled(self, job: str) -> None:
        """Says that the job goes on."""

        def say(client: Redis) -> None:
            if client.delete(f"twinset:stalled:{job}"):
                client.publish(EVENTS_CHANNEL + job, json.dumps({"stalled": None}))

        self.ask(say, None)

    def standing(self, job: str) -> Heard:
        """What the store does not know of a job that lives, in one exchange."""

        def question(client: Redis) -> Heard:
            with client.pipeline(transaction=False) as pipe:
                for command in _standing(job):
                    pipe.execute_command(*command)
                return _heard(*pipe.execute())

        return self.ask(question, (None, None))

    async def hear(self, job: str) -> Heard:
        """:meth:`standing` for those in an event loop."""
        answers = await self._async_redis.ask(*_standing(job))
        return (None, None) if answers is None else _heard(*answers)

    def flag_cancel(self, job: str) -> None:
        """Lets workers see the job's cancel without asking the store."""
        self.ask(lambda client: client.set(f"twinset:cancel:{job}", "1", ex=_TTL_S), None)

    def is_cancel_flagged(self, job: str) -> bool:
        """Whether the flag is up. False proves nothing: the truth is the cancel object."""
        return self.ask(lambda client: bool(client.exists(f"twinset:cancel:{job}")), False)

    def ping(self) -> None:
        """Raises :class:`BrokerUnavailable` unless Redis answers."""
        from redis.exceptions import RedisError

        try:
            self._connected().ping()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}; see TWINSET_BROKER_URL") from error

    def close(self) -> None:
        """Gives the connections back."""
        if self._client is not None:
            self._client.close()

    async def aclose(self) -> None:
        """The same for those who have used :meth:`hear`, in their event loop."""
        await self._async_redis.close()
        self.close()

    def _connected(self) -> Redis:
        if self._client is None:
            from redis import Redis

            self._client = Redis.from_url(
                self._url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=True
            )
        return self._client

    def ask(self, question: Callable[[Redis], Answer], otherwise: Answer) -> Answer:
        """What ``question`` finds out from Redis, or ``otherwise`` where it does not answer."""
        from redis.exceptions import RedisError

        # A Redis that hangs would cost every request the timeout; after a failure it is left alone for a moment.
        if time.monotonic() < self._silent_until:
            return otherwise
        try:
            return question(self._connected())
        except (RedisError, OSError) as error:
            self._silent_until = time.monotonic() + _PAUSE_AFTER_FAILURE_S
            _log.debug("no hint: %s", error)
            return otherwise


def _standing(job: str) -> tuple[tuple[str, ...], ...]:
    return ("HGET", f"twinset:progress:{job}", "rate"), ("HMGET", f"twinset:stalled:{job}", "since", "reason")


def _heard(rate: str | None, stalled: list[str | None]) -> Heard:
    return _number(rate), _stalled(dict(zip(("since", "reason"), stalled)))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _stalled(values: dict[Any, Any]) -> Stalled | None:
    try:
        return Stalled(datetime.fromisoformat(values["since"]), values["reason"])
    except (KeyError, TypeError, ValueError):
        return None
