"""Quotas of a tenant: samples in jobs that have not ended, and bytes in the store.

The store tells both (:mod:`service.jobs.usage`), so that no loss of Redis forgets them. Redis only adds the bytes of
jobs that are still running, which workers count up there with each chunk; without it, those count once the job has
ended.

The Redis hash is :func:`service.broker.redis_keys.stored`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.broker import redis_keys
from service.broker.live_state import LiveState
from service.errors import LimitReached
from service.jobs.spec import ChunkRecord, JobSpec
from service.jobs.usage import TenantUsage

if TYPE_CHECKING:
    from redis import Redis

_RECOUNT_INTERVAL_S = 30.0
_RECONCILE_INTERVAL_S = 30.0
_TTL_S = 7 * 86_400
_QUEUE_RETRY_S = 30
_STORE_RETRY_S = 3600
_RECHECK_BYTES = 16 << 20
"""A file that is being received is compared with the limit again after so many bytes."""
_ASK = "ask the operator of this service for more"


@dataclass
class Quotas:
    """Enforces the limits of tenants; 0 is no limit. May be used from many threads. ``clock`` counts seconds."""

    usage: TenantUsage
    live_state: LiveState
    queued_samples: int = 0
    stored_bytes: int = 0
    clock: Callable[[], float] = time.monotonic
    _counted: dict[str, tuple[float, int]] = field(default_factory=dict)
    _reconciled_at: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_queue(self, spec: JobSpec) -> None:
        """Counts the job's samples as queued, before its spec is written.

        Raises :class:`LimitReached`, and then the job is not counted. The job is counted before the sum is read, so
        that two requests at the same moment cannot both pass the limit.
        """
        if self.queued_samples <= 0:
            return
        self.usage.add_open(spec)
        queued = self._queued_beside(spec)
        if queued + spec.count > self.queued_samples and self._reconcile(spec.tenant):
            queued = self._queued_beside(spec)
        if queued + spec.count <= self.queued_samples:
            return
        self.usage.drop_open(spec)
        if spec.count > self.queued_samples:
            remedy = f"ask for {self.queued_samples} at most"
        elif queued < self.queued_samples:
            remedy = f"wait until one of its jobs has ended, cancel one, ask for {self.queued_samples - queued} at most"
        else:
            remedy = "wait until one of its jobs has ended, cancel one"
        raise LimitReached(
            f"tenant {spec.tenant!r} has {queued} samples in jobs that have not ended, and {spec.count} more "
            f"are over the {self.queued_samples} it may have at once; {remedy}, or {_ASK}",
            retry_after_s=_QUEUE_RETRY_S,
            limit="TWINSET_LIMIT_QUEUED_SAMPLES",
            max=self.queued_samples,
            used=queued,
        )

    def leave_queue(self, spec: JobSpec) -> None:
        """Undoes :meth:`take_queue`, for a job that will not be created."""
        if self.queued_samples > 0:
            self.usage.drop_open(spec)

    def check_stored(self, *, tenant: str, more: int = 0) -> None:
        """Raises :class:`LimitReached` if the tenant's images, masks, manifests and uploads have reached the limit, or
        have with ``more`` bytes.

        Ended jobs are counted every 30 s, so a tenant may exceed the limit by what it stores meanwhile.
        """
        if self.stored_bytes <= 0:
            return
        used = self._stored(tenant) + more
        if used >= self.stored_bytes and self._reconcile(tenant):
            used = self._stored(tenant) + more
        if used >= self.stored_bytes:
            raise LimitReached(
                f"tenant {tenant!r} has {used} bytes stored, of {self.stored_bytes} it may have; new requests "
                f"are refused until there is room: delete jobs, datasets, exports, models or uploads that are no "
                f"longer needed (DELETE /jobs/{{id}}, DELETE /uploads/{{id}}), or {_ASK}",
                retry_after_s=_STORE_RETRY_S,
                limit="TWINSET_LIMIT_STORED_BYTES",
                max=self.stored_bytes,
                used=used,
            )

    def room(self, *, tenant: str) -> Room:
        """What the tenant may still store, for a file of unknown size. Raises as :meth:`check_stored` does."""
        return Room(self, tenant)

    def stored(self, *, tenant: str, size: int) -> None:
        """Counts ``size`` bytes that were stored outside of jobs and runs, or removed if negative, at once."""
        with self._lock:
            if tenant in self._counted:
                counted_at, ended = self._counted[tenant]
                self._counted[tenant] = (counted_at, max(0, ended + size))

    def _queued_beside(self, spec: JobSpec) -> int:
        return sum(samples for job, samples in self.usage.queued_samples(spec.tenant).items() if job != spec.job)

    def _stored(self, tenant: str) -> int:
        with self._lock:
            counted_at, ended = self._counted.get(tenant, (float("-inf"), 0))
        if self.clock() - counted_at >= _RECOUNT_INTERVAL_S:
            counted_at = self.clock()
            jobs = self.usage.stored_bytes(tenant)
            self._drop_ended(tenant, jobs)
            ended = sum(jobs.values()) + self.usage.uploaded_bytes(tenant) + self.usage.model_bytes(tenant)
            with self._lock:
                self._counted[tenant] = (counted_at, ended)
        return ended + sum(self._running(tenant).values())

    def _running(self, tenant: str) -> dict[str, int]:
        empty: dict[str, int] = {}
        return self.live_state.ask(
            lambda client: {str(job): int(size) for job, size in client.hgetall(redis_keys.stored(tenant)).items()},
            empty,
        )

    def _drop_ended(self, tenant: str, ended: dict[str, int]) -> None:
        counted_twice = ended.keys() & self._running(tenant).keys()
        if counted_twice:
            self.live_state.ask(lambda client: client.hdel(redis_keys.stored(tenant), *counted_twice), None)

    def _reconcile(self, tenant: str) -> bool:
        """Removes outdated entries, at most every 30 s; whether there were any. It makes many requests to the store."""
        with self._lock:
            if self.clock() - self._reconciled_at.get(tenant, float("-inf")) < _RECONCILE_INTERVAL_S:
                return False
            self._reconciled_at[tenant] = self.clock()
        removed = self.usage.reconcile(tenant) > 0
        with self._lock:
            self._counted.pop(tenant, None)
        return removed


@dataclass
class Room:
    """Room for one file of a tenant, which takes it piece by piece."""

    quotas: Quotas
    tenant: str
    _taken: int = 0
    _left: int = 0

    def take(self, size: int) -> None:
        """Counts ``size`` further bytes of the file. Raises :class:`LimitReached` as soon as it is too large."""
        self._taken += size
        self._left -= size
        if self._left < 0:
            self.quotas.check_stored(tenant=self.tenant, more=self._taken)
            self._left = _RECHECK_BYTES


def count_stored(live_state: LiveState, spec: JobSpec, record: ChunkRecord) -> None:
    """Counts the bytes of a chunk that has just been recorded."""
    if record.bytes:
        live_state.ask(lambda client: _add(client, redis_keys.stored(spec.tenant), spec.job, record.bytes), None)


def forget_stored(live_state: LiveState, tenant: str, job: str) -> None:
    """Stops counting the bytes of a deleted job."""
    live_state.ask(lambda client: client.hdel(redis_keys.stored(tenant), job), None)


def _add(client: Redis, key: str, job: str, size: int) -> None:
    with client.pipeline(transaction=True) as pipe:
        pipe.hincrby(key, job, size)
        pipe.expire(key, _TTL_S)
        pipe.execute()
