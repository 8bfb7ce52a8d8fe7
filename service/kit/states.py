"""The states of a job, and every legal change between them, in one place.

    queued ──> running ──> succeeded | partial | failed
       │          │
       └────┬─────┘
            v
        cancelling ──> cancelled          (or, when the cancel came too late, succeeded | partial | failed)

The state of a running job is never stored: it follows from which objects exist. Objects are only ever added (a mark
that a worker has begun, chunk records, a cancel, at last the summary), so a state never goes back, in whichever process
it is read, and counting the objects gives a number that never falls. Only the end is written, once, as the summary.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job or a run."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows this state."""
        return self in ENDED

    @property
    def can_be_cancelled(self) -> bool:
        """Whether a cancel asked for now may change anything."""
        return self is JobState.CANCELLING or JobState.CANCELLING in TRANSITIONS[self]


class TrainingState(StrEnum):
    """The state of a training: a run's, with two of its own."""

    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows this state."""
        return self.value in ENDED


ENDED = frozenset({JobState.SUCCEEDED, JobState.PARTIAL, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLING}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.PARTIAL, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: ENDED,
    JobState.SUCCEEDED: frozenset(),
    JobState.PARTIAL: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def may_follow(before: JobState, after: JobState) -> bool:
    """Whether a reader that saw ``before`` may see ``after`` next: the same state, or one reached by legal changes."""
    return before is after or any(may_follow(between, after) for between in TRANSITIONS[before])


def current_state(*, ended: JobState | None, cancel_asked: bool, started: bool) -> JobState:
    """The state that follows from the store's objects.

    ``ended`` is the summary's state, if there is a summary; ``cancel_asked`` whether the cancel object exists;
    ``started`` whether a worker has marked the job as begun, or a chunk has been recorded.
    """
    if ended is not None:
        return ended
    if cancel_asked:
        return JobState.CANCELLING
    return JobState.RUNNING if started else JobState.QUEUED


def sequence_number(*, ended: bool, cancel_asked: bool, started: bool, recorded: int, chunks: int) -> int:
    """A number that never falls while a job of ``chunks`` chunks, ``recorded`` of them, goes on.

    It counts objects of the store, which only increase: all processes agree on it, and losing Redis does not reset it.
    At the end it takes its largest value; records that a slow worker adds later do not change it.
    """
    return chunks + 3 if ended else min(recorded, chunks) + started + cancel_asked


def final_state(*, done: int, failed: int, total: int, cancelled: bool) -> JobState:
    """The final state of a job with ``done`` twins made and ``failed`` samples failed, of ``total`` requested.

    A cancel that came after the last sample changes nothing.
    """
    if done == total:
        return JobState.SUCCEEDED
    if cancelled and done + failed < total:
        return JobState.CANCELLED
    return JobState.PARTIAL if done else JobState.FAILED
