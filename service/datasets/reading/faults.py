"""What readers raise, turned into errors that name the dataset's file: one place for all of it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Protocol, TypeVar

from service.datasets.reading.report import EntryFault, Findings
from service.errors import InvalidDataset, TwinsetError


class _Source(Protocol):
    format: str


S = TypeVar("S", bound=_Source)
T = TypeVar("T")
_READERS = str(Path(__file__).parent)
_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EIO,
        errno.EAGAIN,
        errno.EINTR,
        errno.ESTALE,
        errno.EROFS,
    }
)


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error is no fault of the data: a full disk, too many open files; another attempt may succeed."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE)


@contextmanager
def named_faults(what: str) -> Iterator[None]:
    """Turns what a reader raises into InvalidDataset that names the file it was reading, or ``what`` without one.

    Errors that are named already, and those of the machine, pass.
    """
    try:
        yield
    except (TwinsetError, EntryFault):
        raise
    except Exception as error:
        if is_of_the_machine(error):
            raise
        raise InvalidDataset(
            f"{_file_in_hand(error) or what} cannot be read ({described(error)}); it is damaged, or not what its place "
            "and name say. Make it anew, or take it out"
        ) from error


def named_entries(entries: Iterable[T], what: str) -> Iterator[T]:
    """The entries of a source, with what it raises named as :func:`named_faults` does."""
    iterator = iter(entries)
    while True:
        with named_faults(what):
            try:
                entry = next(iterator)
            except StopIteration:
                return
        yield entry


def naming_faults(entries: Callable[[S, Findings], Iterator[T]]) -> Callable[[S, Findings], Iterator[T]]:
    """A source's method ``entries`` whose errors are named as :func:`named_faults` does."""

    @wraps(entries)
    def named(source: S, findings: Findings) -> Iterator[T]:
        return named_entries(entries(source, findings), f"the dataset, read as {source.format},")

    return named


def described(error: BaseException) -> str:
    """An error in a message: its kind, and its text, which alone may say nothing (``KeyError: 'size'``)."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _file_in_hand(error: BaseException) -> str | None:
    """The name of the file that a reader was at when it raised: the innermost of the files among its variables."""
    found: str | None = None
    trace = error.__traceback__
    while trace is not None:
        if _READERS in trace.tb_frame.f_code.co_filename:
            for value in list(trace.tb_frame.f_locals.values()):
                if isinstance(value, Path) and value.is_file():
                    found = f"{value.parent.name}/{value.name}"
        trace = trace.tb_next
    return found
