"""The Celery tasks. Their messages carry ids only; everything else is read from the store."""

from __future__ import annotations

import logging

from celery import Celery, Task

from service.broker.priority import Priority
from service.broker.queues import GENERATE_TASK, priority_in
from service.kit.ids import is_job_id
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.worker import Worker

logger = logging.getLogger(__name__)


def register(app: Celery, worker: Worker) -> None:
    """Registers the tasks of ``worker`` with ``app``."""

    def generate(task: Task, job: str, chunk: int) -> str:
        """Makes a chunk of a job. Never raises: errors are recorded in the store, or the sweeper requeues the chunk."""
        # a message's routing key is the name of its queue
        return run_generate(worker, job, chunk, priority_in((task.request.delivery_info or {}).get("routing_key")))

    app.task(generate, name=GENERATE_TASK, bind=True, shared=False, acks_late=True, ignore_result=True)


def run_generate(worker: Worker, job: object, chunk: object, priority: Priority = "normal") -> str:
    """The task's body: drops a message that names no chunk, and never raises.

    ``priority`` is that of the queue the message came from; after the grace time the chunk is sent back to it.
    """
    if not isinstance(job, str) or not is_job_id(job) or not isinstance(chunk, int) or isinstance(chunk, bool):
        logger.warning("dropped a message that names no chunk: job=%.80r chunk=%.80r", job, chunk)
        return ChunkOutcome.NOTHING_TO_DO.value
    if worker.shutdown.out_of_time:
        worker.dispatcher.send(job, chunk, priority)
        return ChunkOutcome.REQUEUED.value
    try:
        return generate_chunk(worker, job, chunk).value
    except Exception:
        logger.exception("job=%s chunk=%d failed, the sweeper will requeue it", job, chunk)
        return ChunkOutcome.RETRY.value
