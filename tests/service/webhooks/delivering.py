"""Deliverers that do one pass when a test says so, and a clock for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workers.maintenance.webhook_sender import Delivers, WebhookSender

SERVICE = "https://twins.example/base"


@dataclass
class Clock:
    """A clock that goes on only when it is told to."""

    moment: datetime

    def __call__(self) -> datetime:
        return self.moment

    def go_on(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def deliver(worker: Delivers, clock: Callable[[], datetime] | None = None, **options: Any) -> WebhookSender:
    """One pass by a deliverer that knows nothing yet, to the end of all that it sends off."""
    sender = WebhookSender(worker, **options, **({} if clock is None else {"now": clock}))
    assert sender.run_once()
    assert sender.wait(30)
    sender.stop()
    sender._leader_lock.release()
    return sender


def pending(worker: Delivers) -> list[str]:
    """What has a callback's note."""
    return list(worker.repository.outbox.pending())
