"""Moving a caller's file into a folder store instead of copying it, where that is safe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def move_into_place(path: Path, source: int, found: os.stat_result, incoming: int, draft: str, file: int) -> bool:
    """Renames the file at ``path``, open as ``source``, over the temporary file ``draft``; False if it must be copied.

    It must be copied if it lies on another filesystem, has other hard links, or is no longer the file that was opened.
    """
    if found.st_nlink != 1 or found.st_dev != os.fstat(incoming).st_dev:
        return False
    try:
        named = os.stat(path, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
            return False
        # As if made here: its mode follows this process's umask, and its age counts from now.
        os.fchmod(source, stat.S_IMODE(os.fstat(file).st_mode))
        os.utime(source)
        os.replace(path, draft, dst_dir_fd=incoming)
    except OSError:
        return False
    placed = os.stat(draft, dir_fd=incoming, follow_symlinks=False)
    if (placed.st_dev, placed.st_ino) != (found.st_dev, found.st_ino):
        raise OSError(errno.ESTALE, "the file was replaced by another one while it was moved into the store")
    return True
