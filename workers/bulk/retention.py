"""Retention: deletes exports and augmentation sets some days after their end; datasets stay.

Once a minute it looks at one page of the old runs of each kind. An augmentation set that an unfinished export reads is
kept until that export has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from service.errors import RecordUnreadable, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from workers.bulk import metrics
from workers.bulk.worker import BulkWorker
from workers.runtime.paging import OldestFirstPages, utc_now

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 60.0
_PAGE = 100
EXPIRING = (RunKind.EXPORT, RunKind.AUGMENTATION)


@dataclass
class RunRetention:
    """Retention of all tenants' runs, for ``run_retention_days`` after their end."""

    worker: BulkWorker
    now: Callable[[], datetime] = utc_now
    poll_interval_s: float = _POLL_INTERVAL_S
    size: int = _PAGE
    _looked_at: float = float("-inf")
    _pages: dict[RunKind, OldestFirstPages] = field(init=False)

    def __post_init__(self) -> None:
        listing = self.worker.runs.runs_of_all_tenants
        self._pages = {kind: OldestFirstPages(partial(listing, kind), self.size, kind.letter) for kind in EXPIRING}

    def delete_expired(self, should_continue: Callable[[], bool]) -> None:
        """Deletes the expired runs in one page of each kind, while ``should_continue()``. Raises the store's errors."""
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
                    continue  # the run is being deleted already
                except TwinsetError as error:
                    logger.warning("run=%s not checked for retention: %s", run, error.detail)

    def _expire(self, run: str, before: datetime) -> None:
        runs = self.worker.runs
        summary = runs.read_summary(run)
        if summary is None or summary.finished_at >= before:
            return
        spec = runs.read_spec(run)
        if spec.kind is RunKind.AUGMENTATION and self._is_read(run):
            logger.info("run=%s has expired, but is kept because an unfinished export reads it", run)
            return
        runs.delete(spec, "expired")
        metrics.EXPIRED.labels(spec.kind.value).inc()
        logger.info("run=%s deleted by retention: it ended %s", run, summary.finished_at.isoformat(timespec="seconds"))

    def _is_read(self, run: str) -> bool:
        """Whether an unfinished export names the set as a source."""
        runs = self.worker.runs
        for export in runs.open_runs():
            if kind_of(export) is not RunKind.EXPORT:
                continue
            try:
                if runs.read_summary(export) is not None:
                    continue
                sources = runs.read_spec(export).work.get("sources", ())
            except (UnknownRun, RecordUnreadable):
                continue
            if any(isinstance(source, dict) and source.get("id") == run for source in sources):
                return True
        return False
