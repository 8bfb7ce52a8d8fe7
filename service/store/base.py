"""The protocol of an object store: keys, bytes, conditional writes, ordered listings and signed links.

A folder store and an S3 store implement it, and one contract test checks both. Both are safe to use from many threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from service.errors import ObjectTooLarge

MAX_LINK_S = 604_800
"""A week: the longest life of a presigned URL on S3, so the longest of any link."""
MAX_OBJECT_BYTES = 5 << 30
"""5 GiB: the maximum that S3 accepts in one request, so the maximum size of an object in any store."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object: ``size`` in bytes, ``modified`` in UTC, an opaque ``etag`` that changes with the bytes."""

    key: str
    size: int
    etag: str
    modified: datetime


@runtime_checkable
class ObjectStore(Protocol):
    """An object store. Keys have the form that :func:`service.store.keys.check_key` allows; others raise InvalidKey.

    Every method may raise StoreUnavailable, whose message names the store and the remedy.
    """

    def put(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, flush: bool = True
    ) -> ObjectInfo:
        """Write a whole object, durably; readers see all of the old one or all of the new.

        With ``if_absent``, exactly one of any number of racing writers wins; the others get ObjectExists.
        ``content_type`` defaults to the one that belongs to the key's suffix. With ``flush=False`` a new, empty object
        need not be on the disk yet: it outlives the process, but a power cut may take it back.
        """
        ...

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        consume: bool = False,
    ) -> ObjectInfo:
        """Write a whole object from a file, as :meth:`put` does, without reading it into memory whole.

        With ``consume`` the store may move the file instead of copying it: nobody may write to it any more, and it may
        be gone afterwards, also after a failure. Otherwise it stays. Raises OSError
        where the file cannot be read, and ObjectTooLarge beyond :data:`MAX_OBJECT_BYTES`.
        """
        ...

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those in ``[start, end)`` that exist. Raises ObjectNotFound."""
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        """The object's bytes in pieces of at most ``chunk_bytes``, never whole in memory.

        All pieces are of one version of the object. Raises ObjectNotFound at the call already.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size, etag and time without reading it; None where there is no object."""
        ...

    def list(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Objects whose keys start with the string ``prefix``, in the order of their keys' UTF-8 bytes.

        Only keys after ``start_after`` (a key, or any string), at most ``limit`` of them.
        """
        ...

    def list_folders(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """The "folders" right below ``prefix``, which is '' or ends in '/': the next part of every longer key.

        Given ``jobs/a/spec.json`` and ``jobs/b/spec.json``, ``list_folders("jobs/")`` yields ``a`` and ``b``;
        in the order of the UTF-8 bytes of ``name + "/"``, so that paging by ``start_after`` (a name) yields
        each once.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        ...

    def sign(self, key: str, *, expires_s: int, content_type: str | None = None, sha256: str | None = None) -> str:
        """A URL that anyone may GET for ``expires_s`` seconds, 1 to MAX_LINK_S. The object itself is not checked.

        Where the API serves the link, it serves no other bytes than those with ``sha256``.
        """
        ...

    def check(self) -> None:
        """Raise StoreUnavailable unless the store answers; for readiness probes, so cheap."""
        ...


def check_size(key: str, size: int) -> int:
    """``size``, if an object may have as many bytes. Raises ObjectTooLarge."""
    if size > MAX_OBJECT_BYTES:
        raise ObjectTooLarge(
            f"{key} would have {size} bytes; the maximum is {MAX_OBJECT_BYTES}, so divide it",
            key=key,
            size=size,
            max=MAX_OBJECT_BYTES,
        )
    return size


def check_range(start: int | None, end: int | None) -> tuple[int, int | None]:
    """A byte range as ``(start, end)`` with its start filled in. Raises ValueError for an invalid range."""
    first = 0 if start is None else start
    if first < 0 or (end is not None and end < first):
        raise ValueError(f"byte range [{start}, {end}) is not valid: it needs 0 <= start <= end")
    return first, end


def check_expiry(expires_s: int) -> int:
    """The life of a link in seconds. Raises ValueError outside 1 to MAX_LINK_S."""
    if not 1 <= expires_s <= MAX_LINK_S:
        raise ValueError(f"a link may live 1 to {MAX_LINK_S} s, not {expires_s}")
    return int(expires_s)
