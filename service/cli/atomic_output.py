"""A new folder or zip that is there whole or not at all."""

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
    """Raises a usage error if something is at ``target``, or nothing could be put there."""
    if os.path.lexists(target):
        raise click.UsageError(f"--out {target} is there already; name a new folder, or a new *.zip")
    if not target.name.endswith(".zip") and target.name.endswith(_OTHER_ARCHIVES):
        raise click.UsageError(
            f"--out {target} would be a folder of that name; name a folder, or a *.zip, the one archive that is written"
        )
    if not target.absolute().parent.is_dir():
        raise click.UsageError(
            f"--out {target} would lie in {target.absolute().parent}, which is no folder; make it first"
        )


def require_fetched_to(target: Path) -> None:
    """As :func:`require_new`, for what a server writes: it is fetched into a folder, and no zip is made of it."""
    if target.suffix.lower() == ".zip":
        raise click.UsageError(f"--out {target}: what a server writes is fetched into a folder; name one")
    require_new(target)


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[tuple[Path, Path, Callable[[], None]]]:
    """``(new, scratch, keep)``: where to build what is to be at ``target``, a folder for temporary files on the same
    file system, and what to call when it is complete. Both are gone in the end, however that comes. Raises a usage
    error for a target that is there.
    """
    require_new(target)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.absolute().parent))
    new, scratch = work / "new", work / "scratch"

    def keep() -> None:
        require_new(target)
        os.rename(new, target)

    try:
        scratch.mkdir()
        yield new, scratch, keep
    finally:
        shutil.rmtree(work, ignore_errors=True)
