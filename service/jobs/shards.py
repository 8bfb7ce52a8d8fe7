"""Shards: the twins of a chunk in one tar, named as WebDataset has it, each file found by its offset.

    00000008.png   00000008.mask.png   00000008.json   00000009.png   ...

The bytes follow from the job's spec and from which samples of the chunk were made. Two attempts at a chunk may differ
in the latter, and then every offset differs too; so a shard is never written over, and of two that differ the second
gets a name that tells of its bytes. The chunk's record says which one counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from service.errors import ObjectDamaged, ObjectExists, ObjectNotFound, StoreError
from service.jobs.manifest import as_line, described
from service.jobs.repository import JobRepository
from service.jobs.sample_item import MadeTwin, FileLocation
from service.jobs.spec import JobSpec, SampleRecord, ShardObject
from service.kit import tar
from service.store import keys
from service.store.base import ObjectStore


@dataclass(frozen=True)
class Shard:
    """A chunk's tar, where it is to lie, and the items of all its samples in order, those given up among them."""

    job: str
    chunk: int
    data: bytes
    sha256: str
    items: tuple[SampleRecord, ...]
    key: str

    @property
    def recorded(self) -> ShardObject:
        """What the chunk's record says of it."""
        return ShardObject(key=self.key, sha256=self.sha256, bytes=len(self.data))

    @property
    def is_alternative(self) -> bool:
        """Whether another attempt's shard has the chunk's usual name."""
        return self.key != keys.job_shard(self.job, self.chunk)

    def with_alternative_key(self) -> Shard:
        """The same under a name that no other bytes have."""
        key = keys.job_shard_beside(self.job, self.chunk, self.sha256)
        return replace(self, key=key, items=tuple(_moved(item, key) for item in self.items))


def pack_shard(spec: JobSpec, chunk: int, samples: Sequence[SampleRecord | MadeTwin]) -> Shard | None:
    """The shard of a chunk's samples; those that were given up come as their items. None where no twin was made."""
    key = keys.job_shard(spec.job, chunk)
    parts: list[bytes] = []
    items: list[SampleRecord] = []
    size = 0

    def add(name: str, data: bytes) -> FileLocation:
        nonlocal size
        member = tar.members((name, data))
        parts.append(member)
        size += len(member)
        padding = -len(data) % tar.BLOCK_BYTES
        return FileLocation(key, size - padding - len(data))

    for sample in samples:
        if isinstance(sample, SampleRecord):
            items.append(sample)
            continue
        stem = f"{sample.index:08d}"
        image = add(f"{stem}.png", sample.image)
        mask = None if sample.mask is None else add(f"{stem}.mask.png", sample.mask)
        items.append(sample.at(image, mask))
        add(f"{stem}.json", as_line(described(spec, items[-1])))
    if not parts:
        return None
    data = b"".join((*parts, tar.end(size)))
    return Shard(spec.job, chunk, data, hashlib.sha256(data).hexdigest(), tuple(items), key)


def put_shard(store: ObjectStore, shard: Shard) -> Shard:
    """Stores a shard, unless the very same lies there from an earlier delivery; the shard as it lies.

    Raises a store's error; then it may be tried again.
    """
    try:
        store.put(shard.key, shard.data, if_absent=True)
        return shard
    except ObjectExists:
        pass
    if _lies_there(store, shard):
        return shard
    beside = shard.with_alternative_key()
    store.put(beside.key, beside.data)
    return beside


def drop_uncounted(repository: JobRepository, shard: Shard) -> None:
    """Of two shards of a recorded chunk, removes the one that the record does not name. A failure leaves it lying: it
    goes with the job."""
    if not shard.is_alternative:
        return
    with suppress(StoreError):
        record = repository.read_chunk(shard.job, shard.chunk)
        if record is None:
            return
        for key in (keys.job_shard(shard.job, shard.chunk), shard.key):
            if record.shard is None or key != record.shard.key:
                repository.store.delete(key)


def _lies_there(store: ObjectStore, shard: Shard) -> bool:
    found = hashlib.sha256()
    try:
        for piece in store.stream(shard.key):
            found.update(piece)
    except (ObjectDamaged, ObjectNotFound):
        return False
    return found.hexdigest() == shard.sha256


def _moved(item: SampleRecord, key: str) -> SampleRecord:
    if item.error is not None:
        return item
    return item.model_copy(update={"image_key": key, "mask_key": None if item.mask_key is None else key})
