"""The queue of runs: one message names one run. A sweeper sends lost messages again, as it does for chunks."""

from __future__ import annotations

from typing import Any, Protocol

from service.broker.producer import Producer
from service.broker.queues import celery_options
from service.settings import Settings

RUN_TASK = "twinset.run"
RUN_QUEUE = "bulk"
"""The queue of runs is separate, so that no export waits behind twins, and no GPU behind an export."""


def run_celery_options(settings: Settings) -> dict[str, Any]:
    """The Celery configuration of the workers that read the queue of runs."""
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
    """Sends runs to the workers; tests pass a fake that records what it was sent."""

    def send_run(self, run: str) -> None:
        """Sends the run to the workers. Raises :class:`BrokerUnavailable`."""


class RunQueue(Producer):
    """The producer of runs."""

    def send_run(self, run: str) -> None:
        """Sends the run to the workers. Raises :class:`BrokerUnavailable`."""
        self.send(RUN_QUEUE, RUN_TASK, ({"run": run},), what=f"run {run}")
