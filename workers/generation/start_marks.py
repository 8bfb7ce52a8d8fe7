"""The mark that a worker has begun with a job: written to the store before anything is made of it, once a job and
process."""

from __future__ import annotations

import threading

from service.jobs.repository import JobRepository

_JOBS_REMEMBERED = 4096


class StartMarks:
    """Marks jobs as begun, and remembers which it has. May be used from many threads."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository
        self._marked: set[str] = set()
        self._lock = threading.Lock()

    def mark(self, job: str) -> None:
        """Marks the job as begun, unless it is known to be marked. Raises a store's error."""
        with self._lock:
            if job in self._marked:
                return
        self._repository.record_started(job)
        with self._lock:
            if len(self._marked) >= _JOBS_REMEMBERED:
                self._marked.clear()
            self._marked.add(job)
