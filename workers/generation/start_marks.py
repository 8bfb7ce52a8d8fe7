"""Start marks: an object in the store says that a worker has begun with a job, before it makes anything of it."""

from __future__ import annotations

import threading

from service.jobs.repository import JobRepository

_MAX_JOBS = 4096


class StartMarks:
    """Marks jobs as begun, each once a process. May be used from many threads."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository
        self._marked: set[str] = set()
        self._lock = threading.Lock()

    def mark(self, job: str) -> None:
        """Marks the job as begun, unless this process has. Raises a store's error."""
        with self._lock:
            if job in self._marked:
                return
        self._repository.record_started(job)
        with self._lock:
            if len(self._marked) >= _MAX_JOBS:
                self._marked.clear()
            self._marked.add(job)
