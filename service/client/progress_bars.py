"""Progress bars on standard error, where somebody watches; several at once stand below one another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar(Protocol):
    """Something that shows how far a thing has come."""

    def show(self, done: float, total: float | None, note: str = "") -> None:
        """``done`` of ``total``, None where that is not known yet, and what there is to say."""

    def advance(self, more: float) -> None:
        """So much more is done; negative where some of it has to be done again."""


class _Nothing:
    def show(self, done: float, total: float | None, note: str = "") -> None:
        pass

    def advance(self, more: float) -> None:
        pass


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, done: float, total: float | None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def advance(self, more: float) -> None:
        self._progress.advance(self._task, more)


class Board:
    """All bars of a client. One display for them, since a terminal has room for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._bars = 0

    @contextmanager
    def bar(self, wanted: bool, label: str, unit: str) -> Iterator[Bar]:
        """A bar for as long as the context lasts; one that shows nothing if it is not ``wanted``, or nobody watches.

        ``unit`` is what is counted, in the plural; "bytes" are shown as such.
        """
        with self._lock:
            if wanted and self._progress is None:
                self._progress = _display()
            progress = self._progress if wanted else None
            if progress is None:
                shown: Bar = _Nothing()
            else:
                task = progress.add_task(label, total=None, unit=unit, note="")
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
    """A display on standard error; None where that is neither a terminal nor a notebook."""
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
    note = TextColumn("{task.fields[note]}", style="dim", markup=False)
    return Progress(
        TextColumn("{task.description:<10}", markup=False), BarColumn(bar_width=32), Count(), note, console=console
    )
