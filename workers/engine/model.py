"""A loaded model as the engine runs it: its batch shape, its forward, and the counts of its recent steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from model_store.interface import System
from workers.engine.forward import EAGER, Forward, ForwardWay, build_forward
from workers.engine.shape import MIN_ROWS

Shapes = Literal["fixed", "floating"]
_RECENT_S = 60.0


@dataclass(frozen=True)
class StepStats:
    """The counts of one step of a model.

    samples: brought one step further. used: rows of the forward that held them. rows: all rows of the forward. seconds:
    of the forwards whose time became known with this step.
    """

    samples: int
    used: int
    rows: int
    seconds: list[float]


@dataclass(eq=False)
class EngineModel:
    """The system and its canonical number of rows.

    ``rows`` changes at most once, to the half, if the device lacks the memory for all. With floating ``shapes`` a
    forward has as many rows as it needs, up to ``rows``, and bits depend on the other samples. ``on_step`` is called
    after every step, from the engine's thread.
    """

    system: System
    rows: int
    shapes: Shapes = "fixed"
    way: ForwardWay = EAGER
    on_step: Callable[[StepStats], None] | None = None
    halved: bool = False
    _forward: Forward | None = field(default=None, repr=False)
    _recent: deque[tuple[float, int, float]] = field(default_factory=deque, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def forward(self) -> Forward:
        """The forward over :attr:`rows` rows, built at the first call; raises what :func:`build_forward` raises."""
        if self.way == EAGER or self.shapes == "floating":
            return self.system.forward
        if self._forward is None:
            self._forward = build_forward(self.system, self.rows, self.way)
        return self._forward

    @property
    def can_halve(self) -> bool:
        """Whether a smaller shape is left to try."""
        return not self.halved and self.rows // 2 >= MIN_ROWS

    def halve(self) -> None:
        """Halves the rows from now on."""
        self.rows, self.halved, self._forward = self.rows // 2, True, None

    def rows_for(self, used: int) -> int:
        """The rows of a forward in which ``used`` hold samples."""
        if self.shapes == "fixed":
            return self.rows
        return min(self.rows, max(MIN_ROWS, 1 << (used - 1).bit_length()))

    def record_step(self, *, samples: int, used: int, rows: int, seconds: list[float]) -> None:
        """Counts one step; the arguments are those of :class:`StepStats`."""
        if self.on_step is not None:
            self.on_step(StepStats(samples, used, rows, seconds))
        now = monotonic()
        with self._lock:
            self._recent.append((now, used, sum(seconds)))
            while now - self._recent[0][0] > _RECENT_S:
                self._recent.popleft()

    def used_rows_per_second(self) -> float:
        """Rows that held a sample, per second of their forwards, in the last minute; 0 if there were none."""
        with self._lock:
            recent = [entry for entry in self._recent if monotonic() - entry[0] <= _RECENT_S]
        seconds = sum(entry[2] for entry in recent)
        return sum(entry[1] for entry in recent) / seconds if seconds else 0.0
