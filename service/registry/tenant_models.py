"""What a tenant does with its models: aliases, shares, promotion and deletion, checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.errors import InvalidRequest, ModelConflict, UnknownAlias, UnknownModel
from service.kit.tenants import TENANT_FORM, is_tenant
from service.kit.validation import UNPRINTABLE, truncated_repr, unprintable
from service.registry.aliases import MAX_WHY_CHARS, AliasEntry, Aliases
from service.registry.catalogue import Catalogue
from service.registry.deletion import delete_version
from service.registry.entries import CatalogueEntry
from service.registry.references import ALIAS_FORM, is_alias, is_model_name, parse_reference
from service.registry.registration import Registration, is_deleted
from service.registry.shares import Share, Shares
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once

MAX_SHARED_AT_ONCE = 100


@dataclass(frozen=True)
class TenantModels:
    """The models of ``tenant``; None is the operator, who has those of all tenants. ``by`` is the id of an API key."""

    store: ObjectStore
    catalogue: Catalogue
    tenant: str | None
    by: str | None = None

    @property
    def aliases(self) -> Aliases:
        """The tenant's aliases."""
        return Aliases(self.store, self.tenant)

    def move_alias(self, name: str, alias: str, version: str, why: str | None) -> list[AliasEntry]:
        """Has an alias stand for a version from now on; its history.

        The model is the tenant's own or one of all tenants. Raises :class:`InvalidRequest` for words that are not
        valid, and :class:`UnknownModel`.
        """
        self._check_name(name)
        _check_alias(alias)
        _check_why(why)
        entry = self.catalogue.find(f"{name}@{version}", tenant=self.tenant)
        if entry.card.version != version:
            raise UnknownModel(f"{truncated_repr(version)} is no version; an alias stands for one such as 1.2.0")
        former = self.aliases.version(name, alias)
        self.aliases.move(name, alias, version, why=why, by=self.by)
        if entry.registration is not None and is_deleted(self.store, entry.owner, name, version):
            # A deletion looks for aliases after it has written its mark, and this looks for the mark after the alias.
            self.aliases.move(name, alias, former, why=f"{name}@{version} was deleted at the same moment", by=self.by)
            raise UnknownModel(f"model {name}@{version} was deleted a moment ago; choose another version")
        return self.aliases.history(name, alias)

    def alias_history(self, name: str, alias: str) -> list[AliasEntry]:
        """The changes of an alias, also of a deleted one, oldest first. Raises :class:`UnknownAlias`."""
        found = self.aliases.history(name, alias) if is_model_name(name) and is_alias(alias) else []
        if not found:
            raise self._unknown_alias(name, alias)
        return found

    def delete_alias(self, name: str, alias: str, why: str | None) -> None:
        """Deletes an alias; its history stays. Raises :class:`UnknownAlias`."""
        _check_why(why)
        if self.alias_history(name, alias)[-1].version is None:
            raise self._unknown_alias(name, alias)
        self.aliases.move(name, alias, None, why=why, by=self.by)

    def shares(self, name: str) -> list[Share]:
        """With whom the tenant shares the model. Raises what :meth:`share` does."""
        return Shares(self.store).of_model(self._own_name(name), name)

    def share(self, name: str, tenants: Sequence[str], *, with_all: bool) -> list[Share]:
        """Shares the model with these tenants, or with all; its shares then.

        Raises :class:`InvalidRequest` for words that are not valid, :class:`UnknownModel`, and :class:`ModelConflict`
        if the model is not the tenant's own.
        """
        owner, shares = self._own_name(name), Shares(self.store)
        for tenant in self._grantees(owner, tenants, with_all):
            shares.add(owner, name, tenant, by=self.by)
        self.catalogue.expire_shares()
        return shares.of_model(owner, name)

    def unshare(self, name: str, tenants: Sequence[str], *, with_all: bool) -> list[Share]:
        """Ends shares of the model; those that are left. What was accepted before keeps working."""
        owner, shares = self._own_name(name), Shares(self.store)
        for tenant in self._grantees(owner, tenants, with_all):
            shares.revoke(owner, name, tenant)
        self.catalogue.expire_shares()
        return shares.of_model(owner, name)

    def promote(self, ref: str) -> CatalogueEntry:
        """Has a bare name choose the version from now on if it is the newest. Promoting again changes nothing.

        Raises :class:`UnknownModel`, and :class:`ModelConflict` if the model is not the tenant's own.
        """
        record = self._own_version(ref)
        name, version = record.card.name, record.card.version
        text = json.dumps({"format": 1, "promoted_at": datetime.now(UTC).isoformat(), "promoted_by": self.by})
        put_once(self.store, model_keys.promotion(self.tenant, name, version), text.encode())
        self.catalogue.expire(self.tenant)
        return self.catalogue.find(record.model, tenant=self.tenant)

    def delete(self, ref: str) -> Registration:
        """Deletes a version; its record.

        Raises :class:`UnknownModel`, and :class:`ModelConflict` if the model is not the tenant's own, or is needed.
        """
        record = self._own_version(ref)
        try:
            delete_version(self.store, self.tenant, record.card.name, record.card.version, by=self.by)
        finally:
            self.catalogue.expire(self.tenant)
        return record

    def _own_version(self, ref: str) -> Registration:
        """The record of the tenant's own ``name@version``."""
        found = parse_reference(ref)
        if found is not None and found.version is None:
            raise InvalidRequest(
                f"{truncated_repr(ref)} names no version; write it as {found.name}@1.2.0",
                errors=[{"parameter": "model", "in": "path", "detail": "no version"}],
            )
        entry = self.catalogue.find(ref, tenant=self.tenant)
        if entry.owner != self.tenant or entry.registration is None:
            raise self._not_own(entry)
        return entry.registration

    def _own_name(self, name: str) -> str:
        """The tenant, if it has a model of this name."""
        self._check_name(name)
        if self.tenant is None:
            raise ModelConflict(f"model {name} is one of all tenants already; share those of a tenant, with --tenant")
        entry = next((each for each in self.catalogue.entries(tenant=self.tenant) if each.card.name == name), None)
        if entry is None or entry.owner != self.tenant:
            entry = self.catalogue.find(name, tenant=self.tenant)  # raises for an unknown one
        if entry.owner != self.tenant:
            raise self._not_own(entry)
        return self.tenant

    def _not_own(self, entry: CatalogueEntry) -> ModelConflict:
        if entry.owner == self.tenant:
            return ModelConflict(
                f"model {entry.card.id} is bundled, or in the former layout of the store; it stays as it is"
            )
        whose = "of all tenants" if entry.owner is None else f"of tenant {entry.owner!r}"
        return ModelConflict(f"model {entry.card.id} is {whose}; only who registered it can change it")

    def _check_name(self, name: str) -> None:
        if not is_model_name(name):
            raise UnknownModel(
                f"{truncated_repr(name)} is not the name of a model; give it alone, without owner, version or alias"
            )

    def _unknown_alias(self, name: str, alias: str) -> UnknownAlias:
        return UnknownAlias(
            f"model {truncated_repr(name)} has no alias {truncated_repr(alias)}; GET /models/{{name}} lists them"
        )

    def _grantees(self, owner: str, tenants: Sequence[str], with_all: bool) -> list[str | None]:
        wrong = [each for each in tenants if not is_tenant(each)]
        detail = None
        if wrong:
            detail = f"{truncated_repr(wrong[0])} is not the name of a tenant; it has {TENANT_FORM}"
        elif owner in tenants:
            detail = f"{owner!r} is the model's own tenant; name others"
        elif bool(tenants) == with_all:
            detail = "name tenants, or all of them, and not both"
        elif len(tenants) > MAX_SHARED_AT_ONCE:
            detail = f"{len(tenants)} tenants are named; at most {MAX_SHARED_AT_ONCE} may be, so send more requests"
        if detail is not None:
            raise InvalidRequest(detail, errors=[{"pointer": "/tenants", "detail": detail}])
        return [None] if with_all else list(dict.fromkeys(tenants))


def _check_alias(alias: str) -> None:
    if not is_alias(alias):
        detail = f"alias is {truncated_repr(alias)}; it must be {ALIAS_FORM}, so that it never looks like a version"
        raise InvalidRequest(detail, errors=[{"parameter": "alias", "in": "path", "detail": detail}])


def _check_why(why: str | None) -> None:
    detail = None
    if why is not None and len(why) > MAX_WHY_CHARS:
        detail = f"why has {len(why)} characters; at most {MAX_WHY_CHARS} are kept, shorten it"
    elif why is not None and unprintable(why):
        detail = f"why: {UNPRINTABLE}"
    if detail is not None:
        raise InvalidRequest(detail, errors=[{"pointer": "/why", "detail": detail}])
