"""Leftovers of ended runs: objects that a worker wrote after another one had taken the run over and ended it.

Such a worker removes them itself (:mod:`workers.bulk.execute`), unless it dies. So once a minute one page of the runs
older than a day is searched, each run once; after the last page the search starts again the next day. What lies under
the id of a run that was deleted, or never accepted, is removed too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from service.errors import TwinsetError
from service.kit.run_kinds import RunKind
from service.store import run_keys
from service.store.immutable import put_once
from workers.bulk.cleanup import clean_up_run
from workers.bulk.worker import BulkWorker
from workers.runtime.paging import OldestFirstPages, utc_now

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 60.0
_PAGE = 100
LEFTOVER_AGE = timedelta(days=1)
"""After so long no worker writes to a run that has ended."""


@dataclass
class RunLeftovers:
    """The search for leftovers in all tenants' runs."""

    worker: BulkWorker
    now: Callable[[], datetime] = utc_now
    poll_interval_s: float = _POLL_INTERVAL_S
    size: int = _PAGE
    _looked_at: float = float("-inf")
    _searched_at: datetime | None = None
    _pages: dict[RunKind, OldestFirstPages] = field(init=False)

    def __post_init__(self) -> None:
        listing = self.worker.runs.runs_of_all_tenants
        self._pages = {kind: OldestFirstPages(partial(listing, kind), self.size, kind.letter) for kind in RunKind}

    def remove(self, should_continue: Callable[[], bool]) -> None:
        """Searches one page of each kind of run, while ``should_continue()``. Raises the store's errors."""
        if time.monotonic() - self._looked_at < self.poll_interval_s:
            return
        self._looked_at = time.monotonic()
        if self._searched_at is not None and self.now() - self._searched_at < LEFTOVER_AGE:
            return
        before = self.now() - LEFTOVER_AGE
        for pages in self._pages.values():
            for run in pages.page(before):
                if not should_continue():
                    return
                try:
                    self._search(run, before)
                except TwinsetError as error:
                    logger.warning("run=%s not searched for leftovers: %s", run, error.detail)
        at_start = all(pages.at_start for pages in self._pages.values())
        self._searched_at = self.now() if at_start else None

    def _search(self, run: str, before: datetime) -> None:
        runs = self.worker.runs
        if runs.store.head(run_keys.run_swept(run)) is not None or runs.is_deleted(run):
            return
        summary = runs.read_summary(run)
        if summary is None:
            self._remove_if_gone(run, before)
            return
        if summary.finished_at >= before:
            return
        clean_up_run(runs, summary)
        put_once(runs.store, run_keys.run_swept(run), b"{}")

    def _remove_if_gone(self, run: str, before: datetime) -> None:
        """Removes what lies under the id of a run without a spec, once all of it is older than ``before``."""
        store = self.worker.store
        if store.head(run_keys.run_spec(run)) is not None:
            return
        found = list(store.list(run_keys.run_prefix(run)))
        if all(info.modified < before for info in found):
            for info in found:
                store.delete(info.key)
