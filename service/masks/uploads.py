"""Uploaded files, stored under the sha256 of their bytes: a file that is sent twice is stored once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from service.errors import ObjectNotFound, StoreError
from service.store import keys
from service.store.base import ObjectStore


@dataclass(frozen=True)
class Uploads:
    """The uploaded files in ``store``. Each tenant sees only its own."""

    store: ObjectStore

    def put(self, data: bytes, *, tenant: str) -> str:
        """Stores the file and returns its id. Storing it again changes nothing, and repairs a damaged copy."""
        upload = upload_id(data)
        self.store.put(keys.upload(tenant, upload), data)
        return upload

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
