"""Open jobs, found by listing the store: those without a summary, each with the chunks that are not recorded yet.

Ids of jobs list newest first. A look reads the head of the listing until it finds known ids, and one more page of the
rest, so that it costs what the open jobs cost and still sees every job in time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.errors import RecordUnreadable, UnknownJob
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.prefetch import prefetch
from service.store import keys

_MAX_KNOWN_IN_A_ROW = 20
_MAX_NEW = 2000
_PAGE = 500
_AHEAD = 16
_log = logging.getLogger("twinset.open_jobs")


@dataclass
class OpenJob:
    """A job without a summary. ``remaining``: its samples without a record, 0 once it is cancelled."""

    spec: JobSpec
    frontier: int = 0
    remaining: int = 0


@dataclass
class OpenJobs:
    """The open jobs of all tenants, as one process remembers them from look to look."""

    repository: JobRepository
    _open: dict[str, OpenJob] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _page_after: str | None = None

    def look(self) -> list[OpenJob]:
        """The jobs that are open now, with what remains of each. Raises a store's error."""
        for job, spec in prefetch(self._read, self._unknown(), ahead=_AHEAD):
            if spec is not None:
                self._open[job] = OpenJob(spec)
        for open_job, is_open in prefetch(self._count, list(self._open.values()), ahead=_AHEAD):
            if not is_open:
                self._ended.add(open_job.spec.job)
                del self._open[open_job.spec.job]
        return list(self._open.values())

    def _unknown(self) -> list[str]:
        """Ids that were not looked at before: of new jobs, and of the next page of all."""
        found: dict[str, None] = {}
        known_in_a_row = 0
        for job in self.repository.jobs(limit=_MAX_NEW):
            known = self._is_known(job)
            known_in_a_row = known_in_a_row + 1 if known else 0
            if not known:
                found[job] = None
            if known_in_a_row >= _MAX_KNOWN_IN_A_ROW:
                break
        page = list(self.repository.jobs(start_after=self._page_after, limit=_PAGE))
        self._page_after = page[-1] if len(page) == _PAGE else None
        return list(found | dict.fromkeys(job for job in page if not self._is_known(job)))

    def _is_known(self, job: str) -> bool:
        return job in self._ended or job in self._open

    def _read(self, job: str) -> JobSpec | None:
        """The spec of a job that is open; None if it has ended, or cannot be read for now."""
        if self._has_ended(job):
            self._ended.add(job)
            return None
        try:
            return self.repository.read_spec(job)
        except (UnknownJob, RecordUnreadable) as error:
            # not written yet, being deleted, or damaged: no worker makes it either
            _log.debug("job=%s is not counted: %s", job, error.detail)
            return None

    def _has_ended(self, job: str) -> bool:
        return self.repository.store.head(keys.job_summary(job)) is not None

    def _count(self, open_job: OpenJob) -> bool:
        """Counts what remains of the job; False if it has ended, or was deleted."""
        spec, repository = open_job.spec, self.repository
        if self._has_ended(spec.job) or repository.store.head(keys.job_spec(spec.job)) is None:
            return False
        if repository.is_cancelled(spec.job):
            open_job.remaining = 0
            return True
        recorded = [chunk for chunk, _ in repository.chunks.recorded(spec.job, start_at=open_job.frontier)]
        open_job.remaining = spec.count - min(spec.count, open_job.frontier * spec.chunk_size)
        open_job.remaining -= sum(len(spec.chunk_range(chunk)) for chunk in recorded if chunk < spec.chunks)
        open_job.frontier = _contiguous(open_job.frontier, recorded)
        return True


def _contiguous(first: int, chunks: Iterable[int]) -> int:
    """The first number from ``first`` on that is not in ``chunks``, which ascend."""
    for chunk in chunks:
        if chunk != first:
            break
        first += 1
    return first
