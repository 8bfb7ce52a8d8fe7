"""Pages of old ids. Ids list newest first, so the ids from before a moment are the end of the listing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from service.kit.ids import oldest_at


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


class Listing(Protocol):
    """A listing of ids, newest first."""

    def __call__(self, *, start_after: str, limit: int) -> Iterator[str]:
        """The ids after ``start_after``, at most ``limit``."""


@dataclass
class OldestFirstPages:
    """The pages of ``listing``, whose ids begin with ``letter``. After the last page the first comes again."""

    listing: Listing
    size: int
    letter: str
    _after: str | None = None

    @property
    def at_start(self) -> bool:
        """Whether the next page is the first."""
        return self._after is None

    def page(self, before: datetime) -> Iterator[str]:
        """The next page of ids from before that moment. It comes again if the caller does not take all of it."""
        ids = list(self.listing(start_after=max(oldest_at(before, self.letter), self._after or ""), limit=self.size))
        yield from ids
        self._after = ids[-1] if len(ids) == self.size else None
