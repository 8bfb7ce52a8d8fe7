"""The log of a training, in JSON lines, with its progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm


class TrainingLog:
    """A JSON-lines log of the means over each interval, and a progress bar with the seconds left.

    A run that resumes at ``start`` removes the lines after that checkpoint, since it repeats those iterations. A line
    over less than an interval, as after a resumption and at the end, gives its number of iterations in ``averaged``.
    """

    def __init__(self, path: Path, start: int, total: int, *, every: int, show: bool) -> None:
        self._path, self._every, self._show = path, every, show
        self._bar = tqdm(total=total, initial=start, disable=not show, unit="it", dynamic_ncols=True, smoothing=0.05)
        self._sums: dict[str, float] = {}
        self._count, self._since = 0, time.monotonic()
        if show and path.is_file():
            _remove_after(path, start)

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Adds one iteration's figures; writes a line at the end of every interval."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        self._bar.update(1)
        if (iteration + 1) % self._every == 0:
            self.write_line(iteration + 1)

    def write_line(self, done: int) -> None:
        """Writes the means since the last line, if there are any, after ``done`` iterations."""
        if not self._count:
            return
        now = time.monotonic()
        means = {key: round(total / self._count, 6) for key, total in self._sums.items()}
        line = {"iteration": done, **means, "seconds_per_iteration": round((now - self._since) / self._count, 4)}
        if self._count < self._every:
            line["averaged"] = self._count
        if self._show:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()})
        self._sums, self._count, self._since = {}, 0, now

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()


def _remove_after(path: Path, start: int) -> None:
    """Removes the lines of a log after iteration ``start``, and a last line that a kill cut short."""
    remaining = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] <= start:
                remaining.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(remaining), encoding="utf-8")
    fresh.replace(path)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a training log."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
