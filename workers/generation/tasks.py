"""The Celery tasks. Their messages carry ids only; everything else is read from the store."""

from __future__ import annotations

import logging

from celery import Celery
from redis.exceptions import RedisError

from service.broker.queues import GENERATE_TASK, chunk_name, named_chunk
from service.kit.ids import is_job_id
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.worker import Worker

logger = logging.getLogger(__name__)


def register(app: Celery, worker: Worker) -> None:
    """Registers the tasks of ``worker`` with ``app``."""

    def generate(job: str, chunk: int) -> str:
        """Makes a chunk. Never raises: errors are recorded in the store, or the sweeper requeues the chunk."""
        return run_generate(worker, job, chunk)

    app.task(generate, name=GENERATE_TASK, shared=False, acks_late=True, ignore_result=True)


def run_generate(worker: Worker, job: object, chunk: object) -> str:
    """The task's body: makes the chunk that comes next, or if none waits the one that the message names.

    Drops a message that names no chunk. Never raises. Once the worker shuts down no chunk is begun: what waits stays
    listed, and other workers get a message in the place of this one.
    """
    if not isinstance(job, str) or not is_job_id(job) or not isinstance(chunk, int) or isinstance(chunk, bool):
        logger.warning("dropped a message that names no chunk: job=%.80r chunk=%.80r", job, chunk)
        return ChunkOutcome.NOTHING_TO_DO.value
    if worker.shutdown.requested:
        try:
            worker.dispatcher.replace_lost_messages()
        except RedisError as error:
            logger.debug("the sweeper will send the message again: %s", error)
        return ChunkOutcome.REQUEUED.value
    with worker.slots.next_item() as taken:
        return make(worker, chunk_name(job, chunk) if taken is None else taken.name).value


def make(worker: Worker, name: str) -> ChunkOutcome:
    """Makes the chunk of that name. Never raises."""
    job, chunk = named_chunk(name)
    try:
        return generate_chunk(worker, job, chunk)
    except Exception:
        logger.exception("job=%s chunk=%d failed, the sweeper will requeue it", job, chunk)
        return ChunkOutcome.RETRY
