"""Temporary files of a folder store: an object is written to one before it takes its name."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from service.store.folder_walk import NO_FOLLOW


@contextmanager
def new_draft(folder: int) -> Iterator[tuple[str, FileIO]]:
    """The name of an empty temporary file in ``folder``, and the file; removed at the end, unless it was moved."""
    name = f"{os.getpid()}-{secrets.token_hex(12)}"
    try:
        with FileIO(create_file(name, folder), "wb") as file:
            yield name, file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def create_file(name: str, folder: int) -> int:
    """A descriptor of a new file in ``folder``. Raises FileExistsError."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666, dir_fd=folder)


def write_all(file: FileIO, data: bytes) -> None:
    """Writes all of ``data``; the system may take a part of it at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def remove_drafts(folder: Path, age_s: float) -> None:
    """Removes the temporary files that nothing was written to for ``age_s`` seconds."""
    oldest = time.time() - age_s
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
