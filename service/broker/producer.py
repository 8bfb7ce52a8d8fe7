"""The producer of messages for Celery's workers, written straight into the Redis list of their queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from service.broker.celery_message import task_message
from service.errors import BrokerUnavailable
from service.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

SEND_TIMEOUT_S = 2.0


class Producer:
    """Sends messages. If the broker is down, a send fails within seconds. May be used from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker_url
        self._client: Redis | None = None

    def send(self, queue: str, task: str, arguments: Iterable[dict[str, Any]], *, what: str) -> None:
        """Sends a message of ``task`` for each of ``arguments`` (at least one) in one call, in order.

        Raises :class:`BrokerUnavailable`, whose message names ``what``; then either none or all were sent.
        """
        from redis.exceptions import RedisError

        messages = [task_message(task, each, queue=queue) for each in arguments]
        try:
            self._connected().lpush(queue, *messages)
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"{what} could not be sent: {error}; the sweeper sends what is missing once the broker is back"
            ) from error

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Redis:
        if self._client is None:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            self._client = Redis.from_url(
                self._url,
                socket_timeout=SEND_TIMEOUT_S,
                socket_connect_timeout=SEND_TIMEOUT_S,
                # A Unix socket has no TCP keep-alive, and redis-py refuses the option.
                **({} if self._url.startswith("unix:") else {"socket_keepalive": True}),
                # One retry at once, for a connection that a restarted broker has closed; a chunk sent twice is made
                # once.
                retry=Retry(NoBackoff(), 1),
            )
        return self._client
