"""The jobs of an augmentation set, when it is cancelled or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from service.augmentations.rounds import Rounds
from service.errors import UnknownJob
from service.jobs.cancel import cancel
from workers.bulk.worker import BulkWorker


def cancel_jobs(worker: BulkWorker, run: str) -> bool:
    """Cancels those that have not ended; whether all have."""
    ended = True
    for job in _jobs(worker, run):
        try:
            if worker.repository.read_summary(job) is None:
                cancel(worker.repository.read_spec(job), worker.repository, worker.live_state)
                ended = ended and worker.repository.read_summary(job) is not None
        except UnknownJob:
            continue  # it is deleted already, or was never accepted
    return ended


def delete_jobs(worker: BulkWorker, run: str) -> bool:
    """Deletes them, those at work once they have been cancelled; whether none is left. May be repeated."""
    if not cancel_jobs(worker, run):
        return False
    for job in _jobs(worker, run):
        try:
            worker.repository.deletions.enqueue(worker.repository.read_spec(job), "asked for")
        except UnknownJob:
            continue
    return True


def _jobs(worker: BulkWorker, run: str) -> Iterator[str]:
    """All jobs that the set has sent, those of a round too whose sending was broken off before they were listed."""
    rounds = Rounds(worker.store, run)
    yield from rounds.jobs()
    spec = worker.runs.stored_spec(run)
    if spec is None:
        return
    submitter = worker.submitter.of(spec.tenant)
    for number in rounds.half_sent():
        for place in count():
            job = submitter.reserved_job(rounds.job_key(number, place))
            if job is None:
                break
            yield job
