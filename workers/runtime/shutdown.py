"""A worker's end, asked for once."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Shutdown:
    """The worker's end: asked for once, then work in hand has ``grace_s`` seconds before it is handed back."""

    grace_s: float = 8.0
    _asked_at: float | None = None

    def ask(self) -> None:
        """Asks the worker to stop; a second time changes nothing."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    @property
    def out_of_time(self) -> bool:
        """Whether work in hand must be put down now."""
        return self._asked_at is not None and time.monotonic() - self._asked_at >= self.grace_s
