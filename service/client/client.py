"""What both clients are: settings, something that runs flows, and a place for bars."""

from __future__ import annotations

from typing import Any, Protocol

from service.client.config import Config
from service.client.progress_bars import Board


class Runner(Protocol):
    """Runs flows, and returns their results or what is to be awaited for them."""

    def run(self, flow: Any) -> Any:
        """The flow's result."""


class BaseClient:
    """A client of one server; :class:`Twinset` and :class:`AsyncTwinset` differ in their ``runner``."""

    config: Config
    runner: Runner
    board: Board

    @property
    def url(self) -> str:
        """The server's address."""
        return self.config.url

    @property
    def _client(self) -> BaseClient:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"
