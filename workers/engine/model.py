"""A loaded model as the engine drives it: its shape, its forward, and what has been seen of both."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from model_store.interface import System
from workers.engine.forward import Forward, ForwardWay, build_forward
from workers.engine.shape import MIN_ROWS

Shapes = Literal["fixed", "floating"]
_WINDOW_S = 60.0


@dataclass(frozen=True)
class StepSeen:
    """One step of a model: samples brought on, rows of the forward that held them, rows of it in all, and the seconds
    of those forwards whose time became known with it."""

    samples: int
    used: int
    rows: int
    seconds: list[float]


@dataclass(eq=False)
class EngineModel:
    """The system and its canonical number of rows.

    ``rows`` changes at most once, to the half, where the device has not the memory for the whole. Where ``shapes``
    float, a forward has as many rows as it needs, up to ``rows``, and bits depend on company. ``on_step`` is told of
    every step, from the engine's thread.
    """

    system: System
    rows: int
    shapes: Shapes = "fixed"
    way: ForwardWay = ForwardWay()
    on_step: Callable[[StepSeen], None] | None = None
    halved: bool = False
    _forward: Forward | None = field(default=None, repr=False)
    _recent: deque[tuple[float, int, float]] = field(default_factory=deque, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def forward(self) -> Forward:
        """The forward over :attr:`rows` rows, built at the first call; raises what :func:`build_forward` raises."""
        if self.way == ForwardWay() or self.shapes == "floating":
            return self.system.forward
        if self._forward is None:
            self._forward = build_forward(self.system, self.rows, self.way)
        return self._forward

    @property
    def can_halve(self) -> bool:
        """Whether a smaller shape is left to try."""
        return not self.halved and self.rows // 2 >= MIN_ROWS

    def halve(self) -> None:
        """Half the rows from now on."""
        self.rows, self.halved, self._forward = self.rows // 2, True, None

    def rows_for(self, used: int) -> int:
        """Rows of a forward in which ``used`` hold samples."""
        if self.shapes == "fixed":
            return self.rows
        return min(self.rows, max(MIN_ROWS, 1 << (used - 1).bit_length()))

    def record_step(self, *, samples: int, used: int, rows: int, seconds: list[float]) -> None:
        """Keeps account of one step; see :class:`StepSeen`."""
        if self.on_step is not None:
            self.on_step(StepSeen(samples, used, rows, seconds))
        now = monotonic()
        with self._lock:
            self._recent.append((now, used, sum(seconds)))
            while now - self._recent[0][0] > _WINDOW_S:
                self._recent.popleft()

    def used_rows_per_second(self) -> float:
        """Rows that held a sample, over the seconds of their forwards, in the last minute; 0 if there were none."""
        with self._lock:
            recent = [entry for entry in self._recent if monotonic() - entry[0] <= _WINDOW_S]
        seconds = sum(entry[2] for entry in recent)
        return sum(entry[1] for entry in recent) / seconds if seconds else 0.0
