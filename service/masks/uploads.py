"""Files that were sent, kept under the sha256 of their bytes: sent twice, they are there once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from service.errors import ObjectNotFound, StoreError
from service.store import keys
from service.store.base import ObjectStore


@dataclass(frozen=True)
class Uploads:
    """The files of ``tenant`` in ``store``."""

    store: ObjectStore
    tenant: str

    def of(self, tenant: str) -> Uploads:
        """Those of another tenant."""
        return replace(self, tenant=tenant)

    def keep(self, data: bytes) -> str:
        """Stores the file; its id. Storing it again changes nothing, and mends it if it was damaged."""
        upload = upload_id(data)
        self.store.put(keys.upload(self.tenant, upload), data)
        return upload

    def get(self, upload: str) -> bytes | None:
        """The file, or None if there is none of this id. Raises :class:`StoreError` if it is no longer what was
        sent."""
        key = keys.upload(self.tenant, upload)
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
