"""The catalogue of all model cards: those bundled with the package, and those registered in the store.

A registered card never changes, so each is read once; the names are listed again every few seconds.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path

from model_store import bundled_folder
from model_store.card import NAME_PATTERN, VERSION_PATTERN, CardInvalid, ModelCard, load_card, parse_card
from service.errors import CardError, ObjectNotFound, UnknownModel
from service.kit.validation import closest_match, join_list
from service.store import keys
from service.store.base import ObjectStore

_FORCED_REFRESH_S = 1.0
_log = logging.getLogger("twinset.catalogue")


class Catalogue:
    """Model cards by name and version. May be used from many threads."""

    def __init__(self, store: ObjectStore, *, bundled: Path | None = None, refresh_s: float = 10.0) -> None:
        self._store = store
        self._bundled = bundled_folder() if bundled is None else bundled
        self._refresh_s = refresh_s
        self._refreshed_at = float("-inf")
        self._lock = threading.Lock()
        self._cards: dict[str, dict[str, ModelCard]] = {}
        self._broken: dict[str, str] = {}
        self._bundled_cards: dict[Path, ModelCard] = {}

    def cards(self) -> tuple[ModelCard, ...]:
        """All cards, by name, newest version first."""
        self._refresh(self._refresh_s)
        return tuple(card for name in sorted(self._cards) for card in self.versions(name))

    def versions(self, name: str) -> tuple[ModelCard, ...]:
        """The cards of one name, newest version first; empty if there are none."""
        of_name = self._cards.get(name, {})
        return tuple(of_name[version] for version in sorted(of_name, key=version_order, reverse=True))

    def resolve(self, ref: str) -> ModelCard:
        """The card that ``name`` (its newest version) or ``name@version`` stands for.

        Raises :class:`UnknownModel`, which names the models there are, or :class:`CardError` if the card is broken.
        """
        self._refresh(self._refresh_s)
        card = self._find(ref)
        if card is None:
            # It may have been registered a moment ago.
            self._refresh(_FORCED_REFRESH_S)
            card = self._find(ref)
        if card is not None:
            return card
        if ref in self._broken:
            raise CardError(f"model {ref!r} cannot be used: {self._broken[ref]}")
        raise self._unknown(ref)

    def _find(self, ref: str) -> ModelCard | None:
        name, at, version = ref.partition("@")
        versions = self.versions(name)
        if not at:
            return versions[0] if versions else None
        return next((card for card in versions if card.version == version), None)

    def _unknown(self, ref: str) -> UnknownModel:
        name, _, version = ref.partition("@")
        versions = [card.version for card in self.versions(name)]
        if versions:
            return UnknownModel(
                f"model {name!r} has no version {version[:80]!r}; it has {join_list(versions)}", versions=versions
            )
        names = sorted(self._cards)
        near = closest_match(name, names)
        meant = f"did you mean {near!r}? There" if near else "there"
        return UnknownModel(f"model {name[:80]!r} does not exist; {meant} are: {join_list(names)}", models=names)

    def _refresh(self, older_than_s: float) -> None:
        with self._lock:
            if time.monotonic() - self._refreshed_at < older_than_s:
                return
            found: dict[str, dict[str, ModelCard]] = {}
            broken: dict[str, str] = {}
            self._read_store(found, broken)
            # Bundled cards last: if both have a name@version, the bundled one counts.
            self._read_bundled(found, broken)
            self._cards, self._broken = found, broken
            self._refreshed_at = time.monotonic()

    def _read_store(self, found: dict[str, dict[str, ModelCard]], broken: dict[str, str]) -> None:
        for name in self._store.list_folders(keys.models_prefix()):
            for version in self._store.list_folders(f"{keys.models_prefix()}{name}/"):
                if not re.fullmatch(NAME_PATTERN, name) or not re.fullmatch(VERSION_PATTERN, version):
                    continue
                card = self._cards.get(name, {}).get(version)
                try:
                    if card is None:
                        key = keys.model_card(name, version)
                        card = parse_card(self._store.get(key), where=key)
                        _check_place(card, name, version)
                except ObjectNotFound:
                    continue  # still being registered: the card is written last
                except CardInvalid as error:
                    self._record_broken(broken, f"{name}@{version}", str(error))
                    continue
                found.setdefault(name, {})[version] = card

    def _read_bundled(self, found: dict[str, dict[str, ModelCard]], broken: dict[str, str]) -> None:
        for path in sorted(self._bundled.glob("*/*/card.json")):
            name, version = path.parent.parent.name, path.parent.name
            try:
                card = self._bundled_cards.get(path)
                if card is None:
                    card = load_card(path.parent)
                    _check_place(card, name, version)
                    self._bundled_cards[path] = card
            except CardInvalid as error:
                self._record_broken(broken, f"{name}@{version}", str(error))
                continue
            found.setdefault(name, {})[version] = card

    def _record_broken(self, broken: dict[str, str], ref: str, why: str) -> None:
        if ref not in self._broken:
            _log.warning("model %s is not available: %s", ref, why)
        broken[ref] = why


def version_order(version: str) -> tuple[int, ...]:
    """Sort key of a version, by number: 1.10.0 comes after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


def _check_place(card: ModelCard, name: str, version: str) -> None:
    if (card.name, card.version) != (name, version):
        raise CardInvalid(f"the card stored for {name}@{version} is that of {card.id}; register it again")
