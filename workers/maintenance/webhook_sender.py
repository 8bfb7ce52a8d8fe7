"""Webhook sender: delivers the webhooks of ended jobs and runs, and records every attempt in the store.

Every worker has one, bulk workers too; a leader lock in Redis lets one at a time send. The outbox in the store lists
the pending webhooks, so a run costs one listing, and reads of those that are new or due. An attempt counts once it is
recorded. A worker that is killed before that sends the same webhook a second time, under the same id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Protocol

from prometheus_client import Counter
from redis import Redis

from service import __version__
from service.broker import redis_keys
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

ATTEMPTS = Counter("twinset_worker_webhook_attempts_total", "Attempts to deliver webhooks, by result.", ["result"])
logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("webhook-sender")
_MAX_CHECKED_PER_RUN = 1000
_CHECKED_PER_LOCK_RENEWAL = 100
_MAX_CONCURRENCY = 64
_MAX_CONCURRENCY_PER_RECEIVER = 4
"""Attempts at a time of one tenant's webhooks to one receiver."""
_MAX_WAITING_PER_TENANT = 500
_RETRY_AFTER_FULL_LANE = timedelta(seconds=10)
_RETRY_AFTER_STORE_ERROR = timedelta(minutes=1)
"""Delay until a webhook is checked again after its status could not be read or written."""
_WARNING_INTERVAL_S = 300.0
_STOP_TIMEOUT_S = 2.0
_HTTP_GONE = 410


@dataclass(frozen=True)
class _Due:
    """A webhook that is due now, with its body and the attempts so far."""

    subject: Subject
    body: bytes
    so_far: DeliveryStatus

    @property
    def number(self) -> int:
        """The number of the next attempt."""
        return len(self.so_far.attempts) + 1


class Delivers(Protocol):
    """The part of a worker that a webhook sender needs."""

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
    """Periodic task that delivers webhooks, in threads of its own."""

    worker: Delivers
    resolve: Resolve = resolve
    now: Callable[[], datetime] = _utc_now
    _later: dict[str, datetime] = field(default_factory=dict)
    _warned_at: float = -_WARNING_INTERVAL_S

    def __post_init__(self) -> None:
        self._store = self.worker.repository.store
        self._outbox = Outbox(self._store)
        self._pool = KeyedPool(
            "webhooks",
            max_threads=_MAX_CONCURRENCY,
            max_threads_per_key=_MAX_CONCURRENCY_PER_RECEIVER,
            max_waiting_per_lane=_MAX_WAITING_PER_TENANT,
        )
        interval_s = self.worker.settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="webhook-sender",
            ttl_s=max(30.0, 3 * interval_s),
            interval_s=interval_s,
        )

    def stop(self) -> None:
        """Ends the threads. Running attempts get two seconds to be recorded; the others will be repeated."""
        self._stop.set()
        self._pool.drop_waiting()
        super().stop()
        self._pool.wait(_STOP_TIMEOUT_S)

    def run_once(self) -> bool:
        """Starts the delivery of all due webhooks, without waiting for it.

        Returns False if another worker holds the leader lock, or this one has no secret to sign with. Raises RedisError
        or the store's errors.
        """
        keys = self._keys()
        if keys is None or not self._leader_lock.acquire():
            self._pool.drop_waiting()
            self._later.clear()
            return False
        pending = set(self._outbox.pending())
        for subject in list(self._later):
            if subject not in pending:
                self._later.pop(subject, None)
        now = self.now()
        to_check = [
            subject for subject in pending if self._later.get(subject, now) <= now and subject not in self._pool
        ]
        # after their letter, ids sort newest first
        to_check.sort(key=lambda subject: subject[1:], reverse=True)
        checked = prefetch(self._check, islice(_from_both_ends(to_check), _MAX_CHECKED_PER_RUN))
        for number, (subject, due) in enumerate(checked, start=1):
            if self._stop.is_set() or (number % _CHECKED_PER_LOCK_RENEWAL == 0 and not self._leader_lock.acquire()):
                break
            if due is not None and not self._pool.add(
                due.subject.tenant, _receiver(due.subject), subject, partial(self._deliver, due, keys)
            ):
                self._later[subject] = now + _RETRY_AFTER_FULL_LANE
        return True

    def wait(self, timeout_s: float) -> bool:
        """Waits for all started deliveries; False if one still runs after ``timeout_s``."""
        return self._pool.wait(timeout_s)

    def _keys(self) -> tuple[bytes, ...] | None:
        """The signing keys. A worker without a secret sends nothing, and warns while webhooks are pending."""
        try:
            return webhook_keys(self.worker.settings)
        except SettingsError as error:
            if time.monotonic() - self._warned_at >= _WARNING_INTERVAL_S:
                self._warned_at = time.monotonic()
                if next(self._outbox.pending(limit=1), None) is not None:
                    logger.warning("webhooks are pending, but this worker cannot send them: %s", error.detail)
            return None

    def _check(self, pending: str) -> _Due | None:
        """The webhook of a job or a run in the outbox, if it is due now, else None. Drops entries that are done."""
        try:
            subject = read_subject(self._store, pending)
            if subject is not None and subject.body is None:
                return None  # it has no summary yet: its worker died while ending it, and the sweeper will end it
            so_far = self._outbox.read(pending)
            if subject is None or subject.body is None or so_far.state.settled:
                self._drop(pending)
                return None
        except (UnknownJob, UnknownRun) as error:
            logger.info("%s has a pending webhook but no spec: %s", named(pending), error.detail)
            self._drop(pending)
            return None
        except Exception as error:
            with self._contained(named(pending), "checked for its webhook"):
                raise error
            self._later[pending] = self.now() + _RETRY_AFTER_STORE_ERROR
            return None
        if so_far.next_at is not None and so_far.next_at > self.now():
            self._later[pending] = so_far.next_at
            return None
        return _Due(subject, subject.body, so_far)

    def _deliver(self, due: _Due, keys: tuple[bytes, ...]) -> None:
        """Makes one attempt and records it."""
        subject = due.subject
        # it may have waited long in the pool; if another worker holds the lock by now, that one checks it again
        if self._stop.is_set() or not self._leader_lock.is_ours:
            return
        self._later[subject.id] = self.now() + _RETRY_AFTER_STORE_ERROR
        try:
            attempt = self._outbox.record(subject.id, self._attempt(due, keys))
            ATTEMPTS.labels(attempt.result).inc()
            answer = attempt.status if attempt.error is None else attempt.error
            logger.info(
                "%s webhook to %s, attempt %d: %s, %s",
                subject,
                _receiver(subject),
                attempt.number,
                answer,
                attempt.result,
            )
            if delivery_status([*due.so_far.attempts, attempt]).state.settled:
                self._drop(subject.id)
            elif attempt.next_at is not None:
                self._later[subject.id] = attempt.next_at
            self._remove_if_deleted(subject.id)
        except TwinsetError as error:
            logger.warning("%s webhook may have been sent, and will be sent again: %s", subject, error.detail)

    def _remove_if_deleted(self, subject: str) -> None:
        """Removes the recorded attempts of a job or run that was deleted meanwhile.

        Its other objects may have been removed before the attempt was recorded.
        """
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
        if status == _HTTP_GONE or next_at is None:
            return DeliveryAttempt(**ended, result="abandoned")
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
            # an API with another setting accepted the address, or the setting was changed since
            return None, f"refused: {refused}"
        except NotDelivered as reason:
            return None, str(reason)
        return answer, None

    def _drop(self, subject: str) -> None:
        """Removes the webhook from the outbox. If the store fails, the entry stays and is checked again."""
        self._later.pop(subject, None)
        try:
            self._outbox.delete_entry(subject)
        except TwinsetError as error:
            logger.warning("%s webhook not removed from the outbox: %s", named(subject), error.detail)


def _from_both_ends(subjects: Sequence[str]) -> Iterator[str]:
    """The oldest, the newest, the second oldest, ...: no neighbour's thousands, old or new, keep one from its turn."""
    last = len(subjects) - 1
    return (subjects[number // 2 if number % 2 == 0 else last - number // 2] for number in range(len(subjects)))


def _receiver(subject: Subject) -> str:
    """The receiver's origin: a key of the tenant's lane. Only this part of the URL is logged; more may be secret."""
    try:
        target: CallbackTarget = parse_target(subject.callback.url, private_allowed=True)
    except UrlRefused:
        return "nowhere"
    return target.origin
