"""The copies of datasets under ``prepared/``: which are in use, and which go when there are too many.

A process that uses a copy holds its lock file, shared, until it ends. The least recently used copies whose locks are
free are deleted once all of them take more than ``TWINSET_PREPARED_MAX_GB``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PART = ".part"
"""Ends the name of the folder in which a copy is being made."""
WRITTEN = "prepared.json"
"""The last file of a copy; its time is that of the last use."""
_held: dict[Path, IO[str]] = {}
"""The locks of the copies that this process uses."""


@contextmanager
def preparing(copy: Path) -> Iterator[None]:
    """Holds the copy's lock alone: of several processes that need it one makes it, and the others wait."""
    with _lock_file(copy).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def use(copy: Path) -> bool:
    """Marks the copy as used now, and by this process until it ends; False if it is not there."""
    if copy not in _held:
        lock = _lock_file(copy).open("w")
        fcntl.flock(lock, fcntl.LOCK_SH)
        _held[copy] = lock
    if not (copy / WRITTEN).is_file():
        _held.pop(copy).close()
        return False
    with suppress(OSError):  # of another user, say
        os.utime(copy / WRITTEN)
    return True


def delete_old(folder: Path, max_bytes: int) -> list[Path]:
    """Deletes the least recently used copies in ``folder`` until all take at most ``max_bytes``; those deleted.

    Copies in use stay, whatever they take. What a process that was killed has left of one is deleted too.
    """
    for path in folder.iterdir():
        if path.is_dir() and not (path / WRITTEN).is_file():
            _delete(path, path.with_name(path.name.removesuffix(PART)))
    copies = sorted(folder.glob(f"*/{WRITTEN}"), key=lambda written: written.stat().st_mtime_ns)
    sizes = {written.parent: _size(written.parent) for written in copies}
    total, deleted = sum(sizes.values()), []
    for copy, size in sizes.items():
        if total <= max_bytes:
            break
        if _delete(copy, copy):
            total -= size
            deleted.append(copy)
    return deleted


def _delete(path: Path, copy: Path) -> bool:
    """Deletes the folder of a copy; False if a process uses or makes the copy."""
    with _lock_file(copy).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # without its last file it is no copy, whatever of it cannot be deleted
        (path / WRITTEN).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    return True


def _lock_file(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.lock")


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, which may change meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total
