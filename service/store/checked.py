"""Reads and writes with checksums: wrong bytes are read again, and never returned if they stay wrong."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from typing import IO

from service.errors import ObjectDamaged
from service.store import keys
from service.store.base import ObjectStore

READS = 3
"""How often an object is read before a wrong hash counts as damage."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_PIECE_BYTES = 1 << 20


def read_checked(
    store: ObjectStore, key: str, sha256: str, *, start: int | None = None, end: int | None = None
) -> bytes:
    """The object's bytes, or those in ``[start, end)``, if they have the hash ``sha256``.

    They are read into memory whole, so that no reader gets a first half before the second turns out wrong. Raises
    :class:`ObjectDamaged`, or what the store raises.
    """
    for attempt in range(READS):
        if attempt:
            pause(attempt)
        data = store.get(key, start=start, end=end)
        found = hashlib.sha256(data).hexdigest()
        if found == sha256:
            return data
    what = (
        key if start is None and end is None else f"{key} (bytes {start or 0} to {'its end' if end is None else end})"
    )
    job = keys.job_of_twin(key)
    remedy = "restore it" if job is None else f"POST /jobs/{job}/repair makes it again"
    raise ObjectDamaged(
        f"{what} in the object store has sha256 {found}, but was recorded with {sha256}; it is damaged; {remedy}",
        key=key,
    )


def checked_pieces(pieces: Iterator[bytes], sha256: str, *, key: str, where: str) -> Iterator[bytes]:
    """The pieces; the last one only if all of them have the hash ``sha256``, else raises :class:`ObjectDamaged`."""
    found = hashlib.sha256()
    held = b""
    for piece in pieces:
        found.update(piece)
        if held:
            yield held
        held = piece
    if found.hexdigest() != sha256:
        raise ObjectDamaged(
            f"{key} in {where} was read with sha256 {found.hexdigest()}, but stored with {sha256}; "
            "read it again, and restore it if that does not help",
            key=key,
        )
    if held:
        yield held


def pause(attempt: int) -> None:
    """Waits before try ``attempt`` + 1: longer each time, and at random, so that clients do not retry all at once."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)))


def content_md5(data: bytes) -> str:
    """The ``Content-MD5`` of ``data``, which S3 compares with the bytes that arrive."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def file_digests(file: IO[bytes]) -> tuple[str, str]:
    """The sha256 in hex and the ``Content-MD5`` of the rest of a file, read in pieces."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    while piece := file.read(_PIECE_BYTES):
        sha256.update(piece)
        md5.update(piece)
    return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()
