"""A folder as a flat, ordered list of keys, read through directory descriptors; symbolic links are skipped."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import StoreUnavailable
from service.store.keys import MAX_KEY_BYTES, is_part

NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | NO_FOLLOW


class NotAFolder(Exception):
    """A part of a path that is a file or a symbolic link (``is_link``) where a folder must be.

    It is not an OSError, so that code which handles a missing folder does not skip a link by mistake.
    """

    def __init__(self, name: str, *, is_link: bool) -> None:
        super().__init__(name)
        self.name = name
        self.is_link = is_link


CHANGED = (FileNotFoundError, NotADirectoryError, NotAFolder)
"""The errors of opening a folder that another process has changed since it was listed."""


def open_below(parent: int, name: str, *, make: bool = False) -> int:
    """A descriptor of the folder ``name`` in ``parent``; with ``make`` it is created, durably, if absent.

    Raises NotAFolder for a symbolic link or, with ``make``, a file; FileNotFoundError; NotADirectoryError.
    """
    try:
        return os.open(name, OPEN_FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        # A symbolic link gives ELOOP or ENOTDIR, depending on the system.
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        if is_link or make:
            raise NotAFolder(name, is_link=is_link) from None
        raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
        os.fsync(parent)
    return os.open(name, OPEN_FOLDER, dir_fd=parent)


@contextmanager
def open_folder(root: Path, *parts: str, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at ``parts`` below ``root``, through no symbolic link; see :func:`open_below`.

    Raises StoreUnavailable if there is no root.
    """
    below = iter(parts)
    try:
        # The root and the first part in one step. What is wrong with either is found out in two.
        flags = OPEN_FOLDER if parts else OPEN_FOLDER & ~os.O_NOFOLLOW
        descriptor = os.open(os.path.join(root, *parts[:1]), flags)
        next(below, None)
    except OSError:
        try:
            descriptor = os.open(root, OPEN_FOLDER & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            raise StoreUnavailable("the folder of TWINSET_STORE_URL no longer exists; restore it or restart") from None
    try:
        for part in below:
            lower = open_below(descriptor, part, make=make)
            os.close(descriptor)
            descriptor = lower
        yield descriptor
    finally:
        os.close(descriptor)


def scan(folder: int, after: str = "") -> list[str]:
    """Names in the folder, folders with a trailing '/', in the order their keys have: 'a.b' before 'a/'.

    Files only after ``after``, and folders that may hold something after it. Python orders text by code point, which is
    the order of its UTF-8 bytes. Names that cannot be part of a key, and symbolic links, are skipped.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            # The cheapest check comes first: it skips nearly all names of a large folder when listing what is new.
            if name <= after and f"{name}/" <= after and not after.startswith(f"{name}/"):
                continue
            if not is_part(name):
                continue
            if entry.is_file(follow_symlinks=False):
                if name > after:
                    names.append(name)
            elif entry.is_dir(follow_symlinks=False):
                names.append(f"{name}/")
    names.sort()
    return names


def walk(folder: int, base: str, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    """Keys and status of the files below ``folder``, whose key is ``base``, in the order of the keys.

    Only keys that start with ``prefix`` and come after ``after``; folders without such keys are not entered.
    Files that disappear meanwhile are skipped.
    """
    if after.startswith(base):
        within = after[len(base) :]
    elif after < base:
        within = ""
    else:
        return  # all keys here begin with the base, so they come before
    for name in scan(folder, within):
        key = base + name
        if len(key.encode()) > MAX_KEY_BYTES:
            continue
        if not name.endswith("/"):
            if key.startswith(prefix):
                with suppress(FileNotFoundError):
                    yield key, os.stat(name, dir_fd=folder, follow_symlinks=False)
        elif key.startswith(prefix) or prefix.startswith(key):
            try:
                below = open_below(folder, name[:-1])
            except CHANGED:
                continue
            try:
                yield from walk(below, key, prefix, after)
            finally:
                os.close(below)


def holds_object(parent: int, name: str) -> bool:
    """Whether any file lies below the folder ``name``; a killed writer may have left empty folders."""
    try:
        folder = open_below(parent, name)
    except CHANGED:
        return False
    try:
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and is_part(entry.name):
                    return True
                if entry.is_dir(follow_symlinks=False) and is_part(entry.name):
                    below.append(entry.name)
        return any(holds_object(folder, child) for child in below)
    finally:
        os.close(folder)


def make_folder(folder: Path) -> None:
    """Makes the folder and those above it, flushed to disk: a power cut does not lose a new store."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        descriptor = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
