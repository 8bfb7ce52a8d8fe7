"""Quota of training: a tenant's device-seconds in a calendar month (UTC), in the names of small objects in the store.

    tenants/{tenant}/training-seconds/{YYYY-MM}/{run}.budget.{n}    written before the training's spec
    tenants/{tenant}/training-seconds/{YYYY-MM}/{run}.used.{n}      by its worker, at each checkpoint

A training counts in the month in which it was accepted: with its whole budget until it has ended, and then with what it
used. The entries outlive a deleted training, so deleting one gives nothing back.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.errors import LimitReached
from service.kit.ids import accepted_at
from service.kit.run_kinds import RunKind, kind_of
from service.store import run_keys, training_keys
from service.store.base import ObjectStore
from service.trainings.work import TrainingWork

LIMIT = "TWINSET_LIMIT_TRAINING_DEVICE_SECONDS"
_MAX_RETRY_S = 86_400


@dataclass(frozen=True)
class TrainingUsage:
    """The device-seconds of all tenants' trainings."""

    store: ObjectStore

    def reserve(self, tenant: str, run: str, seconds: float) -> None:
        """Counts the budget of a training. Call it before its spec is written."""
        self._put(tenant, run, "budget", seconds)

    def record(self, tenant: str, run: str, seconds: float) -> None:
        """Records what a training has used so far, in place of what was recorded before."""
        kept = self._put(tenant, run, "used", seconds)
        for info in list(self.store.list(f"{_prefix(tenant, run)}{run}.used.")):
            if info.key != kept:
                self.store.delete(info.key)

    def counted(self, tenant: str, now: datetime) -> tuple[int, int]:
        """Device-seconds of this month: used by all trainings, and still reserved by those that have not ended."""
        prefix = training_keys.tenant_training_seconds_prefix(tenant, _month(now))
        trainings: dict[str, dict[str, int]] = {}
        for info in self.store.list(prefix):
            run, _, rest = info.key[len(prefix) :].partition(".")
            what, _, number = rest.partition(".")
            if kind_of(run) is RunKind.TRAINING and number.isdigit():
                amounts = trainings.setdefault(run, {})
                amounts[what] = max(int(number), amounts.get(what, 0))
        used = sum(amounts.get("used", 0) for amounts in trainings.values())
        reserved = 0
        for run, amounts in trainings.items():
            left = amounts.get("budget", 0) - amounts.get("used", 0)
            if left > 0 and self._goes_on(run):
                reserved += left
        return used, reserved

    def _goes_on(self, run: str) -> bool:
        """Whether the training exists and has not ended."""
        if self.store.head(run_keys.run_summary(run)) is not None:
            return False
        return self.store.head(run_keys.run_spec(run)) is not None

    def _put(self, tenant: str, run: str, what: str, seconds: float) -> str:
        month = _month(accepted_at(run))
        key = training_keys.tenant_training_seconds(tenant, month, run, what, math.ceil(max(0.0, seconds)))
        self.store.put(key, b"", flush=False)
        return key


@dataclass
class TrainingQuota:
    """The limit of a tenant's device-seconds in a month; 0 is no limit. May be used from many threads."""

    usage: TrainingUsage
    device_seconds: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(
        self, work: TrainingWork, *, tenant: str, now: datetime | None = None, before: float = 0.0
    ) -> TrainingWork:
        """The training with a budget within what the tenant has left. Raises :class:`LimitReached` without any.

        ``before`` are device-seconds of the training that this one continues: they are part of its budget, and counted
        already.
        """
        if self.device_seconds <= 0:
            return work
        now = now or datetime.now(UTC)
        used, reserved = self.usage.counted(tenant, now)
        left = self.device_seconds - used - reserved
        if left <= 0:
            until = _next_month(now)
            waiting = f", and trainings that have not ended may use {reserved} more" if reserved else ""
            remedy = "wait until one has ended, cancel one" if reserved else f"wait until {until:%Y-%m-%d} (UTC)"
            raise LimitReached(
                f"tenant {tenant!r} has used {used} device-seconds of training this month{waiting}; the limit is "
                f"{self.device_seconds}: {remedy}, or ask the operator of this service for more",
                retry_after_s=60 if reserved else min(_MAX_RETRY_S, math.ceil((until - now).total_seconds())),
                limit=LIMIT,
                max=self.device_seconds,
                used=used + reserved,
            )
        asked, most = work.budget.device_seconds, left + before
        budget = work.budget.model_copy(update={"device_seconds": most if asked is None else min(asked, most)})
        return work.model_copy(update={"budget": budget})

    @contextmanager
    def admit(self, work: TrainingWork, run: str, *, tenant: str, before: float = 0.0) -> Iterator[TrainingWork]:
        """:meth:`check`, with the budget reserved until the training has ended. Its spec is written meanwhile, so that
        two requests to this process cannot both take what is left."""
        if self.device_seconds <= 0:
            yield work
            return
        with self._lock:
            admitted = self.check(work, tenant=tenant, before=before)
            self.usage.reserve(tenant, run, (admitted.budget.device_seconds or 0.0) - before)
            yield admitted


def _prefix(tenant: str, run: str) -> str:
    return training_keys.tenant_training_seconds_prefix(tenant, _month(accepted_at(run)))


def _month(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m}"


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
