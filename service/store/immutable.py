"""Immutable objects: written once, under keys that carry the hash of their bytes, and counted by a record.

Workers of different machines make different bytes of the same sample, shard or file. If two attempts shared a key, the
later write, perhaps of a worker that was stopped past its lease, would change what a record counts. So the key of every
object that a record counts has the first digits of its sha256 (:func:`service.store.keys.attempt`): two attempts share
a key only if they made the same bytes. Records name the keys that count, and are themselves created only if absent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field

from service.errors import ObjectDamaged, ObjectExists, ObjectNotFound
from service.kit.frozen import SHA256_PATTERN, _Frozen
from service.store.base import ObjectStore
from service.store.keys import with_attempt


class StoredObject(_Frozen):
    """A whole object as a record counts it."""

    key: str
    sha256: str = Field(pattern=SHA256_PATTERN)
    bytes: int = Field(ge=0)

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]


def put_immutable(store: ObjectStore, stored: StoredObject, body: bytes | Path, *, consume: bool = False) -> None:
    """Writes the object unless it is in the store. ``body``: its bytes, or their file, which ``consume`` may move.

    An object of this key has the same bytes, so a whole one counts as written, and a torn one is overwritten. Raises
    the store's error; the call may then be repeated.
    """
    try:
        _put(store, stored.key, body, if_absent=True, consume=consume)
    except ObjectExists:
        # a store that finds the key taken before it moves the file leaves it where it is
        if not is_intact(store, stored):
            _put(store, stored.key, body, if_absent=False, consume=consume)


def put_attempt(store: ObjectStore, key: str, data: bytes) -> StoredObject:
    """Writes the bytes under ``key`` with their attempt, as :func:`put_immutable` does; the object, for a record."""
    sha256 = hashlib.sha256(data).hexdigest()
    stored = StoredObject(key=with_attempt(key, sha256), sha256=sha256, bytes=len(data))
    put_immutable(store, stored, data)
    return stored


def put_once(store: ObjectStore, key: str, data: bytes) -> bool:
    """Writes a record unless the key is taken; whether this call wrote it."""
    try:
        store.put(key, data, if_absent=True)
    except ObjectExists:
        return False
    return True


def is_intact(store: ObjectStore, stored: StoredObject) -> bool:
    """Whether the object is in the store with its recorded bytes, which are read piece by piece."""
    info = store.head(stored.key)
    if info is None or info.size != stored.bytes:
        return False
    found = hashlib.sha256()
    try:
        for piece in store.stream(stored.key):
            found.update(piece)
    except (ObjectDamaged, ObjectNotFound):
        return False
    return found.hexdigest() == stored.sha256


def _put(store: ObjectStore, key: str, body: bytes | Path, *, if_absent: bool, consume: bool) -> None:
    if isinstance(body, bytes):
        store.put(key, body, if_absent=if_absent)
    else:
        store.put_file(key, body, if_absent=if_absent, consume=consume)
