"""Questions to Redis from an event loop: all that are asked in the same moment share one exchange."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.broker.connection import connect_async

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TIMEOUT_S = 1.0
_PAUSE_AFTER_FAILURE_S = 2.0
_log = logging.getLogger("twinset.live_state")
Command = tuple[str, ...]
Answers = list[Any] | None


@dataclass
class _LoopState:
    """The Redis client of one event loop, with its waiting and running questions."""

    loop: asyncio.AbstractEventLoop
    client: Redis
    waiting: list[tuple[tuple[Command, ...], asyncio.Future[Answers]]] = field(default_factory=list)
    running: set[asyncio.Task[None]] = field(default_factory=set)


class AsyncRedis:
    """Asks the Redis at ``broker_url``. Serves one event loop at a time; a new loop gets a new client."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._state: _LoopState | None = None
        self._paused_until = 0.0

    async def ask(self, *commands: Command) -> Answers:
        """The answers of Redis to ``commands``, each its name and arguments; None if it does not answer."""
        # As with all live state: after a failure, a Redis that hangs is not asked for a moment.
        if time.monotonic() < self._paused_until:
            return None
        loop = asyncio.get_running_loop()
        state = self._state
        if state is None or state.loop is not loop:
            state = self._state = _LoopState(loop, self._connect())
        answer: asyncio.Future[Answers] = loop.create_future()
        state.waiting.append((commands, answer))
        if len(state.waiting) == 1:
            loop.call_soon(self._ask_soon, state)
        return await answer

    async def close(self) -> None:
        """Closes the connections. Call it in the loop that asked."""
        state, self._state = self._state, None
        if state is not None:
            await asyncio.gather(*state.running)
            await state.client.aclose()

    def _ask_soon(self, state: _LoopState) -> None:
        waiting, state.waiting = state.waiting, []
        task = state.loop.create_task(self._ask(state.client, waiting), name="twinset-ask-redis")
        state.running.add(task)
        task.add_done_callback(state.running.discard)

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
            self._paused_until = time.monotonic() + _PAUSE_AFTER_FAILURE_S
            _log.debug("no answer from Redis: %s", error)
        finally:
            following = iter(found or ())
            for commands, answer in waiting:
                answers = None if found is None else [next(following) for _ in commands]
                if not answer.done():  # the caller may have been cancelled
                    answer.set_result(answers)

    def _connect(self) -> Redis:
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError

        return connect_async(
            self._url,
            timeout_s=_TIMEOUT_S,
            connect_timeout_s=_TIMEOUT_S,
            decode_responses=True,
            # Once more at once, for a connection that a restarted Redis has closed.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
