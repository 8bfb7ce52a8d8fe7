"""Interruption of a training: a signal ends it after its current iteration, with a checkpoint; a second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Interruption:
    """The signal that asked this process to stop, if one did."""

    signal: int | None = None

    def is_requested(self, accelerator: Accelerator) -> bool:
        """Whether any process of the training was asked to stop. All processes call it after the same iteration."""
        if accelerator.num_processes > 1:
            asked = torch.tensor([self.signal or 0], device=accelerator.device)
            self.signal = int(accelerator.gather(asked).max()) or None
        return self.signal is not None

    def leave(self) -> None:
        """Ends the program as the signal would have."""
        if self.signal in (None, signal.SIGINT):
            raise KeyboardInterrupt
        raise SystemExit(128 + int(self.signal or 0))


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Notes the first signal that asks this process to stop; the next one has its usual effect, at once."""
    interruption = Interruption()
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interruption.signal = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread alone
        yield interruption
        return
    before.update({number: signal.signal(number, note) for number in _SIGNALS})
    try:
        yield interruption
    finally:
        restore()
