"""Uploaded files, stored under the sha256 of their bytes: a file that is sent twice is stored once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import ObjectNotFound, StoreError
from service.store import keys
from service.store.base import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Uploads:
    """The uploaded files in ``store``. Each tenant sees only its own."""

    store: ObjectStore

    def put(self, data: bytes, *, tenant: str) -> str:
        """Stores the file and returns its id. Storing it again changes nothing, and repairs a damaged copy."""
        upload = upload_id(data)
        self.store.put(keys.upload(tenant, upload), data)
        return upload

    def delete(self, upload: str, *, tenant: str) -> int | None:
        """Deletes the file; its size in bytes, or None if there is none with this id. Jobs keep the masks they were
        given."""
        if not is_upload_id(upload):
            return None
        key = keys.upload(tenant, upload)
        info = self.store.head(key)
        if info is None:
            return None
        self.store.delete(key)
        return info.size

    def list(self, *, tenant: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """The files, by their ids, those after ``start_after`` only; a file's id is its key's last part."""
        after = None if start_after is None else keys.upload(tenant, start_after)
        return self.store.list(keys.uploads_prefix(tenant), start_after=after)

    def get(self, upload: str, *, tenant: str) -> bytes | None:
        """The file, or None if there is none with this id. Raises :class:`StoreError` if the stored file is damaged."""
        key = keys.upload(tenant, upload)
        try:
            data = self.store.get(key)
        except ObjectNotFound:
            return None
        if upload_id(data) != upload:
            raise StoreError(
                f"{key} is damaged: its bytes do not have this sha256; send the file again by POST /uploads"
            )
        return data


def upload_id(data: bytes) -> str:
    """The id of a file: its sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def is_upload_id(text: str) -> bool:
    """Whether ``text`` has the form of a file's id."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
