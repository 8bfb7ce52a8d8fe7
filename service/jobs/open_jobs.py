"""Open jobs, by listing the store: those without a summary, each with the number of samples not recorded yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.errors import RecordUnreadable, UnknownJob
from service.jobs.job_search import JobSearch
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.prefetch import prefetch
from service.store import keys

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

    def __post_init__(self) -> None:
        self._search = JobSearch(self.repository, self._is_known)

    def look(self) -> list[OpenJob]:
        """The jobs that are open now, with what remains of each. Raises a store's error."""
        for job, spec in prefetch(self._read, dict.fromkeys(self._search.unknown()), ahead=_AHEAD):
            if spec is not None:
                self._open[job] = OpenJob(spec)
        for open_job, is_open in prefetch(self._count, list(self._open.values()), ahead=_AHEAD):
            if not is_open:
                self._ended.add(open_job.spec.job)
                del self._open[open_job.spec.job]
        return list(self._open.values())

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
