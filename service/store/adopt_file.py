"""Files that are given to a folder's store for good: taken as they are where that is safe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def takes_place(path: Path, source: int, found: os.stat_result, incoming: int, draft: str, file: int) -> bool:
    """Puts the file at ``path``, open as ``source``, in the draft's place, if that is one rename and nobody else's
    file."""
    if found.st_nlink != 1 or found.st_dev != os.fstat(incoming).st_dev:
        return False
    try:
        named = os.stat(path, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
            return False
        # As if made here: who may read it is for this process's umask to say, and its age counts from now.
        os.fchmod(source, stat.S_IMODE(os.fstat(file).st_mode))
        os.utime(source)
        os.replace(path, draft, dst_dir_fd=incoming)
    except OSError:
        return False
    placed = os.stat(draft, dir_fd=incoming, follow_symlinks=False)
    if (placed.st_dev, placed.st_ino) != (found.st_dev, found.st_ino):
        raise OSError(errno.ESTALE, "the file that was given away was another one a moment later")
    return True
