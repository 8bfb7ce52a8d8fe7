"""Waiting for a job with a progress bar: twins made, twins per second, seconds left."""

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
_POLL_S = 0.25


class _Pace(ProgressColumn):
    """Rate and time left, or what the job waits for."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("pace", ""), style="dim")


def twin_bar() -> Progress:
    """A progress bar that counts twins: the field ``done`` as a number, ``completed`` as its filling."""
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=32),
        TextColumn("[bold]{task.fields[done]}[/] of {task.total:.0f}"),
        _Pace(),
        console=out,
    )


def follow(client: ApiClient, job: str, *, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Shows the job's progress until it has ended; the job as it is then. ``check`` is called with every look."""
    outlook = Outlook()
    with twin_bar() as bar:
        task = bar.add_task("Making", total=1, done=0)
        while True:
            check()
            view = client.job(job)
            filled, pace = outlook.look(view, time.monotonic())
            if view.get("stalled"):
                pace = f"waiting: {view['stalled']['reason']}"
            bar.update(task, total=view["total"], completed=filled, done=view["done"], pace=pace)
            if view["state"] in ENDED:
                return view
            time.sleep(_POLL_S)


@dataclass
class Outlook:
    """How far a job is between two of its chunks.

    The server counts twins when they are stored, several at once; its rate counts their steps. So from the moment that
    the count stood still, time runs off the seconds left, and the bar fills at the rate.
    """

    state: str = ""
    done: int = 0
    since: float = 0.0
    filled: float = 0.0

    def look(self, view: dict[str, Any], now: float) -> tuple[float, str]:
        """The bar's filling in twins, and the pace in words: ``4.1 twins/s, 12 s left``. ``now`` is in seconds."""
        state, done, rate = view["state"], view["done"], view["rate"]
        if state in ENDED:
            took = f"in {duration(view['seconds'])}" if view["seconds"] is not None else ""
            return float(done), took if state == "succeeded" else f"{state} {took}".rstrip()
        if done != self.done or state != self.state:
            self.state, self.done, self.since = state, done, now
        if state != "running":
            return float(done), {"queued": "waiting for a worker", "cancelling": "stopping"}.get(state, state)
        if not rate:
            return max(self.filled, float(done)), "the first twins are on their way"
        ahead = rate * (now - self.since)
        # Never full before the end, and never backwards.
        self.filled = max(self.filled, done, min(done + ahead, view["total"] - 0.1))
        pace = f"{rate:.3g} twins/s"
        if view["seconds_left"] is not None:
            pace += f", {duration(max(0.0, view['seconds_left'] - (now - self.since)))} left"
        return self.filled, pace
