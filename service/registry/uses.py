"""Uses of registered models: an entry for each job, run or model that may need a version.

A user writes its entry, then looks whether the version was deleted, and only then begins to exist; a deletion marks the
version as deleted, and then looks for entries. So one of the two sees the other. Entries of users that have ended are
removed when somebody looks at them. Bundled models and those in the former layout cannot be deleted, and have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.errors import UnknownModel
from service.kit.ids import is_job_id
from service.kit.run_kinds import kind_of
from service.registry.references import model_key, split_key
from service.registry.registration import is_deleted
from service.store import keys, model_keys, run_keys
from service.store.base import ObjectInfo, ObjectStore

BEGINS_WITHIN = timedelta(minutes=10)
"""How long a job or a run may take from its entry until its spec is written, which comes next."""
REGISTERED_WITHIN = timedelta(days=1)
"""The same of a model, whose weights are stored in between."""


@dataclass(frozen=True)
class Use:
    """A job, a run or a model that needs a version; a model by its key."""

    kind: str
    id: str


def add_use(store: ObjectStore, key: str, user: str) -> None:
    """Records that ``user``, a job or a run by its id or a model by :func:`model_user`, will need the model of a key.

    Call it before the user exists. Raises :class:`UnknownModel` if the model has been deleted.
    """
    owner, name, version = split_key(key)
    if store.head(model_keys.registration(owner, name, version)) is None:
        return  # bundled, or in the former layout
    entry = model_keys.use(owner, name, version, user)
    store.put(entry, b"")
    if is_deleted(store, owner, name, version):
        store.delete(entry)
        raise UnknownModel(f"model {name}@{version} was deleted a moment ago; choose another version")


def model_user(owner: str | None, name: str, version: str) -> str:
    """What names a model as the user of the one that it was trained from."""
    return f"model/{model_keys.owner_part(owner)}/{name}/{version}"


def drop_use(store: ObjectStore, key: str, user: str) -> None:
    """Removes the entry of a user that will not exist."""
    owner, name, version = split_key(key)
    store.delete(model_keys.use(owner, name, version, user))


def live_uses(store: ObjectStore, owner: str | None, name: str, version: str) -> Iterator[Use]:
    """What needs the version now: open jobs and runs, and models trained from it. Entries of others are removed."""
    prefix = model_keys.uses_prefix(owner, name, version)
    for info in list(store.list(prefix)):
        user = info.key[len(prefix) :]
        use = _live(store, user, info)
        if use is None:
            store.delete(info.key)
        else:
            yield use


def _live(store: ObjectStore, user: str, info: ObjectInfo) -> Use | None:
    if is_job_id(user):
        marks = (keys.job_spec(user), keys.job_summary(user), keys.deletion(user))
        is_repaired = store.head(keys.pending_repair(user)) is not None
        return Use("job", user) if is_repaired or _is_open(store, *marks, info) else None
    kind = kind_of(user)
    if kind is not None:
        marks = (run_keys.run_spec(user), run_keys.run_summary(user), run_keys.deleting_run(user))
        return Use(kind.value, user) if _is_open(store, *marks, info) else None
    match user.split("/"):
        case ["model", part, trained_name, trained_version]:
            trained = (model_keys.owner_of_part(part), trained_name, trained_version)
        case _:
            return None
    if is_deleted(store, *trained):
        return None
    if store.head(model_keys.registration(*trained)) is None and not _is_younger(info, REGISTERED_WITHIN):
        return None
    return Use("model", model_key(trained[0], f"{trained_name}@{trained_version}"))


def _is_open(store: ObjectStore, spec: str, summary: str, deletion: str, info: ObjectInfo) -> bool:
    if store.head(spec) is None:
        return _is_younger(info, BEGINS_WITHIN)
    return store.head(summary) is None and store.head(deletion) is None


def _is_younger(info: ObjectInfo, age: timedelta) -> bool:
    return datetime.now(UTC) - info.modified < age
