"""The states of a job, and every legal change between them, in one place.

    queued ──> running ──> succeeded | partial | failed
       │          │
       └────┬─────┘
            v
        cancelling ──> cancelled          (or, when the cancel came too late, succeeded | partial | failed)

A state is never stored while a job lives: it follows from which objects exist. Only its end is written, once, as the
summary.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands."""

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


ENDED = frozenset({State.SUCCEEDED, State.PARTIAL, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.PARTIAL, State.FAILED, State.CANCELLING}),
    State.CANCELLING: ENDED,
    State.SUCCEEDED: frozenset(),
    State.PARTIAL: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


def current_state(*, ended: State | None, cancel_asked: bool, started: bool) -> State:
    """The state that the store's objects amount to.

    ``ended`` is the summary's state, if there is a summary; ``cancel_asked`` whether the cancel object exists;
    ``started`` whether a chunk has been recorded, or is known to be at work.
    """
    if ended is not None:
        return ended
    if cancel_asked:
        return State.CANCELLING
    return State.RUNNING if started else State.QUEUED


def final_state(*, done: int, failed: int, total: int, cancelled: bool) -> State:
    """The state in which a job ends with ``done`` twins made and ``failed`` given up of ``total`` asked for.

    A cancel that came after the last sample changes nothing.
    """
    if done == total:
        return State.SUCCEEDED
    if cancelled and done + failed < total:
        return State.CANCELLED
    return State.PARTIAL if done else State.FAILED
