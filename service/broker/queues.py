"""The queues of chunks for Celery's workers, who know the task by name only.

A message says that there is work. Which chunk its reader makes is decided by :mod:`service.broker.fair_queue` when it
asks, so that tenants share the workers, and interactive jobs come before the others of their tenant. There are two
queues all the same: a worker from before interactive jobs cannot read their specs, and does not know their queue
either, so their chunks wait for a newer worker.

Losing a queue loses no job. A spec is in the object store before its chunks are sent, so if a send fails or the broker
forgets messages, a sweeper sends the chunks again within seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from service.broker.fair_queue import Flow, QueueGroup
from service.broker.priority import Priority
from service.broker.producer import SEND_TIMEOUT_S, Producer
from service.kit.broker_address import parse_broker_address
from service.kit.tenants import DEFAULT_TENANT
from service.settings import Settings

GENERATE_TASK = "twinset.generate_chunk"
GENERATE_QUEUE = "generate"
INTERACTIVE_QUEUE = "generate-interactive"
QUEUES: dict[Priority, str] = {"normal": GENERATE_QUEUE, "interactive": INTERACTIVE_QUEUE}
"""The queue of each priority, a Redis list of the same name."""
CHUNK_QUEUES = QueueGroup("chunks", (INTERACTIVE_QUEUE, GENERATE_QUEUE))


def celery_options(settings: Settings) -> dict[str, Any]:
    """The Celery configuration of the workers.

    ``unacked_restore_interval`` and ``unacked_restore_throttle`` of 1 bring a lost worker's message back within a
    second of its visibility timeout; at kombu's own 10 and 10 it takes up to 100 s more.
    """
    return {
        **parse_broker_address(settings.broker_url).celery_options(),
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": SEND_TIMEOUT_S,
            "socket_keepalive": True,
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


def chunk_name(job: str, chunk: int) -> str:
    """The name of a chunk among those that wait."""
    return f"{job}:{chunk}"


def named_chunk(name: str) -> tuple[str, int]:
    """The job and number in a :func:`chunk_name`."""
    job, chunk = name.split(":")
    return job, int(chunk)


class ChunkSender(Protocol):
    """Sends chunks to the workers; tests pass a fake that records what it was sent."""

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = DEFAULT_TENANT) -> None:
        """Sends a chunk of the tenant's ``job`` to the queue of its ``priority``. Raises :class:`BrokerUnavailable`."""

    def send_chunks(
        self, job: str, chunks: Sequence[int], priority: Priority = "normal", tenant: str = DEFAULT_TENANT
    ) -> None:
        """Sends chunks (at least one) in one call, in order.

        Raises :class:`BrokerUnavailable`; then either none or all were sent.
        """


class JobQueue(Producer):
    """The producer of chunks."""

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = DEFAULT_TENANT) -> None:
        """Sends a chunk of the tenant's ``job`` to the queue of its ``priority``. Raises :class:`BrokerUnavailable`."""
        self.send_chunks(job, (chunk,), priority, tenant)

    def send_chunks(
        self, job: str, chunks: Sequence[int], priority: Priority = "normal", tenant: str = DEFAULT_TENANT
    ) -> None:
        """Sends chunks (at least one) in one call, in order.

        Raises :class:`BrokerUnavailable`; then either none or all were sent.
        """
        which = f"chunk {chunks[0]}" if len(chunks) == 1 else f"chunks {chunks[0]} to {chunks[-1]}"
        work = {chunk_name(job, chunk): {"job": job, "chunk": chunk} for chunk in chunks}
        self.send(CHUNK_QUEUES, Flow(tenant, QUEUES[priority]), GENERATE_TASK, work, what=f"{which} of job {job}")
