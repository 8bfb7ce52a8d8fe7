"""The numbers of a dataset's versions once their versions are removed: only the highest is kept, so that none returns.

A number that nothing uses costs each look at the dataset's name two reads, so they must not pile up.
"""

from __future__ import annotations

import json

from service.errors import ObjectNotFound, RecordUnreadable
from service.kit.frozen import parse_members
from service.store import run_keys
from service.store.base import ObjectStore


def forget_version(store: ObjectStore, tenant: str, dataset: str, run: str) -> None:
    """Removes the number of ``dataset``, name@version, whose run has been removed; the highest is marked instead."""
    name, _, number = dataset.partition("@")
    if not (name and number.isascii() and number.isdigit()):
        return
    own = run_keys.tenant_dataset(tenant, name, int(number))
    taken = [info.key for info in store.list(run_keys.tenant_dataset_prefix(tenant, name))]
    if own not in taken:
        return
    if own == taken[-1]:
        store.put(own, json.dumps({"format": 1, "run": run, "removed": True}).encode())
    place = taken.index(own)
    for key in taken[max(0, place - 1) : place + 1]:
        if key != taken[-1] and (key == own or _is_marked(store, key)):
            store.delete(key)


def _is_marked(store: ObjectStore, key: str) -> bool:
    try:
        return parse_members(store.get(key), key).get("removed") is True
    except (ObjectNotFound, RecordUnreadable):
        return False
