"""Cancelling a job: asked for once, decided by whoever writes the summary first."""

from __future__ import annotations

from service.broker.live_state import LiveState
from service.errors import JobStateConflict
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.states import JobState


def cancel(spec: JobSpec, repository: JobRepository, live_state: LiveState) -> None:
    """Asks for the job's cancel; ends it at once if no worker has begun with it.

    A worker marks the job as begun before it looks for the cancel, and here the cancel is written before that mark is
    looked for; so at least one of the two sees the other. Asking again changes nothing. Raises
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
    if not repository.is_started(spec.job) and next(repository.recorded_chunks(spec.job), None) is None:
        repository.conclude(spec, reason="cancelled before it started")
