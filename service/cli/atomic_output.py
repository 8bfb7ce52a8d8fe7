"""Atomic output: a new folder or zip that appears at its path only when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z", ".rar")


def require_new(target: Path) -> None:
    """Raises a usage error if ``target`` exists or cannot be created."""
    if os.path.lexists(target):
        raise click.UsageError(f"--out {target} exists already; name a new folder, or a new *.zip")
    if not target.name.endswith(".zip") and target.name.endswith(_OTHER_ARCHIVES):
        raise click.UsageError(f"--out {target}: this kind of archive cannot be written; name a folder, or a *.zip")
    if not target.absolute().parent.is_dir():
        raise click.UsageError(f"--out {target}: the folder {target.absolute().parent} does not exist; create it first")


def require_download_folder(target: Path) -> None:
    """As :func:`require_new`, but refuses a zip: what a server writes is downloaded into a folder."""
    if target.suffix.lower() == ".zip":
        raise click.UsageError(f"--out {target}: the result is downloaded into a folder, not a zip; name a folder")
    require_new(target)


@contextmanager
def atomic_target(target: Path) -> Iterator[tuple[Path, Path, Callable[[], None]]]:
    """Yields ``(new, scratch, commit)`` to build ``target`` with.

    ``new`` is the path to build it at, ``scratch`` a folder for temporary files on the same file system. ``commit()``
    renames ``new`` to ``target``; without it nothing is left. Raises a usage error if ``target`` exists.
    """
    require_new(target)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.absolute().parent))
    new, scratch = folder / "new", folder / "scratch"

    def commit() -> None:
        require_new(target)
        os.rename(new, target)

    try:
        scratch.mkdir()
        yield new, scratch, commit
    finally:
        shutil.rmtree(folder, ignore_errors=True)
