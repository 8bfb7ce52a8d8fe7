"""Base class of both clients: settings, the runner of flows, and the progress display."""

from __future__ import annotations

from typing import Any, Protocol

from service.client.config import Config
from service.client.progress_bars import ProgressDisplay


class Runner(Protocol):
    """Runs flows; ``run`` returns the result, or an awaitable of it."""

    def run(self, flow: Any) -> Any:
        """Runs the flow and returns its result, or an awaitable of it."""


class BaseClient:
    """Client of one server. :class:`Twinset` and :class:`AsyncTwinset` differ in their ``runner``."""

    config: Config
    runner: Runner
    progress_display: ProgressDisplay

    @property
    def url(self) -> str:
        """The server's address."""
        return self.config.url

    @property
    def _client(self) -> BaseClient:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"
