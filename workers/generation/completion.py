"""What follows a record: the next chunk is sent, and the last one ends the job with its manifest and its summary."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from service.jobs.spec import JobSpec, Summary
from workers.generation.worker import Worker

logger = logging.getLogger(__name__)


def after_record(worker: Worker, spec: JobSpec, chunk: int) -> None:
    """Sends the job's next chunk; when all have been sent, ends the job if this was the last one missing."""
    if worker.repository.is_cancelled(spec.job):
        end_if_cancelled(worker, spec)
        return
    if worker.dispatcher.send_next(spec, chunk) is None:
        end_if_complete(worker, spec)


def end_if_complete(worker: Worker, spec: JobSpec) -> bool:
    """Ends the job if no record is missing; of any number of callers one writes the summary that holds."""
    if next(worker.repository.missing_chunks(spec), None) is not None:
        return False
    end(worker, spec, reason=_why_incomplete(worker, spec))
    return True


def end_if_cancelled(worker: Worker, spec: JobSpec) -> bool:
    """Ends a cancelled job with what it has, once no worker is at it any more."""
    if not worker.repository.is_cancelled(spec.job):
        return False
    try:
        if worker.leases.live(spec.job):
            return False
    except RedisError as error:
        logger.info("job=%s waits for Redis to end its cancel: %s", spec.job, error)
        return False
    # a cancel that came after the last record changes nothing
    if worker.repository.read_summary(spec.job) is None and not end_if_complete(worker, spec):
        end(worker, spec, reason="cancelled")
    return True


def end(worker: Worker, spec: JobSpec, *, reason: str | None) -> Summary:
    """Writes the manifest, then the summary, and says so."""
    summary = worker.repository.conclude(spec, reason=reason)
    worker.progress.publish_ended(spec, summary)
    worker.leases.forget(spec.job)
    worker.dispatcher.forget(spec.job)
    logger.info("job=%s ended as %s with %d of %d twins", spec.job, summary.state.value, summary.done, summary.total)
    return summary


def _why_incomplete(worker: Worker, spec: JobSpec) -> str | None:
    """The first error of a job that did not succeed; None where there is none."""
    error = next((item.error for _, item in worker.repository.iterate_items(spec) if item.error), None)
    return None if error is None else f"the first sample that failed: {error}"
