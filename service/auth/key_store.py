"""The records of all API keys in the object store, so that every API process has the same ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.auth.api_key import (
    NAME_MAX_CHARS,
    ApiKey,
    KeyText,
    is_key_id,
)
from service.errors import InvalidRequest, ObjectNotFound, RecordUnreadable, UnknownApiKey
from service.kit.frozen import parse_stored
from service.kit.tenants import TENANT_FORM, is_tenant
from service.kit.validation import UNPRINTABLE, truncated_repr, unprintable
from service.store import keys
from service.store.base import ObjectStore

REVOCATION_DELAY_S = 10.0
"""Seconds for which an API process remembers a record: a revoked key may be accepted for as long."""


_log = logging.getLogger("twinset.auth")


@dataclass(frozen=True)
class KeyStore:
    """The API keys in ``store``."""

    store: ObjectStore
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def create(
        self, tenant: str, *, name: str | None = None, expires_in: timedelta | None = None
    ) -> tuple[KeyText, ApiKey]:
        """A new key for ``tenant``, and its record. The key's text is stored nowhere.

        Raises :class:`InvalidRequest` for an invalid tenant or name.
        """
        if not is_tenant(tenant):
            raise InvalidRequest(f"the tenant is {truncated_repr(tenant)}; a tenant's name is {TENANT_FORM}")
        if name is not None and (len(name) > NAME_MAX_CHARS or unprintable(name)):
            why = (
                UNPRINTABLE
                if unprintable(name)
                else f"it has {len(name)} characters; at most {NAME_MAX_CHARS} are kept"
            )
            raise InvalidRequest(f"the name is {truncated_repr(name)}: {why}")
        key, moment = KeyText.new(), self.now()
        record = ApiKey(
            id=key.id,
            tenant=tenant,
            name=name,
            secret_sha256=key.sha256(),
            created_at=moment,
            expires_at=None if expires_in is None else moment + expires_in,
        )
        self.store.put(keys.api_key(key.id), record.model_dump_json().encode(), if_absent=True)
        return key, record

    def find(self, key_id: str) -> ApiKey | None:
        """The key of this id, in any state; None if there is none, or ``key_id`` is not an id."""
        if not is_key_id(key_id):
            return None
        try:
            text = self.store.get(keys.api_key(key_id))
        except ObjectNotFound:
            return None
        return parse_stored(ApiKey, text, keys.api_key(key_id), id=key_id)

    def list(self) -> Iterator[ApiKey]:
        """All keys, in the order of their ids, without those whose records cannot be read."""
        for key_id in self.ids():
            try:
                record = self.find(key_id)
            except RecordUnreadable as error:
                _log.warning("%s", error.detail)
                continue
            if record is not None:
                yield record

    def any(self) -> bool:
        """Whether there is a key, valid or not: revoking the last one must not open the API."""
        return next(self.ids(), None) is not None

    def revoke(self, key_id: str) -> ApiKey:
        """Revokes the key for good, and returns its record. Revoking again changes nothing.

        Raises :class:`UnknownApiKey`.
        """
        record = self.find(key_id)
        if record is None:
            # The text may be a whole key, so the message does not repeat it.
            raise UnknownApiKey(
                "no API key has this id; 'twinset keys list' shows the ids, which are the 12 characters after tws_"
            )
        if record.revoked_at is None:
            record = record.model_copy(update={"revoked_at": self.now()})
            self.store.put(keys.api_key(key_id), record.model_dump_json().encode())
        return record

    def ids(self) -> Iterator[str]:
        """The ids of all keys."""
        prefix = keys.api_keys_prefix()
        for info in self.store.list(prefix):
            key_id = info.key[len(prefix) :].removesuffix(".json")
            if is_key_id(key_id):
                yield key_id
