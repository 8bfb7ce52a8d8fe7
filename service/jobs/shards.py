"""Shards: the twins of a chunk in one tar, with WebDataset's names, each file found by its offset.

    00000008.png   00000008.mask.png   00000008.instances.png   00000008.json   00000009.png   ...

The bytes follow from those of the twins, and from which samples of the chunk were made. Two attempts at a chunk may
differ in both, so the key of a shard has the attempt, and the chunk's record says which shard counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.jobs.manifest import as_line, described
from service.jobs.sample_files import Kind, sample_files_of
from service.jobs.sample_item import FileLocation, MadeTwin
from service.jobs.spec import JobSpec, SampleRecord
from service.kit import tar
from service.store import keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_immutable

_ENDINGS: Mapping[Kind, str] = {"image": ".png", "mask": ".mask.png", "instances": ".instances.png"}
_UNNAMED = "-"
"""The key of a shard while it is packed: it is known once all bytes are."""


@dataclass(frozen=True)
class Shard:
    """A chunk's tar, its key in the store, and the records of all its samples in order, failed ones included."""

    data: bytes
    sha256: str
    items: tuple[SampleRecord, ...]
    key: str

    @property
    def recorded(self) -> StoredObject:
        """The shard's entry in the chunk's record."""
        return StoredObject(key=self.key, sha256=self.sha256, bytes=len(self.data))


def pack_shard(spec: JobSpec, chunk: int, samples: Sequence[SampleRecord | MadeTwin]) -> Shard | None:
    """The shard of a chunk's samples; failed ones are given as their records. None if no twin was made."""
    parts: list[bytes] = []
    items: list[SampleRecord] = []
    size = 0

    def add(name: str, data: bytes) -> FileLocation:
        nonlocal size
        member = tar.members((name, data))
        parts.append(member)
        size += len(member)
        padding = -len(data) % tar.BLOCK_BYTES
        return FileLocation(_UNNAMED, size - padding - len(data))

    for sample in samples:
        if isinstance(sample, SampleRecord):
            items.append(sample)
            continue
        stem = f"{sample.index:08d}"
        items.append(sample.at({kind: add(stem + _ENDINGS[kind], data) for kind, data in sample.files.items()}))
        add(f"{stem}.json", as_line(described(spec, items[-1])))
    if not parts:
        return None
    data = b"".join((*parts, tar.end(size)))
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.job_shard(spec.job, chunk, sha256)
    return Shard(data, sha256, tuple(_with_key(item, key) for item in items), key)


def put_shard(store: ObjectStore, shard: Shard) -> None:
    """Stores a shard, unless an attempt has stored the same bytes. Raises the store's error; it may be repeated."""
    put_immutable(store, shard.recorded, shard.data)


def _with_key(item: SampleRecord, key: str) -> SampleRecord:
    if item.error is not None:
        return item
    return item.model_copy(update={f"{file.kind}_key": key for file in sample_files_of(item)})
