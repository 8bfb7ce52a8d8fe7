"""The catalogue of the models that a tenant can use: its own, those of all tenants, and those shared with it.

A registered card never changes, so each is read once; what there is gets listed again every few seconds. A tenant's own
name comes before one of all tenants: registration refuses names that are taken, so this only decides where the operator
adds a model later, and what a name means for the tenant stays what it was. Models of other tenants are named with their
owner, so they hide nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from model_store import bundled_folder
from model_store.card import ModelCard
from service.errors import CardError, UnknownModel
from service.kit.validation import closest_match, join_list
from service.registry.aliases import Aliases
from service.registry.common_models import CommonModels
from service.registry.entries import CatalogueEntry, OwnerListing, newest_first
from service.registry.references import ModelReference, is_alias, parse_reference, split_key
from service.registry.registration import read_registration
from service.registry.shares import Shares
from service.store.base import ObjectStore

_FORCED_REFRESH_S = 1.0
_MAX_NAMED = 100


class Catalogue:
    """The models of all tenants, by reference. May be used from many threads.

    ``tenant`` is who asks; None asks for the models of all tenants alone.
    """

    def __init__(self, store: ObjectStore, *, bundled: Path | None = None, refresh_s: float = 10.0) -> None:
        self._store = store
        self._refresh_s = refresh_s
        self._common = CommonModels(store, bundled_folder() if bundled is None else bundled)
        self._owners: dict[str, OwnerListing] = {}
        self._shared: dict[str, tuple[float, list[tuple[str, str]]]] = {}
        self._lock = threading.Lock()

    def cards(self, *, tenant: str | None) -> tuple[ModelCard, ...]:
        """The cards of :meth:`entries`."""
        return tuple(entry.card for entry in self.entries(tenant=tenant))

    def entries(self, *, tenant: str | None) -> tuple[CatalogueEntry, ...]:
        """All models that ``tenant`` can use, candidates too: by name, newest version first; shared ones last."""
        self._refresh(tenant, self._refresh_s)
        own = self._own(tenant)
        names = {**self._common.entries, **own}
        found = [entry for name in sorted(names) for entry in newest_first(names[name])]
        return (*found, *self._shared_entries(tenant))

    def versions(self, entry: CatalogueEntry, *, tenant: str | None) -> tuple[CatalogueEntry, ...]:
        """The versions of the entry's model that ``tenant`` can use, newest first."""
        if entry.owner is None:
            return tuple(newest_first(self._common.entries.get(entry.card.name, {})))
        versions = newest_first(self._listing(entry.owner).entries.get(entry.card.name, {}))
        return tuple(each for each in versions if entry.owner == tenant or not each.candidate)

    def resolve(self, ref: str, *, tenant: str | None) -> ModelCard:
        """The card of :meth:`find`."""
        return self.find(ref, tenant=tenant).card

    def find(self, ref: str, *, tenant: str | None) -> CatalogueEntry:
        """The model that ``name`` (its newest version), ``name@version`` or ``name@alias`` stands for.

        ``owner:`` before it names a model that another tenant shares. Raises :class:`UnknownModel`, with the same
        words for a model that does not exist and for one that ``tenant`` may not use, or :class:`CardError` if the
        model's record is broken.
        """
        reference = parse_reference(ref)
        if reference is None:
            raise self._unknown(ref, tenant)
        for age_s in (self._refresh_s, _FORCED_REFRESH_S):  # it may have been registered a moment ago
            self._refresh(tenant, age_s)
            entry = self._find(reference, tenant, age_s)
            if entry is not None:
                return entry
        self._raise_if_broken(reference, tenant)
        raise self._unknown(ref, tenant)

    def pinned(self, key: str) -> CatalogueEntry:
        """The model of a job or a set that was accepted, by its key: also after a share was revoked or it was deleted.

        Raises :class:`UnknownModel`, or what reading its record raises.
        """
        owner, name, version = split_key(key)
        if owner is None:
            self._refresh(None, self._refresh_s)
            if (entry := self._common.entries.get(name, {}).get(version)) is not None:
                return entry
        else:
            listed = self._listing(owner).entries.get(name, {}).get(version)
            if listed is not None:
                return listed
        registration = read_registration(self._store, owner, name, version)
        if registration is not None:
            return CatalogueEntry(registration.card, owner, registration)
        return self.find(key, tenant=owner)

    def expire(self, owner: str | None) -> None:
        """Has an owner's models listed again at their next use: this process has changed them."""
        if owner is None:
            self._common.expire()
        else:
            self._listing(owner).expire()

    def expire_shares(self) -> None:
        """Has shares listed again at their next use: this process has changed them."""
        with self._lock:
            self._shared.clear()

    def _find(self, reference: ModelReference, tenant: str | None, age_s: float) -> CatalogueEntry | None:
        owner, name = reference.owner, reference.name
        if owner is not None and owner != tenant:
            if not Shares(self._store).allows(owner, name, tenant):
                return None
            listing = self._listing(owner)
            listing.refresh(age_s)
            versions = {version: e for version, e in listing.entries.get(name, {}).items() if not e.candidate}
            alias_owners: list[str | None] = [owner]
        else:
            own = self._own(tenant).get(name, {})
            versions = own or ({} if owner is not None else self._common.entries.get(name, {}))
            # the operator's aliases stand for models of all tenants alone
            alias_owners = [tenant] if own or tenant is None else [tenant, None]
        if reference.version is not None:
            return versions.get(reference.version)
        if reference.alias is not None:
            for alias_owner in alias_owners:
                version = Aliases(self._store, alias_owner).version(name, reference.alias) if versions else None
                if version is not None:
                    return versions.get(version)
            return None
        return next((entry for entry in newest_first(versions) if not entry.candidate), None)

    def _own(self, tenant: str | None) -> dict[str, dict[str, CatalogueEntry]]:
        return {} if tenant is None else self._listing(tenant).entries

    def _listing(self, owner: str) -> OwnerListing:
        with self._lock:
            return self._owners.setdefault(owner, OwnerListing(self._store, owner))

    def _refresh(self, tenant: str | None, older_than_s: float) -> None:
        self._common.refresh(older_than_s)
        if tenant is not None:
            self._listing(tenant).refresh(older_than_s)

    def _shared_entries(self, tenant: str | None) -> Iterator[CatalogueEntry]:
        if tenant is None:
            return
        with self._lock:
            read_at, shared = self._shared.get(tenant, (float("-inf"), []))
        if time.monotonic() - read_at >= self._refresh_s:
            shared = sorted(Shares(self._store).with_tenant(tenant))
            with self._lock:
                self._shared[tenant] = time.monotonic(), shared
        for owner, name in shared:
            listing = self._listing(owner)
            listing.refresh(self._refresh_s)
            yield from (each for each in newest_first(listing.entries.get(name, {})) if not each.candidate)

    def _raise_if_broken(self, reference: ModelReference, tenant: str | None) -> None:
        if reference.version is None or (reference.owner is not None and reference.owner != tenant):
            return
        own = {} if tenant is None else self._listing(tenant).broken
        model = f"{reference.name}@{reference.version}"
        why = own.get(f"{tenant}:{model}") or self._common.broken.get(model)
        if why is not None:
            raise CardError(f"model {model!r} cannot be used: {why}")

    def _unknown(self, ref: str, tenant: str | None) -> UnknownModel:
        name, at, _ = ref.partition("@")
        of_name: list[str] = []
        names: dict[str, None] = {}
        only_candidates = True
        for entry in self.entries(tenant=tenant):
            known = entry.reference(tenant).partition("@")[0]
            names[known] = None
            if known == name:
                of_name.append(entry.card.version)
                only_candidates &= entry.candidate
        if of_name and at:
            chosen = ref[len(name) + 1 :]
            what = "alias" if is_alias(chosen) else "version"
            return UnknownModel(
                f"model {name!r} has no {what} {chosen[:80]!r}; it has {join_list(of_name)}", versions=of_name
            )
        if of_name and only_candidates:
            return UnknownModel(
                f"model {name!r} has candidates only: {join_list(of_name)}; name one as {name}@{of_name[0]}, or "
                "promote it",
                versions=of_name,
            )
        listed = list(names)[:_MAX_NAMED]
        near = closest_match(name, list(names))
        meant = f"did you mean {near!r}? There" if near else "there"
        return UnknownModel(f"model {name[:80]!r} does not exist; {meant} are: {join_list(listed)}", models=listed)
