"""Cancelling and deleting the jobs of an augmentation set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from service.augmentations.rounds import Rounds
from service.errors import RecordUnreadable, UnknownJob
from service.jobs import idempotency
from service.jobs.cancel import cancel
from workers.bulk.worker import BulkWorker


def cancel_jobs(worker: BulkWorker, run: str) -> bool:
    """Cancels the set's jobs that have not ended. Returns whether all have ended now."""
    ended = True
    for job in _jobs(worker, run):
        try:
            if worker.repository.read_summary(job) is None:
                cancel(worker.repository.read_spec(job), worker.repository, worker.live_state)
                ended = ended and worker.repository.read_summary(job) is not None
        except (UnknownJob, RecordUnreadable):
            continue  # it is deleted, or was never accepted; or has a damaged record, so that no worker makes it
    return ended


def delete_jobs(worker: BulkWorker, run: str) -> bool:
    """Deletes the set's jobs; running ones are cancelled first. Returns whether none is left; may be repeated."""
    if not cancel_jobs(worker, run):
        return False
    for job in _jobs(worker, run):
        try:
            worker.repository.deletions.enqueue(worker.repository.read_spec(job), "asked for")
        except UnknownJob:
            continue
        except RecordUnreadable:
            worker.repository.deletions.enqueue_unreadable(job, None)
    return True


def _jobs(worker: BulkWorker, run: str) -> Iterator[str]:
    """All jobs that the set has submitted, also those of a round whose submission was interrupted."""
    rounds = Rounds(worker.store, run)
    yield from rounds.jobs()
    spec = None
    with suppress(RecordUnreadable):
        spec = worker.runs.stored_spec(run)
    if spec is None:
        return
    for number in rounds.half_sent():
        for place in count():
            job = idempotency.find(worker.store, tenant=spec.tenant, key=rounds.job_key(number, place))
            if job is None:
                break
            yield job
