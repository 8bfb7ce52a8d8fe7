"""A worker's shutdown: requested once, then a grace time for the work in hand."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Shutdown:
    """The shutdown of a worker. After :meth:`request`, its work has ``grace_s`` seconds before it is requeued."""

    grace_s: float = 8.0
    _requested_at: float | None = None

    def request(self) -> None:
        """Requests the shutdown; a second call changes nothing."""
        if self._requested_at is None:
            self._requested_at = time.monotonic()

    @property
    def requested(self) -> bool:
        """Whether the shutdown has been requested."""
        return self._requested_at is not None

    @property
    def out_of_time(self) -> bool:
        """Whether the grace time is over, so that work must be released now."""
        return self._requested_at is not None and time.monotonic() - self._requested_at >= self.grace_s
