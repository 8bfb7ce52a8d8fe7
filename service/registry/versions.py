"""Versions of a model: which are taken, and the next free one. A version is never given twice."""

from __future__ import annotations

import json
from pathlib import Path

from model_store import bundled_folder
from service.errors import ModelConflict, ObjectNotFound, RecordUnreadable
from service.kit.frozen import parse_members
from service.registry.former_layout import former_versions
from service.registry.references import is_version, version_order
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once

FIRST_VERSION = "1.0.0"
_MAX_PART = 999_999


def taken_versions(store: ObjectStore, owner: str | None, name: str, *, bundled: Path | None = None) -> list[str]:
    """All versions of the owner's model that were ever given or reserved, ascending."""
    taken = {version for version in store.list_folders(model_keys.versions_prefix(owner, name)) if is_version(version)}
    if owner is None:
        taken |= {*former_versions(store, name), *bundled_versions(name, bundled)}
    return sorted(taken, key=version_order)


def reserve_version(store: ObjectStore, name: str, *, tenant: str | None, run: str) -> str:
    """The version for the model that ``run`` will register: the one reserved for it before, or the name's next.

    1.0.0 for a new name, then 1.1.0, 1.2.0, ... Each run gets one version of its own, also if several ask at once.
    """
    taken = taken_versions(store, tenant, name)
    for version in reversed(taken):
        if reserved_for(store, tenant, name, version) == run:
            return version
    version = following(taken[-1]) if taken else FIRST_VERSION
    while True:
        record = json.dumps({"format": 1, "run": run}).encode()
        if put_once(store, model_keys.reservation(tenant, name, version), record):
            return version
        if reserved_for(store, tenant, name, version) == run:
            return version  # another caller for the same run, at this moment
        version = following(version)


def next_version(store: ObjectStore, name: str, *, tenant: str | None) -> str:
    """The next free version of a name, without reserving it."""
    taken = taken_versions(store, tenant, name)
    return following(taken[-1]) if taken else FIRST_VERSION


def reserved_for(store: ObjectStore, owner: str | None, name: str, version: str) -> str | None:
    """The run that the version is reserved for; None if it is not."""
    key = model_keys.reservation(owner, name, version)
    try:
        return str(parse_members(store.get(key), key, "run")["run"])
    except (ObjectNotFound, RecordUnreadable):
        return None


def following(version: str) -> str:
    """The version after ``version``. Raises :class:`ModelConflict` after the last."""
    major, minor, _ = version_order(version)
    if minor < _MAX_PART:
        return f"{major}.{minor + 1}.0"
    if major < _MAX_PART:
        return f"{major + 1}.0.0"
    raise ModelConflict(f"no version comes after {version}; take another name")


def bundled_versions(name: str, bundled: Path | None = None) -> list[str]:
    """The bundled versions of a name."""
    folder = (bundled_folder() if bundled is None else bundled) / name
    return [path.parent.name for path in folder.glob("*/card.json")]
