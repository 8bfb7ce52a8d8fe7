"""Errors of the operating system in a folder store, as the store's errors with object, folder and remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import InvalidKey, StoreUnavailable, TwinsetError
from service.store.folder_walk import NotAFolder

_REMEDIES = {
    errno.ENOSPC: "free some space, or set TWINSET_STORE_URL to a larger disk",
    errno.EDQUOT: "free some space, or set TWINSET_STORE_URL to a larger disk",
    errno.EACCES: "let this user write there, or set TWINSET_STORE_URL to a folder of its own",
    errno.EPERM: "let this user write and hard-link there, or set TWINSET_STORE_URL to a folder of its own",
    errno.EROFS: "set TWINSET_STORE_URL to a folder on a disk that can be written",
    errno.ENOTSUP: "its filesystem lacks hard links; set TWINSET_STORE_URL to a folder on another",
    errno.ENOTDIR: "set TWINSET_STORE_URL to a folder",
    errno.EEXIST: "set TWINSET_STORE_URL to a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def disk_errors(root: Path | None, key: str = "") -> Iterator[None]:
    """Turns OSErrors about the object ``key`` into InvalidKey or StoreUnavailable.

    The messages name the folder ``root`` where a store is opened. Later ones reach clients of the API, which need not
    know the server's folders.
    """
    where = "the store" if root is None else f"the store in {root}"
    try:
        yield
    except TwinsetError:
        raise
    except NotAFolder as error:
        what = "a symbolic link, which the store does not follow" if error.is_link else "an object, not a folder"
        raise InvalidKey(f"{key} cannot be stored: in {where}, {error.name!r} is {what}", key=key) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidKey(f"{key} is a symbolic link in {where}, which follows no links", key=key) from error
        if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
            raise InvalidKey(f"{key} is a folder in {where}; an object needs another name", key=key) from error
        remedy = _REMEDIES.get(error.errno or 0, "look at the disk")
        raise StoreUnavailable(f"{where} failed: {error.strerror or error}; {remedy}") from error
