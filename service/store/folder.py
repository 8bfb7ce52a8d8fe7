"""The object store as plain files in a folder: the same keys and guarantees as S3, for one machine.

Writes go to ``.incoming/`` inside the root, are flushed to disk, and are then renamed to their key (or hard-linked,
which fails if the name is taken: that is ``if_absent``); new, empty objects are created under their key. No part of a
key starts with '.', so nothing in ``.incoming/`` is ever listed or read. Paths are walked part by part through
directory descriptors that follow no symbolic link, so no key leads out of the root.

A folder cannot hold both an object ``a`` and an object ``a/b``, as S3 can: the second raises InvalidKey.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

from service.errors import ObjectExists, ObjectNotFound
from service.store import signing
from service.store.adopt_file import move_into_place
from service.store.base import ObjectInfo, check_expiry, check_range, check_size
from service.store.disk_errors import disk_errors
from service.store.drafts import create_file, new_draft, remove_drafts, write_all
from service.store.folder_walk import NO_FOLLOW, holds_object, make_folder, open_folder, scan, walk
from service.store.keys import check_key, check_prefix, check_start

INCOMING = ".incoming"
LEFTOVER_AGE_S = 3600
"""A temporary file not written to for so long is abandoned: no writer waits an hour between two pieces."""
COPY_BYTES = 1 << 20
RENAME_ATTEMPTS = 100
"""Tries at moving a file into a folder that other processes keep removing by deleting its last object."""

Made = TypeVar("Made")


class FolderStore:
    """An ObjectStore in ``root``, which is created if needed. Raises StoreUnavailable where it cannot be."""

    def __init__(self, root: Path, *, link_secret: bytes, public_url: str) -> None:
        self.root = root
        self._secret = link_secret
        self._public_url = public_url.rstrip("/")
        with disk_errors(root):
            make_folder(root / INCOMING)
            remove_drafts(root / INCOMING, LEFTOVER_AGE_S)

    def __repr__(self) -> str:
        return f"FolderStore({str(self.root)!r})"

    def put(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, flush: bool = True
    ) -> ObjectInfo:
        """Write a whole object; see ObjectStore. The media type is always that of the key's suffix."""
        self._check_new(key, if_absent)
        check_size(key, len(data))
        if not data and (info := self._create_empty(key, flush=flush)) is not None:
            return info
        with self._draft(key) as (incoming, draft, file):
            write_all(file, data)
            return self._commit(key, incoming, draft, file, len(data), if_absent=if_absent)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        consume: bool = False,
    ) -> ObjectInfo:
        """Write a whole object from a file; see ObjectStore. A consumed file on the store's own disk is not copied."""
        self._check_new(key, if_absent)
        with open(path, "rb", buffering=0) as source:
            found = os.fstat(source.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            check_size(key, found.st_size)
            with self._draft(key) as (incoming, draft, file):
                if consume and move_into_place(path, source.fileno(), found, incoming, draft, file.fileno()):
                    return self._commit(key, incoming, draft, source, found.st_size, if_absent=if_absent)
                left = found.st_size
                while left and (piece := source.read(min(left, COPY_BYTES))):
                    write_all(file, piece)
                    left -= len(piece)
                return self._commit(key, incoming, draft, file, found.st_size, if_absent=if_absent)

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        first, last = check_range(start, end)
        with self._disk_errors(key), os.fdopen(self._open(key), "rb") as file:
            file.seek(first)
            return file.read() if last is None else file.read(last - first)

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        with self._disk_errors(key):
            file = os.fdopen(self._open(key), "rb", buffering=0)

        def pieces() -> Iterator[bytes]:
            with self._disk_errors(key), file:
                while piece := file.read(chunk_bytes):
                    yield piece

        return pieces()

    def head(self, key: str) -> ObjectInfo | None:
        *folders, name = check_key(key).split("/")
        with self._disk_errors(key):
            try:
                with self._folder(*folders) as folder:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _info(key, found) if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        after = check_start(start_after) or ""
        *folders, _ = prefix.split("/")

        def found() -> Iterator[ObjectInfo]:
            base = "".join(f"{folder}/" for folder in folders)
            with (
                self._disk_errors(),
                suppress(FileNotFoundError, NotADirectoryError),
                self._folder(*folders) as top,
            ):
                for key, status in walk(top, base, prefix, after):
                    yield _info(key, status)

        return islice(found(), limit)

    def list_folders(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        check_prefix(prefix, whole_parts=True)
        after = f"{check_start(start_after)}/" if start_after else ""
        folders = prefix.split("/")[:-1]

        def found() -> Iterator[str]:
            with (
                self._disk_errors(),
                suppress(FileNotFoundError, NotADirectoryError),
                self._folder(*folders) as top,
            ):
                for name in scan(top):
                    if name.endswith("/") and name > after and holds_object(top, name[:-1]):
                        yield name[:-1]

        return islice(found(), limit)

    def delete(self, key: str) -> None:
        if self.head(key) is None:
            return
        *folders, name = key.split("/")
        with self._disk_errors(key), suppress(FileNotFoundError, NotADirectoryError):
            with self._folder(*folders) as folder:
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
            while folders:
                # S3 has no empty folders, so neither has this store; rmdir stops at the first folder that is not empty.
                *folders, name = folders
                with self._folder(*folders) as folder:
                    try:
                        os.rmdir(name, dir_fd=folder)
                    except OSError as error:
                        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                            return
                        raise

    def sign(self, key: str, *, expires_s: int, content_type: str | None = None, sha256: str | None = None) -> str:
        """A link that the API serves; see ObjectStore. The media type served is that of the key's suffix."""
        expires = int(time.time()) + check_expiry(expires_s)
        return self._public_url + signing.sign_path(self._secret, check_key(key), expires, sha256)

    def check_link(self, key: str, expires: int | str, signature: str) -> None:
        """Checks a link made by ``sign``. Raises LinkInvalid or LinkExpired."""
        signing.check_signature(self._secret, check_key(key), expires, signature)

    def check(self) -> None:
        with self._disk_errors(), self._folder(INCOMING) as incoming:
            probe = f"{os.getpid()}-{secrets.token_hex(12)}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=incoming))
            os.unlink(probe, dir_fd=incoming)

    def remove_leftovers(self) -> None:
        """Removes abandoned temporary files, as opening the store does. Raises StoreUnavailable."""
        with self._disk_errors():
            remove_drafts(self.root / INCOMING, LEFTOVER_AGE_S)

    def _check_new(self, key: str, if_absent: bool) -> None:
        check_key(key)
        # Nearly always the name is free. One look along the path says so; what it finds, if anything, is then looked up
        # without following links.
        if if_absent and os.path.lexists(os.path.join(self.root, key)) and self.head(key) is not None:
            raise ObjectExists(f"{key} exists already in the store", key=key)

    @contextmanager
    def _draft(self, key: str) -> Iterator[tuple[int, str, FileIO]]:
        """A temporary file for the key: the descriptor of its folder, its name there, and the file."""
        with self._disk_errors(key), self._folder(INCOMING) as incoming, new_draft(incoming) as (draft, file):
            yield incoming, draft, file

    def _commit(self, key: str, incoming: int, draft: str, file: FileIO, size: int, *, if_absent: bool) -> ObjectInfo:
        """Flushes the temporary file ``draft``, open as ``file``, to disk, and moves it to its key."""
        os.fsync(file.fileno())
        info = _info(key, os.fstat(file.fileno()))
        if info.size != size:
            raise OSError(errno.EIO, f"{info.size} of {size} bytes are on the disk")

        def move(folder: int, name: str) -> None:
            if if_absent:
                os.link(draft, name, src_dir_fd=incoming, dst_dir_fd=folder)
            else:
                os.replace(draft, name, src_dir_fd=incoming, dst_dir_fd=folder)

        try:
            self._in_folder_of(key, move)
        except FileExistsError:
            if self.head(key) is None:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key) from None
            raise ObjectExists(f"{key} exists already in the store", key=key) from None
        return info

    def _create_empty(self, key: str, *, flush: bool) -> ObjectInfo | None:
        """Creates an empty object; None if its name is taken.

        It has no bytes that could be half-written or need flushing, so it needs no temporary file.
        """

        def create(folder: int, name: str) -> ObjectInfo:
            descriptor = create_file(name, folder)
            try:
                return _info(key, os.fstat(descriptor))
            finally:
                os.close(descriptor)

        with self._disk_errors(key), suppress(FileExistsError):
            return self._in_folder_of(key, create, flush=flush)
        return None

    def _in_folder_of(self, key: str, change: Callable[[int, str], Made], *, flush: bool = True) -> Made:
        """What ``change`` returns for the key's folder, made if absent, and name; the folder is flushed afterwards.

        ``change`` is called again where another process removed the folder meanwhile.
        """
        *folders, name = key.split("/")
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._folder(*folders, make=True) as folder:
                    made = change(folder, name)
                    if flush:
                        os.fsync(folder)
                    return made
            except FileNotFoundError:
                if attempt == RENAME_ATTEMPTS:
                    raise

    def _open(self, key: str) -> int:
        """A descriptor of the object's file. Raises ObjectNotFound."""
        *folders, name = check_key(key).split("/")
        try:
            with self._folder(*folders) as folder:
                # Non-blocking, so that a named pipe in the folder cannot block the read.
                descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | NO_FOLLOW, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise ObjectNotFound(f"{key} is not in the store", key=key) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectNotFound(f"{key} is not in the store", key=key)
        return descriptor

    def _folder(self, *parts: str, make: bool = False) -> AbstractContextManager[int]:
        return open_folder(self.root, *parts, make=make)

    def _disk_errors(self, key: str = "") -> AbstractContextManager[None]:
        return disk_errors(None, key)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"
    return ObjectInfo(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))
