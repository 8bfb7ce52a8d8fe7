"""Temporary folders on this machine for data on its way to or from the store."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(data_dir: Path) -> Iterator[Path]:
    """An empty folder below ``data_dir/scratch``, deleted at the end.

    It first deletes folders of dead processes of this machine; those of other machines stay, because it cannot tell
    whether their processes are alive.
    """
    root = data_dir / "scratch" / (re.sub(r"[^A-Za-z0-9._-]", "_", platform.node()) or "machine")
    root.mkdir(parents=True, exist_ok=True)
    for stale in root.iterdir():
        owner = stale.name.partition("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # a killed process whose new parent has not collected it yet has ended
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
