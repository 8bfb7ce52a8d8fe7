"""The outbox of webhooks in the store: an entry for each that is due, and a record of every attempt.

    callbacks/pending/{job}.json            written before the summary that ends the job, removed when all is done
    jobs/{job}/callbacks/{n:04d}.json       attempt n, written once it has ended, never changed
    callbacks/pending/{run}.json            the same for runs (:mod:`service.runs`)
    {kind}s/{run}/callbacks/{n:04d}.json

An entry only says where to look, so that the sender need not read all jobs. The summary says whether the job has ended,
and what became of its webhook is in the attempts. So a leftover entry, or one written twice, does no harm.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from service.errors import ObjectExists, RecordUnreadable
from service.kit.frozen import _Frozen, parse_stored
from service.kit.ids import is_job_id
from service.kit.run_kinds import kind_of
from service.store import keys, run_keys
from service.store.base import ObjectStore

_log = logging.getLogger("twinset.webhooks")


class CallbackState(StrEnum):
    """The state of a webhook."""

    WAITING = "waiting"
    """The job, or the run, has not ended."""
    PENDING = "pending"
    """It has ended, and the receiver has not accepted the webhook yet."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """No further attempt will be made."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self in (CallbackState.DELIVERED, CallbackState.FAILED)


class DeliveryAttempt(_Frozen):
    """One attempt. ``error`` has the reason where there is no ``status``; after ``abandoned`` no attempt follows."""

    format: Literal[1] = 1
    number: int = Field(ge=1)
    at: AwareDatetime
    seconds: float = Field(ge=0)
    status: int | None = None
    error: str | None = None
    result: Literal["delivered", "failed", "abandoned"]
    next_at: AwareDatetime | None = Field(None, description="when it is tried again, after one that failed")


@dataclass(frozen=True)
class DeliveryStatus:
    """The state of a webhook, and its attempts in order."""

    state: CallbackState
    attempts: tuple[DeliveryAttempt, ...] = ()

    @property
    def next_at(self) -> AwareDatetime | None:
        """When the next attempt is due; None for at once, or never."""
        return self.attempts[-1].next_at if self.attempts and self.state is CallbackState.PENDING else None


WAITING = DeliveryStatus(CallbackState.WAITING)


def delivery_status(attempts: Sequence[DeliveryAttempt]) -> DeliveryStatus:
    """The state of an ended job's or run's webhook. One delivered attempt is enough, whatever another sender met."""
    results = {attempt.result for attempt in attempts}
    if "delivered" in results:
        return DeliveryStatus(CallbackState.DELIVERED, tuple(attempts))
    return DeliveryStatus(CallbackState.FAILED if "abandoned" in results else CallbackState.PENDING, tuple(attempts))


@dataclass(frozen=True)
class Outbox:
    """Entries and attempts in ``store``. It has no state of its own, so any process may use one.

    A webhook's ``subject`` is the id of the job or the run whose end it reports.
    """

    store: ObjectStore

    def enqueue(self, subject: str) -> None:
        """Records that the subject's webhook is due once its summary exists.

        It is written before the summary: a process that dies between the two leaves an entry of something that has not
        ended, which the sender skips until it has.
        """
        kind = "job" if is_job_id(subject) else "run"
        self.store.put(keys.pending_callback(subject), json.dumps({"format": 1, kind: subject}).encode())

    def pending(self, *, limit: int | None = None) -> Iterator[str]:
        """The subjects with an entry, newest first within each kind."""
        prefix = keys.pending_callbacks_prefix()
        for info in self.store.list(prefix, limit=limit):
            subject = info.key[len(prefix) :].removesuffix(".json")
            if is_job_id(subject) or kind_of(subject) is not None:
                yield subject

    def delete_entry(self, subject: str) -> None:
        """Removes the subject's entry."""
        self.store.delete(keys.pending_callback(subject))

    def read(self, subject: str) -> DeliveryStatus:
        """The state of the webhook of a job or run that has ended. Attempts that cannot be read are left out."""
        attempts = []
        for info in self.store.list(_attempts_prefix(subject)):
            try:
                attempts.append(parse_stored(DeliveryAttempt, self.store.get(info.key), info.key))
            except RecordUnreadable as error:
                _log.warning("%s", error.detail)
        return delivery_status(attempts)

    def record(self, subject: str, attempt: DeliveryAttempt) -> DeliveryAttempt:
        """Records an attempt and returns it, under the next free number if another sender has used its number."""
        while True:
            try:
                self.store.put(
                    _attempt_key(subject, attempt.number), attempt.model_dump_json().encode(), if_absent=True
                )
                return attempt
            except ObjectExists:
                attempt = attempt.model_copy(update={"number": attempt.number + 1})

    def forget(self, subject: str) -> None:
        """Removes everything about the webhook of a deleted subject."""
        for info in self.store.list(_attempts_prefix(subject)):
            self.store.delete(info.key)
        self.delete_entry(subject)


def _attempts_prefix(subject: str) -> str:
    return keys.job_callbacks_prefix(subject) if is_job_id(subject) else run_keys.run_callbacks_prefix(subject)


def _attempt_key(subject: str, number: int) -> str:
    return keys.job_callback(subject, number) if is_job_id(subject) else run_keys.run_callback(subject, number)
