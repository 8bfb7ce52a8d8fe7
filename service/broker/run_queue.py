"""The queue of runs, fair between tenants. A sweeper sends lost runs again, as it does for chunks."""

from __future__ import annotations

from typing import Any, Protocol

from service.broker.fair_queue import Flow, QueueGroup
from service.broker.producer import Producer
from service.broker.queues import celery_options
from service.kit.run_kinds import RunKind, kind_of
from service.kit.tenants import DEFAULT_TENANT
from service.settings import Settings

RUN_TASK = "twinset.run"
RUN_QUEUE = "bulk"
"""The queue of runs is separate, so that no export waits behind twins, and no GPU behind an export."""
RUN_QUEUES = QueueGroup("runs", (RUN_QUEUE,))
TRAIN_QUEUE = "train"
"""The queue of trainings, which need a GPU for hours."""
TRAIN_QUEUES = QueueGroup("trainings", (TRAIN_QUEUE,))


def run_celery_options(settings: Settings, queue: str = RUN_QUEUE) -> dict[str, Any]:
    """The Celery configuration of the workers that read a queue of runs."""
    return {
        **celery_options(settings),
        "task_default_queue": queue,
        "task_queues": {queue: {}},
        "task_routes": {RUN_TASK: {"queue": queue}},
    }


class RunSender(Protocol):
    """Sends runs to the workers; tests pass a fake that records what it was sent."""

    def send_run(self, run: str, tenant: str = DEFAULT_TENANT) -> None:
        """Sends the tenant's run to the workers. Raises :class:`BrokerUnavailable`."""


class RunQueue(Producer):
    """The producer of runs."""

    def send_run(self, run: str, tenant: str = DEFAULT_TENANT) -> None:
        """Sends the tenant's run to the workers. Raises :class:`BrokerUnavailable`."""
        training = kind_of(run) is RunKind.TRAINING
        queues, queue = (TRAIN_QUEUES, TRAIN_QUEUE) if training else (RUN_QUEUES, RUN_QUEUE)
        self.send(queues, Flow(tenant, queue), RUN_TASK, {run: {"run": run}}, what=f"run {run}")
