"""Progress bar of a job: twins made, twins per second, seconds left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from service.cli.console import duration, out
from service.cli.http_client import ApiClient

ENDED = frozenset({"succeeded", "partial", "failed", "cancelled"})
_POLL_INTERVAL_S = 0.25


class _StatusColumn(ProgressColumn):
    """Column with rate and time left, or the reason why the job waits."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("status", ""), style="dim")


def twin_bar() -> Progress:
    """A progress bar that counts twins: ``done`` is the number shown, ``completed`` how far the bar is filled."""
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=32),
        TextColumn("[bold]{task.fields[done]}[/] of {task.total:.0f}"),
        _StatusColumn(),
        console=out,
    )


def follow_job(client: ApiClient, job: str, *, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Shows the job's progress until it ends; returns the job. ``check`` is called before each poll."""
    estimate = ProgressEstimate()
    with twin_bar() as bar:
        task = bar.add_task("Making", total=1, done=0)
        while True:
            check()
            view = client.job(job)
            filled, status = estimate.update(view, time.monotonic())
            if view.get("stalled"):
                status = f"waiting: {view['stalled']['reason']}"
            bar.update(task, total=view["total"], completed=filled, done=view["done"], status=status)
            if view["state"] in ENDED:
                return view
            time.sleep(_POLL_INTERVAL_S)


@dataclass
class ProgressEstimate:
    """Estimated progress of a job between two chunks.

    The server counts twins when a chunk is stored, but its rate counts sampling steps. So between two chunks the bar
    advances at that rate, and the time left runs down.
    """

    state: str = ""
    done: int = 0
    since: float = 0.0
    filled: float = 0.0

    def update(self, view: dict[str, Any], now: float) -> tuple[float, str]:
        """Returns how far the bar is filled, in twins, and a status such as ``4.1 twins/s, 12 s left``."""
        state, done, rate = view["state"], view["done"], view["rate"]
        if state in ENDED:
            took = f"in {duration(view['seconds'])}" if view["seconds"] is not None else ""
            return float(done), took if state == "succeeded" else f"{state} {took}".rstrip()
        if done != self.done or state != self.state:
            self.state, self.done, self.since = state, done, now
        if state != "running":
            return float(done), {"queued": "waiting for a worker", "cancelling": "stopping"}.get(state, state)
        if not rate:
            return max(self.filled, float(done)), "making the first twins"
        ahead = rate * (now - self.since)
        # never full before the end, and never backwards
        self.filled = max(self.filled, done, min(done + ahead, view["total"] - 0.1))
        status = f"{rate:.3g} twins/s"
        if view["seconds_left"] is not None:
            status += f", {duration(max(0.0, view['seconds_left'] - (now - self.since)))} left"
        return self.filled, status
