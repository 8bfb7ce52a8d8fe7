"""Deletion of a registered version, and of weights that no model needs.

The mark ``deleted.json`` deletes the version: from then on it is unknown, for references and for new jobs. A version
that something needs is not deleted: a user of the model records its use before it looks for the mark, and a deletion
writes the mark before it looks for uses, so none slips through. Then the weights are released. If a process is killed
in between, or a use turns up late, the collector completes the deletion once nothing needs the version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from service.errors import ModelConflict, RecordUnreadable, UnknownModel
from service.registry.aliases import Aliases
from service.registry.registration import Registration, is_deleted, read_registration
from service.registry.uses import live_uses
from service.registry.weights import generations, references, release_weights, remove_unreferenced
from service.store import keys, model_keys, run_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once

_MAX_NAMED = 20


@dataclass(frozen=True)
class Need:
    """What needs a version. ``id`` is None for something of another tenant."""

    kind: str
    id: str | None

    def __str__(self) -> str:
        article = "an" if self.kind[0] in "ae" else "a"
        return f"{article} {self.kind} of another tenant" if self.id is None else f"{self.kind} {self.id}"


def delete_version(store: ObjectStore, owner: str | None, name: str, version: str, *, by: str | None) -> None:
    """Deletes a registered version.

    Raises :class:`UnknownModel` if it does not exist, or :class:`ModelConflict` with what needs it, by kind and id.
    """
    record = read_registration(store, owner, name, version)
    if record is None or is_deleted(store, owner, name, version):
        raise UnknownModel(f"model {name}@{version} is not registered, so it cannot be deleted")
    _refuse_if_needed(store, record)
    mark = model_keys.deletion(owner, name, version)
    text = json.dumps({"format": 1, "deleted_at": datetime.now(UTC).isoformat(), "deleted_by": by})
    if put_once(store, mark, text.encode()):
        try:
            _refuse_if_needed(store, record)
        except ModelConflict:
            store.delete(mark)
            raise
    finish_deletion(store, record)


def needs(store: ObjectStore, record: Registration) -> Iterator[Need]:
    """What needs the version: aliases, open jobs and runs, and models trained from it."""
    owner, name, version = record.owner, record.card.name, record.card.version
    for alias_owner in _alias_owners(store, owner):
        for alias, stands_for in Aliases(store, alias_owner).names(name):
            if stands_for == version:
                # only the operator deletes models that others have aliases of
                whose = "" if alias_owner is None or alias_owner == owner else f"{alias_owner}:"
                yield Need("alias", f"{whose}{name}@{alias}")
    for use in live_uses(store, owner, name, version):
        yield Need(use.kind, use.id if _may_see(store, owner, use.kind, use.id) else None)


def finish_deletion(store: ObjectStore, record: Registration) -> bool:
    """Releases the weights of a deleted version; False if something still needs them. May be repeated."""
    owner, name, version = record.owner, record.card.name, record.card.version
    if next(live_uses(store, owner, name, version), None) is not None:
        return False
    hashes = {file.sha256 for file in record.card.files.values()}
    release_weights(store, hashes, owner=owner, name=name, version=version)
    for sha256 in hashes:
        for generation in generations(store, sha256):
            remove_unreferenced(store, sha256, generation)
    if owner is not None:
        _forget_bytes(store, owner, name, version)
    return True


def collect_weights(store: ObjectStore, sha256: str, before: datetime) -> int:
    """Removes what no model needs of the bytes with this hash; how many generations of them.

    A reference without a registration is of one that is under way; if it is older than ``before``, of one that stopped.
    """
    removed = 0
    for generation in generations(store, sha256):
        key = model_keys.weights(sha256, generation)
        for owner, name, version, info in list(references(store, sha256, generation)):
            try:
                record = read_registration(store, owner, name, version)
            except RecordUnreadable:
                continue  # it may be restored
            if record is not None and is_deleted(store, owner, name, version):
                finish_deletion(store, record)
            elif info.modified < before and (record is None or key not in record.files.values()):
                store.delete(info.key)
                if record is None and owner is not None:
                    _forget_bytes(store, owner, name, version)
        if store.head(key) is not None and remove_unreferenced(store, sha256, generation):
            removed += 1
    return removed


def _refuse_if_needed(store: ObjectStore, record: Registration) -> None:
    found = list(needs(store, record))
    if not found:
        return
    named = ", ".join(dict.fromkeys(map(str, found[:_MAX_NAMED])))
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    raise ModelConflict(
        f"model {record.model} is needed by {named}{more}; wait until they have ended, move or delete them, "
        "and delete the model then",
        needed_by=[{"kind": need.kind, "id": need.id} for need in found[:_MAX_NAMED]],
    )


def _alias_owners(store: ObjectStore, owner: str | None) -> list[str | None]:
    """Who may have given the model an alias: its tenant; for a model of all tenants, anyone."""
    if owner is not None:
        return [owner]
    return [model_keys.owner_of_part(part) for part in store.list_folders(model_keys.aliases_prefix())]


def _may_see(store: ObjectStore, owner: str | None, kind: str, user: str) -> bool:
    """Whether a use is of the model's own tenant; the operator sees all."""
    if owner is None:
        return True
    if kind == "model":
        return user.startswith(f"{owner}:")
    entry = keys.tenant_job(owner, user) if kind == "job" else run_keys.tenant_run(owner, user)
    return store.head(entry) is not None


def _forget_bytes(store: ObjectStore, tenant: str, name: str, version: str) -> None:
    for info in list(store.list(f"{model_keys.tenant_models_prefix(tenant)}{name}/{version}/")):
        store.delete(info.key)
