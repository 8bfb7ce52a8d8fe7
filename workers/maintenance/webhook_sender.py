"""The deliverer: takes callbacks that are due from the store to their receivers, and records every attempt.

Every worker has one, of twins and of bulk work alike, and delivers for jobs and runs alike; a turn in Redis lets one at
a time deliver. Which callbacks are due the notes in the store say, so a pass costs one listing of these, and reads of
those that are new to it or due. An attempt counts once it is recorded; a worker killed before that sends the same
callback a second time, under the same id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from prometheus_client import Counter
from redis import Redis

from service import __version__
from service.errors import SettingsError, TwinsetError, UnknownJob, UnknownRun
from service.jobs.repository import JobRepository
from service.kit.prefetch import prefetch
from service.runs.webhook_payload import message_id
from service.runs.webhook_subject import Subject, named, read_subject
from service.settings import Settings
from service.webhooks.backoff import next_attempt_at
from service.webhooks.delivery import (
    NotDelivered,
    ReceiverAnswer,
    Resolve,
    post,
    resolve,
)
from service.webhooks.outbox import (
    DeliveryAttempt,
    DeliveryStatus,
    Outbox,
    delivery_status,
)
from service.webhooks.secrets import tenant_keys, webhook_keys
from service.webhooks.signing import signed_headers
from service.webhooks.urls import CallbackTarget, UrlRefused, parse_target
from workers.runtime.keyed_pool import KeyedPool
from workers.runtime.periodic_task import PeriodicTask

CALLBACKS = Counter("twinset_worker_webhook_attempts_total", "Attempts at callbacks, by how they ended.", ["result"])
logger = logging.getLogger(__name__)
_LEADER_LOCK = "twinset:callbacks"
_LOOKED_AT_PER_PASS = 1000
_LOOKED_AT_PER_TURN = 100
_MAX_CONCURRENCY = 32
_AT_ONCE_A_RECEIVER = 4
_RETRY_AFTER_FAILURE = timedelta(minutes=1)
"""When to look again at a callback of which the store did not let us know, or write, how it stands."""
_REMIND_S = 300.0
_STOP_S = 2.0
_GONE = 410


@dataclass(frozen=True)
class _Due:
    """A callback to be sent now."""

    subject: Subject
    body: bytes
    so_far: DeliveryStatus

    @property
    def number(self) -> int:
        """The number of the attempt to come."""
        return len(self.so_far.attempts) + 1


class Delivers(Protocol):
    """What a deliverer needs of its worker."""

    @property
    def settings(self) -> Settings: ...

    @property
    def repository(self) -> JobRepository: ...

    @property
    def redis(self) -> Redis: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class WebhookSender(PeriodicTask):
    """Delivers for ``worker``, in threads of its own between :meth:`start` and :meth:`stop`."""

    worker: Delivers
    resolve: Resolve = resolve
    now: Callable[[], datetime] = _utc_now
    _later: dict[str, datetime] = field(default_factory=dict)
    _reminded_at: float = -_REMIND_S

    def __post_init__(self) -> None:
        self._store = self.worker.repository.store
        self._outbox = Outbox(self._store)
        self._pool = KeyedPool("callbacks", most=_MAX_CONCURRENCY, width=_AT_ONCE_A_RECEIVER)
        interval_s = self.worker.settings.sweep_interval_s
        super().__init__(
            self.worker.redis, _LEADER_LOCK, name="callbacks", lasts_s=max(30.0, 3 * interval_s), interval_s=interval_s
        )

    def stop(self) -> None:
        """Ends the thread. Attempts under way have a moment to be recorded; one that has not will be made again."""
        self._stop.set()
        self._pool.drop_waiting()
        super().stop()
        self._pool.wait(_STOP_S)

    def run_once(self) -> bool:
        """One pass: sends off what is due, and waits for no receiver. False if it is not this worker's turn.

        Raises RedisError if nobody can tell whose turn it is, or a store's error.
        """
        keys = self._keys()
        if keys is None or not self._leader_lock.take():
            self._pool.drop_waiting()
            self._later.clear()
            return False
        pending = set(self._outbox.pending())
        for subject in list(self._later):
            if subject not in pending:
                self._later.pop(subject, None)
        now = self.now()
        to_look_at = [
            subject for subject in pending if self._later.get(subject, now) <= now and subject not in self._pool
        ]
        # the oldest first: after their letter, ids sort the other way round
        looks = prefetch(
            self._look, sorted(to_look_at, key=lambda subject: subject[1:], reverse=True)[:_LOOKED_AT_PER_PASS]
        )
        for number, (subject, due) in enumerate(looks, start=1):
            if self._stop.is_set() or (number % _LOOKED_AT_PER_TURN == 0 and not self._leader_lock.take()):
                break
            if due is not None:
                self._pool.add(_receiver(due.subject), subject, lambda due=due: self._deliver(due, keys))
        return True

    def wait(self, timeout_s: float) -> bool:
        """Waits for the receivers of all that has been sent off; False if one is still waited for after
        ``timeout_s``."""
        return self._pool.wait(timeout_s)

    def _keys(self) -> tuple[bytes, ...] | None:
        """What to sign with. A worker without a secret leaves the turn to others, and says so while callbacks wait."""
        try:
            return webhook_keys(self.worker.settings)
        except SettingsError as error:
            if time.monotonic() - self._reminded_at >= _REMIND_S:
                self._reminded_at = time.monotonic()
                if next(self._outbox.pending(limit=1), None) is not None:
                    logger.warning("callbacks wait, and this worker delivers none: %s", error.detail)
            return None

    def _look(self, pending: str) -> _Due | None:
        """What is to be sent for a job or a run with a note; None if nothing is, now. The summary decides whether it
        has ended."""
        try:
            subject = read_subject(self._store, pending)
            if subject is not None and subject.body is None:
                return None  # whoever was ending it died on the way; the sweeper ends it
            so_far = self._outbox.read(pending)
            if subject is None or subject.body is None or so_far.state.settled:
                self._drop(pending)
                return None
        except (UnknownJob, UnknownRun) as error:
            logger.info("%s has a callback's note and no spec: %s", named(pending), error.detail)
            self._drop(pending)
            return None
        except TwinsetError as error:
            logger.warning("%s callback not looked at: %s", named(pending), error.detail)
            self._later[pending] = self.now() + _RETRY_AFTER_FAILURE
            return None
        if so_far.next_at is not None and so_far.next_at > self.now():
            self._later[pending] = so_far.next_at
            return None
        return _Due(subject, subject.body, so_far)

    def _deliver(self, due: _Due, keys: tuple[bytes, ...]) -> None:
        """One attempt, recorded."""
        subject = due.subject
        # it may have waited in its lane for long; whoever has the turn by now looks at it afresh
        if self._stop.is_set() or not self._leader_lock.is_ours:
            return
        self._later[subject.id] = self.now() + _RETRY_AFTER_FAILURE
        try:
            attempt = self._outbox.record(subject.id, self._attempt(due, keys))
            CALLBACKS.labels(attempt.result).inc()
            what = attempt.status if attempt.error is None else attempt.error
            logger.info(
                "%s callback to %s, attempt %d: %s, %s",
                subject,
                _receiver(subject),
                attempt.number,
                what,
                attempt.result,
            )
            if delivery_status([*due.so_far.attempts, attempt]).state.settled:
                self._drop(subject.id)
            elif attempt.next_at is not None:
                self._later[subject.id] = attempt.next_at
            self._leave_nothing_of_the_deleted(subject.id)
        except TwinsetError as error:
            logger.warning("%s callback may have been sent, and is sent again: %s", subject, error.detail)

    def _leave_nothing_of_the_deleted(self, subject: str) -> None:
        """Takes the attempt back of what was deleted meanwhile: whoever removes its objects may have been here before
        it."""
        try:
            read_subject(self._store, subject)
        except (UnknownJob, UnknownRun):
            self._outbox.forget(subject)

    def _attempt(self, due: _Due, keys: tuple[bytes, ...]) -> DeliveryAttempt:
        began, at = time.monotonic(), self.now()
        answer, error = self._post(due, keys, at)
        status = None if answer is None else answer.status
        ended = {
            "number": due.number,
            "at": at,
            "seconds": round(time.monotonic() - began, 3),
            "status": status,
            "error": error,
        }
        if status is not None and 200 <= status < 300:
            return DeliveryAttempt(**ended, result="delivered")
        retry_after = None if answer is None else answer.retry_after
        next_at = next_attempt_at(due.number, self.now(), status=status, retry_after=retry_after)
        if status == _GONE or next_at is None:
            return DeliveryAttempt(**ended, result="given_up")
        return DeliveryAttempt(**ended, result="failed", next_at=next_at)

    def _post(self, due: _Due, keys: tuple[bytes, ...], at: datetime) -> tuple[ReceiverAnswer | None, str | None]:
        """The receiver's answer, or why there is none."""
        subject, settings, body = due.subject, self.worker.settings, due.body
        headers = signed_headers(tenant_keys(keys, subject.tenant), message_id(subject.id), int(at.timestamp()), body)
        headers |= {"Content-Type": "application/json", "User-Agent": f"twinset/{__version__}"}
        try:
            target = parse_target(subject.callback.url, private_allowed=settings.webhook_allow_private)
            answer = post(
                target,
                headers,
                body,
                timeout_s=settings.webhook_timeout_s,
                private_allowed=settings.webhook_allow_private,
                resolve=self.resolve,
            )
        except UrlRefused as refused:
            # taken by an API with another setting, or before it was changed
            return None, f"refused: {refused}"
        except NotDelivered as reason:
            return None, str(reason)
        return answer, None

    def _drop(self, subject: str) -> None:
        """Removes the note and what is remembered with it. A store that fails here has the note looked at once more."""
        self._later.pop(subject, None)
        try:
            self._outbox.delete_entry(subject)
        except TwinsetError as error:
            logger.warning("%s callback's note stays: %s", named(subject), error.detail)


def _receiver(subject: Subject) -> str:
    """Whom the callback goes to: the lane that it waits in, and all of its URL that is logged, for the rest may be
    secret."""
    try:
        target: CallbackTarget = parse_target(subject.callback.url, private_allowed=True)
    except UrlRefused:
        return "nowhere"
    return target.origin
