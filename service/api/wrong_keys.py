"""Requests without a valid key: answered at once while they are few, and a second later while they are many.

The delay costs the API nothing, and a client that guesses keys has to wait; a request with a valid key never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

MAX_UNDELAYED = 500
PER_S = 50.0
DELAY_S = 1.0


@dataclass
class WrongKeys:
    """Counts the answers given at once."""

    clock: Callable[[], float] = monotonic
    _left: float = MAX_UNDELAYED
    _at: float = float("-inf")

    async def wait(self) -> None:
        """Returns at once, or after a second if there were many such requests."""
        now = self.clock()
        self._left, self._at = min(MAX_UNDELAYED, self._left + (now - self._at) * PER_S), now
        if self._left >= 1:
            self._left -= 1
        else:
            await asyncio.sleep(DELAY_S)
