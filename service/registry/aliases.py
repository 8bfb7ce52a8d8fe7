"""Aliases of a tenant: a name such as ``stable`` that stands for one version of a model, and its history.

The history is a row of numbered records. A change is the next number, which one writer gets; the last one counts. None
is changed or removed, so who moved an alias, when, from where to where and why stays known, also of a deleted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from model_store.card import VERSION_PATTERN
from service.errors import ObjectNotFound
from service.kit.frozen import _Frozen, parse_stored
from service.registry.references import is_alias
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once

MAX_WHY_CHARS = 500


class AliasEntry(_Frozen):
    """A change of an alias. ``version`` is what it stands for from then on; None if it was deleted."""

    format: Literal[1] = 1
    number: int = Field(ge=1)
    version: str | None = Field(pattern=VERSION_PATTERN)
    former: str | None = Field(pattern=VERSION_PATTERN)
    why: str | None
    changed_at: AwareDatetime
    changed_by: str | None = Field(description="the id of an API key; None where none was needed")


@dataclass(frozen=True)
class Aliases:
    """The aliases that ``owner`` has given; None for those that the operator gave for all tenants."""

    store: ObjectStore
    owner: str | None

    def history(self, name: str, alias: str) -> list[AliasEntry]:
        """All changes, oldest first; empty for an alias that never existed. Raises RecordUnreadable."""
        return [self._read(name, alias, number) for number in self._numbers(name, alias)]

    def version(self, name: str, alias: str) -> str | None:
        """The version that the alias stands for; None if it does not exist. Raises RecordUnreadable."""
        last = self._last(name, alias)
        return None if last is None else last.version

    def names(self, name: str) -> Iterator[tuple[str, str]]:
        """The aliases of a model, each with the version that it stands for."""
        for alias in self.store.list_folders(model_keys.aliases_of_name_prefix(self.owner, name)):
            if is_alias(alias) and (version := self.version(name, alias)) is not None:
                yield alias, version

    def move(self, name: str, alias: str, version: str | None, *, why: str | None, by: str | None) -> AliasEntry | None:
        """Has the alias stand for ``version`` from now on; with None, deletes it.

        Returns the last entry of the history: that of an earlier change if the alias stood for the version already,
        and None if an alias is deleted that never existed.
        """
        while True:
            last = self._last(name, alias)
            former = None if last is None else last.version
            if former == version:
                return last
            entry = AliasEntry(
                number=1 if last is None else last.number + 1,
                version=version,
                former=former,
                why=why,
                changed_at=datetime.now(UTC),
                changed_by=by,
            )
            key = model_keys.alias_entry(self.owner, name, alias, entry.number)
            if put_once(self.store, key, entry.model_dump_json().encode()):
                return entry

    def _last(self, name: str, alias: str) -> AliasEntry | None:
        numbers = self._numbers(name, alias)
        return self._read(name, alias, numbers[-1]) if numbers else None

    def _numbers(self, name: str, alias: str) -> list[int]:
        prefix = model_keys.alias_prefix(self.owner, name, alias)
        numbers = (info.key[len(prefix) :].removesuffix(".json") for info in self.store.list(prefix))
        return [int(number) for number in numbers if number.isascii() and number.isdigit()]

    def _read(self, name: str, alias: str, number: int) -> AliasEntry:
        key = model_keys.alias_entry(self.owner, name, alias, number)
        try:
            text = self.store.get(key)
        except ObjectNotFound:
            text = b""  # entries are never removed
        return parse_stored(AliasEntry, text, key, remedy="restore it", number=number)
