"""Embedded stack for the duration of a command, with a status line while it starts and stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.cli.console import out
from service.local.stack import EmbeddedStack


@contextmanager
def running_stack(data_dir: Path, **options: Any) -> Iterator[EmbeddedStack]:
    """Starts a stack over ``data_dir`` and stops it at the end; ``options`` are those of :class:`EmbeddedStack`."""
    stack = EmbeddedStack(data_dir, **options)
    with out.status("Starting broker, API and worker"):
        stack.start()
    try:
        yield stack
    finally:
        with out.status("Stopping"):
            stack.stop()
