"""The producer of messages for Celery's workers, written straight into the Redis lists of the fair queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.broker.celery_message import task_message
from service.broker.connection import connect
from service.broker.fair_queue import Flow, QueueGroup, TenantQueues
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

    def send(self, group: QueueGroup, flow: Flow, task: str, work: Mapping[str, dict[str, Any]], *, what: str) -> None:
        """Sends a message of ``task`` for each name in ``work`` (at least one) with its arguments, in order, as one.

        The names are listed as waiting in ``flow``, whose queue is one of ``group``. Raises :class:`BrokerUnavailable`,
        whose message names ``what``; then either none or all were sent.
        """
        from redis.exceptions import RedisError

        messages = {name: task_message(task, arguments, queue=flow.queue) for name, arguments in work.items()}
        try:
            TenantQueues(self._connected(), group).add(flow, messages)
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
            # A chunk that the one retry sends twice is made once.
            self._client = connect(self._url, timeout_s=SEND_TIMEOUT_S, keepalive=True, retry_once=True, decode=False)
        return self._client
