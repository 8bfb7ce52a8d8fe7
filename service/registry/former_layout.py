"""Models of all tenants in the former layout: ``models/{name}/{version}/card.json`` with its weights beside it.

They stay usable; nothing is registered there any more. Tenants' folders lie beside these names, so each folder is
looked into, but one without any version only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from service.registry.references import is_model_name, is_version
from service.store import keys, model_keys
from service.store.base import ObjectStore


@dataclass
class FormerLayout:
    """The versions in the former layout, as one process remembers where there are none."""

    store: ObjectStore
    _without: set[str] = field(default_factory=set)

    def versions(self) -> Iterator[tuple[str, str]]:
        """Name and version of each; perhaps of one that has no card."""
        for name in self.store.list_folders(keys.models_prefix()):
            if name == model_keys.SHARED or name in self._without or not is_model_name(name):
                continue
            found = former_versions(self.store, name)
            if not found:
                self._without.add(name)
            yield from ((name, version) for version in found)


def former_versions(store: ObjectStore, name: str) -> list[str]:
    """The versions of a name in the former layout."""
    return [version for version in store.list_folders(f"{keys.models_prefix()}{name}/") if is_version(version)]
