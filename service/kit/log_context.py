"""What log lines and new jobs belong to: the request, the job, the chunk, or the run at work in this thread or task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_context: ContextVar[Mapping[str, str | int]] = ContextVar("twinset_log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**values: str | int | None) -> Iterator[None]:
    """Adds ``values`` to the log lines of this thread, or task, until the block ends. None adds nothing."""
    known = {name: value for name, value in values.items() if value is not None}
    token = _context.set({**_context.get(), **known})
    try:
        yield
    finally:
        _context.reset(token)


def current_context() -> Mapping[str, str | int]:
    """What is at work here, such as ``request_id``, ``job`` and ``chunk``."""
    return _context.get()


def current_origin() -> dict[str, str | None]:
    """The ``request_id`` and ``traceparent`` at work here, as jobs and runs keep them."""
    found = _context.get()
    return {name: None if (value := found.get(name)) is None else str(value) for name in ("request_id", "traceparent")}
