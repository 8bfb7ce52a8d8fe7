"""What the store keeps of callbacks: a note for each that is due, and under its job or run a record of every attempt.

    callbacks/pending/{job}.json            written before the summary that ends the job, removed when nothing is left to do
    jobs/{job}/callbacks/{n:04d}.json       attempt n, written once it has ended, never changed
    callbacks/pending/{run}.json            the same of runs (:mod:`service.runs`)
    {kind}s/{run}/callbacks/{n:04d}.json

The note only says where to look: it spares looking through all jobs. Whether the job has ended its summary says, and
how far its callback has come the attempts say. So a note may be left over, or written a second time, and does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.errors import ObjectExists, StoreError
from service.kit.ids import is_job_id
from service.kit.run_kinds import kind_of
from service.store import keys, run_keys
from service.store.base import ObjectStore


class CallbackState(StrEnum):
    """How far the callback of a job or a run has come."""

    WAITING = "waiting"
    """The job, or the run, has not ended."""
    PENDING = "pending"
    """It has, and nobody has taken the callback yet."""
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self in (CallbackState.DELIVERED, CallbackState.GIVEN_UP)


class DeliveryAttempt(BaseModel):
    """One POST, or one that was not made, with ``error`` saying why there is no ``status``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    number: int = Field(ge=1)
    at: AwareDatetime
    seconds: float = Field(ge=0)
    status: int | None = None
    error: str | None = None
    result: Literal["delivered", "failed", "given_up"]
    next_at: AwareDatetime | None = Field(None, description="when it is tried again, after one that failed")


@dataclass(frozen=True)
class DeliveryStatus:
    """Where a callback stands after its attempts, which are in order."""

    state: CallbackState
    attempts: tuple[DeliveryAttempt, ...] = ()

    @property
    def next_at(self) -> AwareDatetime | None:
        """When the next attempt is due; None where that is at once, or never."""
        return self.attempts[-1].next_at if self.attempts and self.state is CallbackState.PENDING else None


WAITING = DeliveryStatus(CallbackState.WAITING)


def delivery_status(attempts: Sequence[DeliveryAttempt]) -> DeliveryStatus:
    """Where the callback of what has ended stands. Delivered is delivered, whatever another sender met at the same
    time."""
    results = {attempt.result for attempt in attempts}
    if "delivered" in results:
        return DeliveryStatus(CallbackState.DELIVERED, tuple(attempts))
    return DeliveryStatus(CallbackState.GIVEN_UP if "given_up" in results else CallbackState.PENDING, tuple(attempts))


@dataclass(frozen=True)
class Outbox:
    """Notes and attempts over ``store``. No state of its own, so any process may use one.

    A callback's ``subject`` is the id of the job, or of the run, whose end it tells.
    """

    store: ObjectStore

    def enqueue(self, subject: str) -> None:
        """Notes that the subject's callback is due once its summary is there. To be written first: whoever dies between
        the two leaves a note about what has not ended, which is let lie until it has."""
        kind = "job" if is_job_id(subject) else "run"
        self.store.put(keys.pending_callback(subject), json.dumps({"format": 1, kind: subject}).encode())

    def pending(self, *, limit: int | None = None) -> Iterator[str]:
        """The subjects with a note, newest first of each kind."""
        prefix = keys.pending_callbacks_prefix()
        for info in self.store.list(prefix, limit=limit):
            subject = info.key[len(prefix) :].removesuffix(".json")
            if is_job_id(subject) or kind_of(subject) is not None:
                yield subject

    def delete_entry(self, subject: str) -> None:
        """Removes the subject's note."""
        self.store.delete(keys.pending_callback(subject))

    def read(self, subject: str) -> DeliveryStatus:
        """Where the callback of what has ended stands."""
        return delivery_status([_read(self.store, info.key) for info in self.store.list(_attempts_prefix(subject))])

    def record(self, subject: str, attempt: DeliveryAttempt) -> DeliveryAttempt:
        """Records an attempt, under the next free number if another sender has taken its own; as it was recorded."""
        while True:
            try:
                self.store.put(
                    _attempt_key(subject, attempt.number), attempt.model_dump_json().encode(), if_absent=True
                )
                return attempt
            except ObjectExists:
                attempt = attempt.model_copy(update={"number": attempt.number + 1})

    def forget(self, subject: str) -> None:
        """Removes all that is kept of the callback of a subject that is no more."""
        for info in self.store.list(_attempts_prefix(subject)):
            self.store.delete(info.key)
        self.delete_entry(subject)


def _attempts_prefix(subject: str) -> str:
    return keys.job_callbacks_prefix(subject) if is_job_id(subject) else run_keys.run_callbacks_prefix(subject)


def _attempt_key(subject: str, number: int) -> str:
    return keys.job_callback(subject, number) if is_job_id(subject) else run_keys.run_callback(subject, number)


def _read(store: ObjectStore, key: str) -> DeliveryAttempt:
    try:
        return DeliveryAttempt.model_validate_json(store.get(key))
    except ValidationError as error:
        raise StoreError(f"{key} in the object store is not a callback's attempt: {error.errors()[0]['msg']}") from None
