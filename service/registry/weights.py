"""Weights, stored once for all models that have the same bytes, and removed once no model needs them.

A model refers to the bytes before it is registered. The collector closes a generation of the bytes before it looks for
references to it a last time. A registration writes its reference and then looks for the mark; the collector writes the
mark and then looks for references. So one of the two sees the other: bytes that are being removed get no new model, and
bytes that a model needs are not removed, however long any of the processes is stopped in between. A registration that
finds a generation closed stores the bytes in the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

from model_store.card import WeightsFile
from service.store import model_keys
from service.store.base import ObjectInfo, ObjectStore
from service.store.immutable import StoredObject, is_intact, put_immutable, put_once


def keep_weights(
    store: ObjectStore, path: Path, file: WeightsFile, *, owner: str | None, name: str, version: str
) -> str:
    """Refers the model to the file's bytes, and stores them unless they are stored; the key of the bytes.

    May be repeated. Raises a store's error.
    """
    for generation in count():
        reference = model_keys.weights_reference(file.sha256, generation, owner, name, version)
        store.put(reference, b"")
        if store.head(model_keys.weights_closed(file.sha256, generation)) is not None:
            store.delete(reference)
            continue
        stored = StoredObject(key=model_keys.weights(file.sha256, generation), sha256=file.sha256, bytes=file.bytes)
        if not is_intact(store, stored):
            put_immutable(store, stored, path)
        return stored.key
    raise AssertionError("unreachable")


def release_weights(
    store: ObjectStore,
    sha256s: Collection[str],
    *,
    owner: str | None,
    name: str,
    version: str,
    keep: Collection[str] = (),
) -> None:
    """Removes the model's references to bytes with these hashes, but for those to the keys ``keep``."""
    for sha256 in sha256s:
        for generation in generations(store, sha256):
            if model_keys.weights(sha256, generation) not in keep:
                store.delete(model_keys.weights_reference(sha256, generation, owner, name, version))


def generations(store: ObjectStore, sha256: str) -> list[int]:
    """The generations of the bytes with this hash that have any object."""
    prefix = model_keys.weights_prefix(sha256)
    numbers = (info.key[len(prefix) :].partition(".")[0] for info in store.list(prefix))
    return sorted({int(number) for number in numbers if number.isascii() and number.isdigit()})


def references(store: ObjectStore, sha256: str, generation: int) -> Iterator[tuple[str | None, str, str, ObjectInfo]]:
    """Owner, name and version of each model that refers to the bytes, with its entry."""
    prefix = model_keys.weights_references_prefix(sha256, generation)
    for info in store.list(prefix):
        owner, _, rest = info.key[len(prefix) :].partition("/")
        name, _, version = rest.partition("/")
        yield model_keys.owner_of_part(owner), name, version, info


def remove_unreferenced(store: ObjectStore, sha256: str, generation: int) -> bool:
    """Removes the bytes if no model refers to them; whether it did."""
    key = model_keys.weights(sha256, generation)
    if next(references(store, sha256, generation), None) is not None:
        return False
    put_once(store, model_keys.weights_closed(sha256, generation), b"{}")
    if next(references(store, sha256, generation), None) is not None:
        # A registration came between; the bytes stay for it, and later ones use the next generation.
        return False
    removed = store.head(key) is not None
    store.delete(key)
    return removed
