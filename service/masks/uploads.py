"""Files that were sent, kept under the sha256 of their bytes: sent twice, they are there once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from service.errors import ObjectNotFound, StoreError
from service.store import keys
from service.store.base import ObjectStore


@dataclass(frozen=True)
class Uploads:
    """The files that tenants have sent, in ``store``. Each tenant has its own."""

    store: ObjectStore

    def put(self, data: bytes, *, tenant: str) -> str:
        """Stores the file; its id. Storing it again changes nothing, and mends it if it was damaged."""
        upload = upload_id(data)
        self.store.put(keys.upload(tenant, upload), data)
        return upload

    def get(self, upload: str, *, tenant: str) -> bytes | None:
        """The file, or None if there is none of this id. Raises :class:`StoreError` if it is no longer what was
        sent."""
        key = keys.upload(tenant, upload)
        try:
            data = self.store.get(key)
        except ObjectNotFound:
            return None
        if upload_id(data) != upload:
            raise StoreError(f"{key} is not what was sent; it is damaged. Send the file again by POST /uploads")
        return data


def upload_id(data: bytes) -> str:
    """The id of a file: its sha256 in hex."""
    return hashlib.sha256(data).hexdigest()
