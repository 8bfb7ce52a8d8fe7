"""Shares of models: with one tenant or with all, by name, so with every version that is not a candidate.

The record under ``shares/by/`` decides; the one under ``shares/with/`` lets a tenant list what is shared with it, and
is written before and removed after. Jobs and sets that were accepted keep working when a share is revoked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime

from service.errors import ObjectNotFound, RecordUnreadable
from service.kit.frozen import _Frozen, parse_stored
from service.kit.tenants import is_tenant
from service.registry.references import is_model_name
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once


class Share(_Frozen):
    """A share. ``tenant`` may use the model; None stands for all tenants."""

    format: Literal[1] = 1
    tenant: str | None
    shared_at: AwareDatetime
    shared_by: str | None


@dataclass(frozen=True)
class Shares:
    """The shares in ``store``."""

    store: ObjectStore

    def add(self, owner: str, name: str, tenant: str | None, *, by: str | None) -> None:
        """Shares the model with a tenant, or with all. Sharing again changes nothing."""
        share = Share(tenant=tenant, shared_at=datetime.now(UTC), shared_by=by)
        self.store.put(model_keys.share_with(tenant, owner, name), b"")
        put_once(self.store, model_keys.share_by(owner, name, tenant), share.model_dump_json().encode())

    def revoke(self, owner: str, name: str, tenant: str | None) -> bool:
        """Ends the share; whether there was one."""
        key = model_keys.share_by(owner, name, tenant)
        shared = self.store.head(key) is not None
        self.store.delete(key)
        self.store.delete(model_keys.share_with(tenant, owner, name))
        return shared

    def allows(self, owner: str, name: str, tenant: str | None) -> bool:
        """Whether ``tenant`` may use the model of another tenant."""
        grantees = [None] if tenant is None else [tenant, None]
        return any(self.store.head(model_keys.share_by(owner, name, each)) is not None for each in grantees)

    def of_model(self, owner: str, name: str) -> list[Share]:
        """The model's shares, that with all tenants first; those that cannot be read are left out."""
        found = []
        for info in self.store.list(model_keys.shares_by_prefix(owner, name)):
            try:
                found.append(parse_stored(Share, self.store.get(info.key), info.key))
            except (ObjectNotFound, RecordUnreadable):
                continue
        return found

    def with_tenant(self, tenant: str) -> Iterator[tuple[str, str]]:
        """Owner and name of the models that other tenants share with ``tenant``."""
        seen = set()
        for grantee in (tenant, None):
            prefix = model_keys.shares_with_prefix(grantee)
            for info in self.store.list(prefix):
                owner, _, name = info.key[len(prefix) :].partition("/")
                if owner == tenant or not is_tenant(owner) or not is_model_name(name) or (owner, name) in seen:
                    continue
                seen.add((owner, name))
                # a share that is being revoked may still be listed
                if self.store.head(model_keys.share_by(owner, name, grantee)) is not None:
                    yield owner, name
