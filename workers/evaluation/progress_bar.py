"""Progress bars of a measurement."""

from __future__ import annotations

from tqdm import tqdm


class ProgressBars:
    """One progress bar after another, each with its seconds left, from (what, done, total)."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._bar, self._what = tqdm(total=total, desc=what, dynamic_ncols=True), what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar that is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
