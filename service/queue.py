"""The queue: chunks handed to workers, by task name only, over Celery.

The queue is a hint. A spec is in the object store before its chunks are sent, so a send that fails, or a broker that
forgets, costs seconds until a sweeper sends the chunk again, and never a job.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Protocol

from service.errors import BrokerUnavailable
from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

GENERATE_TASK = "twinset.generate_chunk"
GENERATE_QUEUE = "generate"
_SEND_TIMEOUT_S = 2.0


def celery_options(settings: Settings) -> dict[str, Any]:
    """The Celery configuration that the producer and the worker must agree on.

    ``unacked_restore_interval`` and ``unacked_restore_throttle`` of 1 bring a lost worker's message back within a second
    of its visibility timeout; at kombu's own 10 and 10 it takes up to 100 s more.
    """
    return {
        # Kombu's own name for Redis on a Unix socket.
        "broker_url": re.sub(r"^unix://", "redis+socket://", settings.broker_url),
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": _SEND_TIMEOUT_S,
            "socket_keepalive": True,
        },
        "broker_connection_retry_on_startup": True,
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_default_queue": GENERATE_QUEUE,
        "task_routes": {GENERATE_TASK: {"queue": GENERATE_QUEUE}},
        "task_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
    }


class ChunkSender(Protocol):
    """What hands chunks over; tests give a small one that notes what it was sent."""

    def send_chunk(self, job: str, chunk: int) -> None:
        """Sends chunk ``chunk`` of ``job`` to the workers. Raises :class:`BrokerUnavailable`."""


class JobQueue:
    """The Celery producer. A broker that is down makes a send fail within seconds, never hang."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Celery | None = None
        self._lock = threading.Lock()

    def send_chunk(self, job: str, chunk: int) -> None:
        """Sends chunk ``chunk`` of ``job`` to the workers. Raises :class:`BrokerUnavailable`."""
        app = self._connected_app()
        from kombu.exceptions import OperationalError

        try:
            app.send_task(
                GENERATE_TASK,
                kwargs={"job": job, "chunk": chunk},
                queue=GENERATE_QUEUE,
                ignore_result=True,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(
                f"chunk {chunk} of job {job} could not be sent: {error}; the sweeper sends it once the broker is back"
            ) from error

    def close(self) -> None:
        """Gives the connections back."""
        with self._lock:
            if self._app is not None:
                self._app.close()
                self._app = None

    def _connected_app(self) -> Celery:
        with self._lock:
            if self._app is None:
                # Imported at the first send: Celery is a third of the API's start-up time.
                from celery import Celery

                options = celery_options(self._settings)
                # A producer gives up at once; a worker, with the shared options, keeps trying to reconnect.
                options["broker_transport_options"] |= {
                    "max_retries": 0,
                    "connect_retries_timeout": _SEND_TIMEOUT_S,
                    "socket_timeout": _SEND_TIMEOUT_S,
                }
                self._app = Celery("twinset-producer", set_as_current=False)
                self._app.conf.update(options)
            return self._app
