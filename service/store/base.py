"""What an object store is to Twinset: keys, bytes, conditional writes, ordered listings and signed links.

A folder and S3 both are one, and one contract test holds both. Both may be used from many threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from service.errors import ObjectTooLarge

LONGEST_LINK_S = 604_800
"""A week: the longest life S3 gives a presigned URL, so the longest anywhere."""
MAX_OBJECT_BYTES = 5 << 30
"""5 GiB: the most S3 takes in one request, so the most an object has anywhere."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object: ``size`` in bytes, ``modified`` in UTC, an opaque ``etag`` that changes with the bytes."""

    key: str
    size: int
    etag: str
    modified: datetime


@runtime_checkable
class ObjectStore(Protocol):
    """Keys are as :func:`service.store.keys.check_key` allows; any other raises InvalidKey.

    Every method may raise StoreUnavailable, whose message names the store and the remedy.
    """

    def put(self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False) -> ObjectInfo:
        """Write a whole object, durably; readers see all of the old one or all of the new.

        With ``if_absent``, exactly one of any number of racing writers wins; the others get ObjectExists.
        ``content_type`` defaults to the one that belongs to the key's suffix.
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
        """Write a whole object from a file, as :meth:`put` does, and never whole in memory.

        With ``consume`` the file is given away: the store may take it as it is instead of copying it, so nobody may
        write to it any more, and it may be gone afterwards, also after a failure; otherwise it stays. Raises OSError
        where the file cannot be read, and ObjectTooLarge beyond :data:`MAX_OBJECT_BYTES`.
        """
        ...

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those in ``[start, end)`` as far as it goes. Raises ObjectNotFound."""
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        """The object's bytes in pieces of at most ``chunk_bytes``, never whole in memory.

        All pieces are of one version of the object. Raises ObjectNotFound at the call already.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object without reading it; None where there is none."""
        ...

    def list(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Objects whose keys start with the string ``prefix``, in the order of their keys' UTF-8 bytes.

        Only keys after ``start_after`` (a key, or any string), at most ``limit`` of them.
        """
        ...

    def list_folders(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """The "folders" right below ``prefix``, which is '' or ends in '/': next parts of keys that go on.

        Given ``jobs/a/spec.json`` and ``jobs/b/spec.json``, ``list_folders("jobs/")`` yields ``a`` and ``b``;
        in the order of the UTF-8 bytes of ``name + "/"``, so that paging by ``start_after`` (a name) meets
        each once.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        ...

    def sign(self, key: str, *, expires_s: int, content_type: str | None = None, sha256: str | None = None) -> str:
        """A URL that anyone may GET for ``expires_s`` seconds, 1 to LONGEST_LINK_S; no look at the object.

        Where we serve the link ourselves, other bytes than those with ``sha256`` are not served by it.
        """
        ...

    def check(self) -> None:
        """Raise StoreUnavailable unless the store answers; for readiness probes, so cheap."""
        ...


def check_size(key: str, size: int) -> int:
    """A size in bytes that an object may have. Raises ObjectTooLarge."""
    if size > MAX_OBJECT_BYTES:
        raise ObjectTooLarge(
            f"{key} would have {size} bytes; an object has {MAX_OBJECT_BYTES} at most, so it has to be divided",
            key=key,
            size=size,
            most=MAX_OBJECT_BYTES,
        )
    return size


def check_range(start: int | None, end: int | None) -> tuple[int, int | None]:
    """A byte range as ``(start, end)`` with its start filled in. Raises ValueError where it is none."""
    first = 0 if start is None else start
    if first < 0 or (end is not None and end < first):
        raise ValueError(f"byte range [{start}, {end}) is none: it needs 0 <= start <= end")
    return first, end


def check_expiry(expires_s: int) -> int:
    """The life of a link in seconds. Raises ValueError outside 1 to LONGEST_LINK_S."""
    if not 1 <= expires_s <= LONGEST_LINK_S:
        raise ValueError(f"a link may live 1 to {LONGEST_LINK_S} s, not {expires_s}")
    return int(expires_s)
