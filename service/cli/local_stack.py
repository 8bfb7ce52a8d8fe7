"""The embedded stack around a command: a line that says it starts, a line that says it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.cli.console import out
from service.local.stack import EmbeddedStack


@contextmanager
def staged(data_dir: Path, **options: Any) -> Iterator[EmbeddedStack]:
    """The running stack over ``data_dir``; ``options`` are those of :class:`EmbeddedStack`. Nothing is left
    afterwards."""
    stack = EmbeddedStack(data_dir, **options)
    with out.status("Starting broker, API and worker"):
        stack.start()
    try:
        yield stack
    finally:
        with out.status("Stopping"):
            stack.stop()
