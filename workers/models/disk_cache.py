"""Copies of models on a worker's disk within a budget: the least recently used go, never one in use.

Several worker processes may share the folder. A process that fills or reads a copy holds its lock file, shared; a copy
is deleted by a process that gets the lock alone. Lock files stay, since a deleted one would no longer exclude anyone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.registry.references import split_key
from service.store import model_keys

logger = logging.getLogger(__name__)
CARD = "card.json"
"""The last file of a copy; its time is that of the last use."""
_LOCKS = ".locks"


@dataclass(frozen=True)
class DiskCache:
    """The copies in ``folder``, at most ``max_bytes`` of them; more only while all are in use."""

    folder: Path
    max_bytes: int

    def place(self, key: str) -> Path:
        """The folder of the model with this key. No two keys share one."""
        owner, name, version = split_key(key)
        return self.folder / model_keys.owner_part(owner) / name / version

    @contextmanager
    def hold(self, key: str) -> Iterator[Path]:
        """The model's folder, perhaps empty, which nobody deletes until the block ends."""
        place = self.place(key)
        with self._lock_file(place).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            place.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.utime(place / CARD)
            yield place

    def make_room(self, needed: int) -> list[Path]:
        """Deletes the least recently used copies until ``needed`` more bytes fit; those deleted. In use, they stay."""
        copies = sorted((path for path in self.folder.glob("*/*/*") if path.is_dir()), key=_used_at)
        sizes = {copy: _size(copy) for copy in copies}
        total, deleted = sum(sizes.values()) + needed, list[Path]()
        for copy, size in sizes.items():
            if total <= self.max_bytes:
                break
            if self._delete(copy):
                logger.info("deleted %s, which was not used lately, for %d bytes", copy, needed)
                total -= size
                deleted.append(copy)
        if total > self.max_bytes:
            logger.warning(
                "%s holds %d bytes of models in use, over the budget of %d; raise TWINSET_MODEL_CACHE_MAX_GB",
                self.folder,
                total,
                self.max_bytes,
            )
        return deleted

    def _delete(self, copy: Path) -> bool:
        """Deletes a copy; False if a process uses it."""
        with self._lock_file(copy).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            # without its last file it is no copy, whatever of it cannot be deleted
            (copy / CARD).unlink(missing_ok=True)
            shutil.rmtree(copy, ignore_errors=True)
        return True

    def _lock_file(self, copy: Path) -> Path:
        locks = self.folder / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        return locks / "+".join(copy.relative_to(self.folder).parts)


def _used_at(copy: Path) -> int:
    """When the copy was last used; 0 for one that was never completed."""
    try:
        return (copy / CARD).stat().st_mtime_ns
    except OSError:
        return 0


def _size(folder: Path) -> int:
    """Bytes of a copy's files, which may change meanwhile."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
