"""The search for jobs that a process does not know yet, by listing the store.

Ids of jobs list newest first. A search reads the head of the listing until it finds known ids, and one more page of the
rest, so that it costs what the new jobs cost and still sees every job in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.jobs.repository import JobRepository

_MAX_KNOWN_IN_A_ROW = 20
_MAX_NEW = 2000
_PAGE = 500


@dataclass
class JobSearch:
    """The search of one process; ``is_known`` tells the ids that it need not give."""

    repository: JobRepository
    is_known: Callable[[str], bool]
    _page_after: str | None = None

    def unknown(self) -> Iterator[str]:
        """Ids that are not known, of new jobs first. One may come twice if it does not get known. A store's error."""
        known_in_a_row = 0
        for job in self.repository.jobs(limit=_MAX_NEW):
            if not self.is_known(job):
                known_in_a_row = 0
                yield job
            elif (known_in_a_row := known_in_a_row + 1) >= _MAX_KNOWN_IN_A_ROW:
                break
        page = list(self.repository.jobs(start_after=self._page_after, limit=_PAGE))
        yield from (job for job in page if not self.is_known(job))
        self._page_after = page[-1] if len(page) == _PAGE else None
