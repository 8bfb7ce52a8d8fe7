"""Progress bars on standard error, in a terminal or notebook only; concurrent bars are stacked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar(Protocol):
    """A progress bar."""

    def update(self, done: float, total: float | None, message: str = "") -> None:
        """Shows ``done`` of ``total`` (None if unknown), and a message beside it."""

    def advance(self, more: float) -> None:
        """Adds ``more``; negative where some of it has to be done again."""


class _NoBar:
    def update(self, done: float, total: float | None, message: str = "") -> None:
        pass

    def advance(self, more: float) -> None:
        pass


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: float, total: float | None, message: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, message=message)

    def advance(self, more: float) -> None:
        self._progress.advance(self._task, more)


class ProgressDisplay:
    """All progress bars of a client, on one display."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._bars = 0

    @contextmanager
    def bar(self, wanted: bool, label: str, unit: str) -> Iterator[Bar]:
        """A bar for the duration of the context.

        It shows nothing if not ``wanted``, or if standard error is neither a terminal nor a notebook. ``unit`` is what
        is counted, in the plural; "bytes" are shown with a decimal prefix.
        """
        with self._lock:
            if wanted and self._progress is None:
                self._progress = _display()
            progress = self._progress if wanted else None
            if progress is None:
                shown: Bar = _NoBar()
            else:
                task = progress.add_task(label, total=None, unit=unit, message="")
                shown = _RichBar(progress, task)
                if not self._bars:
                    progress.start()
                self._bars += 1
        try:
            yield shown
        finally:
            if progress is not None:
                with self._lock:
                    progress.stop_task(task)
                    self._bars -= 1
                    if not self._bars:
                        progress.stop()
                        self._progress = None


def _display() -> Progress | None:
    """A display on standard error; None if that is neither a terminal nor a notebook."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Count(ProgressColumn):
        """``12 of 40 twins``, ``1.2 MB of 3.4 MB``."""

        def render(self, task: Task) -> Text:
            unit = task.fields["unit"]
            done, total = (
                "" if n is None else decimal(int(n)) if unit == "bytes" else f"{int(n)}"
                for n in (task.completed, task.total)
            )
            words = f"{done} of {total}" if total else done
            return Text(words if unit == "bytes" else f"{words} {unit}", style="bold")

    console = Console(stderr=True, highlight=False)
    if not (console.is_terminal or console.is_jupyter):
        return None
    message = TextColumn("{task.fields[message]}", style="dim", markup=False)
    return Progress(
        TextColumn("{task.description:<10}", markup=False), BarColumn(bar_width=32), Count(), message, console=console
    )
