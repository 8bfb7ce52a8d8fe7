"""The queues of chunks for Celery's workers, who know the task by name only.

There are two queues, so that interactive jobs do not wait behind all others: a worker looks at the interactive queue
first (:class:`InteractiveFirst`). Kombu's Redis priorities would not do: there a message without a priority has the
highest, and workers of every version read all the lists. A worker from before interactive jobs cannot read their specs,
and does not know their queue either, so their chunks wait for a newer worker.

Losing a queue loses no job. A spec is in the object store before its chunks are sent, so if a send fails or the broker
forgets messages, a sweeper sends the chunks again within seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from service.broker.priority import Priority
from service.broker.producer import SEND_TIMEOUT_S, Producer
from service.settings import Settings

GENERATE_TASK = "twinset.generate_chunk"
GENERATE_QUEUE = "generate"
INTERACTIVE_QUEUE = "generate-interactive"
QUEUES: dict[Priority, str] = {"normal": GENERATE_QUEUE, "interactive": INTERACTIVE_QUEUE}
"""The queue of each priority, a Redis list of the same name."""
INTERACTIVE_IN_A_ROW = 4
"""After so many interactive chunks a worker takes a normal one: the engine gives interactive jobs the same weight."""


def celery_options(settings: Settings) -> dict[str, Any]:
    """The Celery configuration of the workers.

    ``unacked_restore_interval`` and ``unacked_restore_throttle`` of 1 bring a lost worker's message back within a
    second of its visibility timeout; at kombu's own 10 and 10 it takes up to 100 s more.
    """
    return {
        # Kombu's own name for Redis on a Unix socket.
        "broker_url": re.sub(r"^unix://", "redis+socket://", settings.broker_url),
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": SEND_TIMEOUT_S,
            "socket_keepalive": True,
            "queue_order_strategy": InteractiveFirst,
        },
        "broker_connection_retry_on_startup": True,
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_default_queue": GENERATE_QUEUE,
        "task_queues": {queue: {} for queue in QUEUES.values()},
        "task_routes": {GENERATE_TASK: {"queue": GENERATE_QUEUE}},
        "task_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
    }


class InteractiveFirst:
    """The order in which a worker looks at its queues, as kombu's ``queue_order_strategy``.

    The interactive queue comes first. After :data:`INTERACTIVE_IN_A_ROW` of its messages the other comes first once, so
    that interactive jobs never starve the others.
    """

    def __init__(self, it: Iterable[str] = ()) -> None:
        self._queues = list(it)
        self._in_a_row = 0

    def update(self, it: Iterable[str]) -> None:
        """Sets the queues that are read now, in any order."""
        self._queues = list(it)

    def consume(self, n: int) -> list[str]:
        """The first ``n`` queues, in the order to look at them."""
        first = INTERACTIVE_QUEUE if self._in_a_row < INTERACTIVE_IN_A_ROW else GENERATE_QUEUE
        return sorted(self._queues[:n], key=lambda queue: queue != first)

    def rotate(self, last_used: str) -> str:
        """Records that a message came from the queue ``last_used``."""
        self._in_a_row = self._in_a_row + 1 if last_used == INTERACTIVE_QUEUE else 0
        return last_used


def priority_in(queue: str | None) -> Priority:
    """The priority of a message from ``queue``; that of any other message is normal."""
    return "interactive" if queue == INTERACTIVE_QUEUE else "normal"


class ChunkSender(Protocol):
    """Sends chunks to the workers; tests pass a fake that records what it was sent."""

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal") -> None:
        """Sends a chunk of ``job`` to the queue of the job's ``priority``. Raises :class:`BrokerUnavailable`."""

    def send_chunks(self, job: str, chunks: Sequence[int], priority: Priority = "normal") -> None:
        """Sends chunks (at least one) in one call, in order.

        Raises :class:`BrokerUnavailable`; then either none or all were sent.
        """


class JobQueue(Producer):
    """The producer of chunks."""

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal") -> None:
        """Sends a chunk of ``job`` to the queue of the job's ``priority``. Raises :class:`BrokerUnavailable`."""
        self.send_chunks(job, (chunk,), priority)

    def send_chunks(self, job: str, chunks: Sequence[int], priority: Priority = "normal") -> None:
        """Sends chunks (at least one) in one call, in order.

        Raises :class:`BrokerUnavailable`; then either none or all were sent.
        """
        which = f"chunk {chunks[0]}" if len(chunks) == 1 else f"chunks {chunks[0]} to {chunks[-1]}"
        arguments = ({"job": job, "chunk": chunk} for chunk in chunks)
        self.send(QUEUES[priority], GENERATE_TASK, arguments, what=f"{which} of job {job}")
