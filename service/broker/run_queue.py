"""The queue of runs: one message names one run. It is a hint, as that of chunks is: a sweeper sends again what is
lost."""

from __future__ import annotations

from typing import Any, Protocol

from service.broker.producer import Producer
from service.broker.queues import celery_options
from service.settings import Settings

RUN_TASK = "twinset.run"
RUN_QUEUE = "bulk"
"""A queue of its own, so that no export waits behind twins, and no GPU behind an export."""


def run_celery_options(settings: Settings) -> dict[str, Any]:
    """The configuration of the Celery of those who read that queue."""
    options = celery_options(settings)
    transport = {
        key: value for key, value in options["broker_transport_options"].items() if key != "queue_order_strategy"
    }
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


class RunQueue(Producer):
    """The producer of runs."""

    def send_run(self, run: str) -> None:
        """Sends the run to the workers. Raises :class:`BrokerUnavailable`."""
        self.send(RUN_QUEUE, RUN_TASK, ({"run": run},), what=f"run {run}")
