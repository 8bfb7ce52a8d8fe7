"""Asking Redis from an event loop: all that is asked at the same moment goes in one exchange."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TIMEOUT_S = 1.0
_PAUSE_AFTER_FAILURE_S = 2.0
_log = logging.getLogger("twinset.hints")
Command = tuple[str, ...]
Answers = list[Any] | None


@dataclass
class _Asked:
    """What is asked for by one event loop, with its client of Redis."""

    loop: asyncio.AbstractEventLoop
    client: Redis
    waiting: list[tuple[tuple[Command, ...], asyncio.Future[Answers]]] = field(default_factory=list)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)


class AsyncRedis:
    """Asks the Redis at ``broker_url``. For one event loop at a time; another's begins anew."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._asked: _Asked | None = None
        self._silent_until = 0.0

    async def ask(self, *commands: Command) -> Answers:
        """What Redis answers to ``commands``, each its name and arguments; None where it does not answer."""
        # As with all hints: a Redis that hangs is left alone for a moment after each failure.
        if time.monotonic() < self._silent_until:
            return None
        loop = asyncio.get_running_loop()
        asked = self._asked
        if asked is None or asked.loop is not loop:
            asked = self._asked = _Asked(loop, self._connect())
        answer: asyncio.Future[Answers] = loop.create_future()
        asked.waiting.append((commands, answer))
        if len(asked.waiting) == 1:
            loop.call_soon(self._ask_soon, asked)
        return await answer

    async def close(self) -> None:
        """Gives the connections back. To be called in the loop that has asked."""
        asked, self._asked = self._asked, None
        if asked is not None:
            await asyncio.gather(*asked.under_way)
            await asked.client.aclose()

    def _ask_soon(self, asked: _Asked) -> None:
        waiting, asked.waiting = asked.waiting, []
        task = asked.loop.create_task(self._ask(asked.client, waiting), name="twinset-hearing")
        asked.under_way.add(task)
        task.add_done_callback(asked.under_way.discard)

    async def _ask(self, client: Redis, waiting: list[tuple[tuple[Command, ...], asyncio.Future[Answers]]]) -> None:
        from redis.exceptions import RedisError

        found: Answers = None
        try:
            async with client.pipeline(transaction=False) as pipe:
                for commands, _ in waiting:
                    for command in commands:
                        pipe.execute_command(*command)
                found = await pipe.execute()
        except (RedisError, OSError) as error:
            self._silent_until = time.monotonic() + _PAUSE_AFTER_FAILURE_S
            _log.debug("no hints: %s", error)
        finally:
            following = iter(found or ())
            for commands, answer in waiting:
                answers = None if found is None else [next(following) for _ in commands]
                if not answer.done():  # whoever was cancelled waits no more
                    answer.set_result(answers)

    def _connect(self) -> Redis:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError

        return Redis.from_url(
            self._url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            decode_responses=True,
            # Once more at once, for a connection that a restarted Redis has closed.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
