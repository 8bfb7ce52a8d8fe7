"""Retention: deletes exports, augmentation sets and trainings some days after their end; datasets and models stay.

Once a minute it looks at one page of the old runs of each kind. An augmentation set that an unfinished export reads,
or a training whose part or checkpoint an unfinished one needs, is kept until that has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from service.errors import RecordUnreadable, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from workers.bulk import metrics
from workers.bulk.worker import BulkWorker
from workers.runtime.paging import OldestFirstPages, utc_now

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 60.0
_PAGE = 100
EXPIRING = (RunKind.EXPORT, RunKind.AUGMENTATION, RunKind.TRAINING)


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
        if spec.kind is not RunKind.EXPORT and self._is_needed(run, spec.kind):
            logger.info("run=%s has expired, but is kept because a run that has not ended needs it", run)
            return
        runs.delete(spec, "expired")
        metrics.EXPIRED.labels(spec.kind.value).inc()
        logger.info("run=%s deleted by retention: it ended %s", run, summary.finished_at.isoformat(timespec="seconds"))

    def _is_needed(self, run: str, kind: RunKind) -> bool:
        """Whether an unfinished export names the set as a source, or an unfinished training builds on this one."""
        runs = self.worker.runs
        by = RunKind.EXPORT if kind is RunKind.AUGMENTATION else RunKind.TRAINING
        for other in runs.open_runs():
            if kind_of(other) is not by:
                continue
            try:
                if runs.read_summary(other) is None and run in _needed(runs.read_spec(other).work):
                    return True
            except (UnknownRun, RecordUnreadable):
                continue
        return False


def _needed(work: Mapping[str, Any]) -> set[str]:
    """The runs that the work of an export or a training needs."""
    found = {str(source["id"]) for source in work.get("sources", ()) if isinstance(source, dict) and "id" in source}
    found |= {str(ref).removeprefix("training/") for stage in work.get("stages", ()) for ref in stage["uses"].values()}
    return found | {str(work.get("continues"))}
