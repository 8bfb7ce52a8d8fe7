"""Expiry: exports and augmentation sets go so long after their end, as if they had been deleted; datasets stay.

A pass looks at a page of each kind's old runs, once a minute. An augmentation set that an export still has to read is
let be until that has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from service.errors import TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from workers.bulk import metrics
from workers.bulk.worker import BulkWorker
from workers.runtime.paging import OldestFirstPages, utc_now

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 60.0
_PAGE = 100
EXPIRING = (RunKind.EXPORT, RunKind.AUGMENTATION)


@dataclass
class RunExpiry:
    """Lets the runs of all tenants expire, after the days that the settings say."""

    worker: BulkWorker
    now: Callable[[], datetime] = utc_now
    poll_interval_s: float = _POLL_INTERVAL_S
    size: int = _PAGE
    _looked_at: float = float("-inf")
    _pages: dict[RunKind, OldestFirstPages] = field(init=False)

    def __post_init__(self) -> None:
        listing = self.worker.runs.everybodys
        self._pages = {kind: OldestFirstPages(partial(listing, kind), self.size, kind.letter) for kind in EXPIRING}

    def expire_some(self, should_continue: Callable[[], bool]) -> None:
        """Deletes those of a page of each kind that ended too long ago, while ``should_continue``. Raises what listing
        them raises."""
        days = self.worker.settings.run_retention_days
        if not days or time.monotonic() - self._looked_at < self.poll_interval_s:
            return
        self._looked_at = time.monotonic()
        before = self.now() - timedelta(days=days)
        for pages in self._pages.values():
            for run in pages.page(before):
                if not should_continue():
                    return
                try:
                    self._expire(run, before)
                except UnknownRun:
                    continue  # it is being deleted already
                except TwinsetError as error:
                    logger.warning("run=%s not looked at for its age: %s", run, error.detail)

    def _expire(self, run: str, before: datetime) -> None:
        runs = self.worker.runs
        summary = runs.read_summary(run)
        if summary is None or summary.finished_at >= before:
            return
        spec = runs.read_spec(run)
        if spec.kind is RunKind.AUGMENTATION and self._is_read(run):
            logger.info("run=%s has expired and is kept for an export that has not ended", run)
            return
        runs.delete(spec, "expired")
        metrics.EXPIRED.labels(spec.kind.value).inc()
        logger.info("run=%s ended %s, and expires", run, summary.finished_at.isoformat(timespec="seconds"))

    def _is_read(self, run: str) -> bool:
        """Whether an export that has not ended names the set as a source."""
        runs = self.worker.runs
        for export in runs.open_runs():
            if kind_of(export) is not RunKind.EXPORT or runs.read_summary(export) is not None:
                continue
            try:
                sources = runs.read_spec(export).work.get("sources", ())
            except UnknownRun:
                continue
            if any(source["id"] == run for source in sources):
                return True
        return False
