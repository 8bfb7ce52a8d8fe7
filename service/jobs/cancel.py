"""Cancelling a job: the cancel is requested once, and the first summary that is written decides."""

from __future__ import annotations

from service.broker.live_state import LiveState
from service.errors import JobStateConflict
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.states import JobState


def cancel(spec: JobSpec, repository: JobRepository, live_state: LiveState) -> None:
    """Requests the job's cancel, and ends the job at once if no worker has started it.

    A worker marks the job as started before it looks for a cancel, and this function writes the cancel before it looks
    for that mark; so at least one of the two sees the other. Cancelling again changes nothing. Raises
    :class:`JobStateConflict` if the job has ended otherwise.
    """
    summary = repository.read_summary(spec.job)
    if summary is not None:
        if summary.state is JobState.CANCELLED:
            return
        raise JobStateConflict(
            f"job {spec.job} has ended as {summary.state.value} with {summary.done} of {summary.total} twins; "
            "only a queued or running job can be cancelled",
            state=summary.state.value,
        )
    repository.request_cancel(spec.job)
    live_state.flag_cancel(spec.job)
    if not repository.is_started(spec.job) and next(repository.chunks.recorded(spec.job), None) is None:
        repository.conclude(spec, reason="cancelled before it started")
