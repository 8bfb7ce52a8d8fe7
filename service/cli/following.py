"""Waiting for a job with a progress bar: twins made, twins per second, seconds left."""

from __future__ import annotations

import time
from typing import Any, Callable

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from service.cli.client import Client
from service.cli.console import duration, out

ENDED = frozenset({"succeeded", "partial", "failed", "cancelled"})
_POLL_S = 0.25


class _Pace(ProgressColumn):
    """Rate and time left as the server tells them, or what the job waits for."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("pace", ""), style="dim")


def twin_bar() -> Progress:
    """A progress bar that counts twins."""
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=32),
        TextColumn("[bold]{task.completed:.0f}[/] of {task.total:.0f}"),
        _Pace(),
        console=out,
    )


def follow(client: Client, job: str, *, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Shows the job's progress until it has ended; the job as it is then. ``check`` is called with every look."""
    with twin_bar() as bar:
        task = bar.add_task("Making", total=1)
        while True:
            check()
            view = client.job(job)
            bar.update(task, total=view["total"], completed=view["done"], pace=pace(view))
            if view["state"] in ENDED:
                return view
            time.sleep(_POLL_S)


def pace(view: dict[str, Any]) -> str:
    """How fast a job goes, in words: ``4.1 twins/s, 12 s left``."""
    state = view["state"]
    if state in ENDED:
        took = f"in {duration(view['seconds'])}" if view.get("seconds") is not None else ""
        return took if state == "succeeded" else f"{state} {took}".rstrip()
    if state == "cancelling":
        return "stopping"
    if state == "queued":
        return "waiting for a worker"
    parts = []
    if view.get("rate"):
        parts.append(f"{view['rate']:.3g} twins/s")
    if view.get("seconds_left") is not None:
        parts.append(f"{duration(view['seconds_left'])} left")
    return ", ".join(parts) or "the first twins are on their way"
