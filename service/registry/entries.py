"""The catalogue's entries: models with their owners, and the listing of what an owner has registered."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from model_store.card import ModelCard
from service.errors import RecordUnreadable
from service.registry.references import is_model_name, is_version, model_key, version_order
from service.registry.registration import Registration, read_registration
from service.store import model_keys
from service.store.base import ObjectStore

_log = logging.getLogger("twinset.catalogue")
Versions = dict[str, dict[str, "CatalogueEntry"]]
"""Entries by name and version."""


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that can be used. ``owner`` is its tenant; None for a model of all tenants.

    ``registration`` is None for a bundled model, whose ``folder`` is given, and for one in the former layout.
    """

    card: ModelCard
    owner: str | None = None
    registration: Registration | None = None
    candidate: bool = False
    folder: Path | None = None

    @property
    def key(self) -> str:
        """What names the model for any tenant: ``name@version``, or ``owner:name@version``."""
        return model_key(self.owner, self.card.id)

    def reference(self, tenant: str | None) -> str:
        """What names the model when ``tenant`` asks: for its own, ``name@version``."""
        return self.card.id if self.owner == tenant else self.key


@dataclass
class OwnerListing:
    """The models that one owner has registered, listed again every few seconds. Each record is read once."""

    store: ObjectStore
    owner: str | None
    entries: Versions = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    _read: dict[tuple[str, str], Registration] = field(default_factory=dict)
    _refreshed_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self, older_than_s: float) -> None:
        """Lists the owner's models if that was not done for so long. Raises a store's error."""
        with self._lock:
            if time.monotonic() - self._refreshed_at < older_than_s:
                return
            began = time.monotonic()
            found: Versions = {}
            broken: dict[str, str] = {}
            for (name, version), marks in self._marks().items():
                if "registration.json" not in marks or "deleted.json" in marks:
                    continue
                try:
                    registration = self._registration(name, version)
                except RecordUnreadable as error:
                    record_broken(broken, self.broken, model_key(self.owner, f"{name}@{version}"), error.detail)
                    continue
                if registration is not None:
                    candidate = registration.candidate and "promoted.json" not in marks
                    entry = CatalogueEntry(registration.card, self.owner, registration, candidate)
                    found.setdefault(name, {})[version] = entry
            self.entries, self.broken = found, broken
            self._refreshed_at = began

    def expire(self) -> None:
        """Has the models listed again at the next refresh: they have changed."""
        self._refreshed_at = float("-inf")

    def _marks(self) -> dict[tuple[str, str], set[str]]:
        """The objects of each version."""
        prefix, marks = model_keys.owner_prefix(self.owner), dict[tuple[str, str], set[str]]()
        for info in self.store.list(prefix):
            name, _, rest = info.key[len(prefix) :].partition("/")
            version, _, mark = rest.partition("/")
            if is_model_name(name) and is_version(version):
                marks.setdefault((name, version), set()).add(mark)
        return marks

    def _registration(self, name: str, version: str) -> Registration | None:
        if (name, version) not in self._read:
            found = read_registration(self.store, self.owner, name, version)
            if found is None:
                return None
            self._read[name, version] = found
        return self._read[name, version]


def newest_first(versions: dict[str, CatalogueEntry]) -> list[CatalogueEntry]:
    """The entries of one name, newest version first."""
    return [versions[version] for version in sorted(versions, key=version_order, reverse=True)]


def record_broken(broken: dict[str, str], before: dict[str, str], model: str, why: str) -> None:
    """Records a model that is not available, and logs it unless it was so ``before``."""
    if model not in before:
        _log.warning("model %s is not available: %s", model, why)
    broken[model] = why
