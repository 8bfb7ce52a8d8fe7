"""Models of all tenants: those bundled with the package, and those that the operator registered for everyone."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from model_store.card import CardInvalid, ModelCard, load_card, parse_card
from service.errors import ObjectNotFound
from service.registry.entries import CatalogueEntry, OwnerListing, Versions, record_broken
from service.registry.former_layout import FormerLayout
from service.store import keys
from service.store.base import ObjectStore


@dataclass
class CommonModels:
    """Bundled models and those of all tenants, listed again every few seconds.

    If two have the same ``name@version``, the bundled one counts, then the registered one, then the one in the former
    layout.
    """

    store: ObjectStore
    bundled: Path
    entries: Versions = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    _bundled_cards: dict[Path, ModelCard] = field(default_factory=dict)
    _former_cards: dict[str, ModelCard] = field(default_factory=dict)
    _refreshed_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._registered = OwnerListing(self.store, None)
        self._former = FormerLayout(self.store)

    def refresh(self, older_than_s: float) -> None:
        """Lists the models if that was not done for so long. Raises a store's error."""
        with self._lock:
            if time.monotonic() - self._refreshed_at < older_than_s:
                return
            began = time.monotonic()
            found: Versions = {}
            broken: dict[str, str] = {}
            self._read_former(found, broken)
            self._registered.refresh(0.0)
            for name, versions in self._registered.entries.items():
                found.setdefault(name, {}).update(versions)
            broken |= self._registered.broken
            self._read_bundled(found, broken)
            self.entries, self.broken = found, broken
            self._refreshed_at = began

    def expire(self) -> None:
        """Has the models listed again at the next refresh: they have changed."""
        self._refreshed_at = float("-inf")

    def _read_former(self, found: Versions, broken: dict[str, str]) -> None:
        for name, version in self._former.versions():
            key = keys.model_card(name, version)
            try:
                if key not in self._former_cards:
                    card = parse_card(self.store.get(key), where=key)
                    _check_place(card, name, version)
                    self._former_cards[key] = card
            except ObjectNotFound:
                continue  # a registration that stopped before the card, which came last
            except CardInvalid as error:
                record_broken(broken, self.broken, f"{name}@{version}", str(error))
                continue
            found.setdefault(name, {})[version] = CatalogueEntry(self._former_cards[key])

    def _read_bundled(self, found: Versions, broken: dict[str, str]) -> None:
        for path in sorted(self.bundled.glob("*/*/card.json")):
            name, version = path.parent.parent.name, path.parent.name
            try:
                card = self._bundled_cards.get(path)
                if card is None:
                    card = load_card(path.parent)
                    _check_place(card, name, version)
                    self._bundled_cards[path] = card
            except CardInvalid as error:
                record_broken(broken, self.broken, f"{name}@{version}", str(error))
                continue
            found.setdefault(name, {})[version] = CatalogueEntry(card, folder=path.parent)


def _check_place(card: ModelCard, name: str, version: str) -> None:
    if (card.name, card.version) != (name, version):
        raise CardInvalid(f"the card stored for {name}@{version} is that of {card.id}; register it again")
