"""The jobs of an augmentation set, when it is cancelled or deleted."""

from __future__ import annotations

from service.errors import UnknownJob
from service.jobs.cancellation import cancel
from service.runs.rounds import Rounds
from workers.bulk.worker import BulkWorker


def cancel_jobs(worker: BulkWorker, run: str) -> bool:
    """Cancels those that have not ended; whether all have."""
    ended = True
    for job in Rounds(worker.store, run).jobs():
        try:
            if worker.ledger.read_summary(job) is None:
                cancel(worker.ledger.read_spec(job), worker.ledger, worker.hints)
                ended = ended and worker.ledger.read_summary(job) is not None
        except UnknownJob:
            continue  # it is deleted already
    return ended


def delete_jobs(worker: BulkWorker, run: str) -> bool:
    """Deletes them, those at work once they have been cancelled; whether none is left. May be repeated."""
    if not cancel_jobs(worker, run):
        return False
    for job in Rounds(worker.store, run).jobs():
        try:
            worker.ledger.deletions.note(worker.ledger.read_spec(job), "asked for")
        except UnknownJob:
            continue
    return True
