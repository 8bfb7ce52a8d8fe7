"""The queue of runs: one message names one run. It is a hint, as that of chunks is: a sweeper sends again what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from service.errors import BrokerUnavailable
from service.queue import celery_options
from service.settings import Settings
from service.task_message import task_message

if TYPE_CHECKING:
    from redis import Redis

RUN_TASK = "twinset.run"
RUN_QUEUE = "bulk"
"""A queue of its own, so that no export waits behind twins, and no GPU behind an export."""
_SEND_TIMEOUT_S = 2.0


def run_celery_options(settings: Settings) -> dict[str, Any]:
    """The configuration of the Celery of those who read that queue."""
    options = celery_options(settings)
    transport = {key: value for key, value in options["broker_transport_options"].items() if key != "queue_order_strategy"}
    return {
        **options,
        "broker_transport_options": transport,
        "task_default_queue": RUN_QUEUE,
        "task_queues": {RUN_QUEUE: {}},
        "task_routes": {RUN_TASK: {"queue": RUN_QUEUE}},
    }


class RunSender(Protocol):
    """What hands runs over; tests give a small one that notes what it was sent."""

    def send_run(self, run: str) -> None:
        """Sends the run to the workers. Raises :class:`BrokerUnavailable`."""


class RunQueue:
    """The producer. A broker that is down makes a send fail within seconds, never hang. May be used from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker_url
        self._client: Redis | None = None

    def send_run(self, run: str) -> None:
        """Sends the run to the workers. Raises :class:`BrokerUnavailable`."""
        from redis.exceptions import RedisError

        try:
            self._connected().lpush(RUN_QUEUE, task_message(RUN_TASK, {"run": run}, queue=RUN_QUEUE))
        except (RedisError, OSError) as error:
            detail = f"run {run} could not be sent: {error}; the sweeper sends it once the broker is back"
            raise BrokerUnavailable(detail) from error

    def close(self) -> None:
        """Gives the connections back."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Redis:
        if self._client is None:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            self._client = Redis.from_url(
                self._url,
                socket_timeout=_SEND_TIMEOUT_S,
                socket_connect_timeout=_SEND_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),
            )
        return self._client
