"""Shards: the twins of a chunk in one tar, with WebDataset's names, each file found by its offset.

    00000008.png   00000008.mask.png   00000008.json   00000009.png   ...

The bytes follow from the job's spec and from which samples of the chunk were made. Two attempts at a chunk may differ
in the latter, and then every offset differs too; so a shard is never overwritten, and of two that differ the second
gets a name with its sha256. The chunk's record says which one counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from service.errors import ObjectDamaged, ObjectExists, ObjectNotFound, StoreError
from service.jobs.manifest import as_line, described
from service.jobs.repository import JobRepository
from service.jobs.sample_item import FileLocation, MadeTwin
from service.jobs.spec import JobSpec, SampleRecord, ShardObject
from service.kit import tar
from service.store import keys
from service.store.base import ObjectStore


@dataclass(frozen=True)
class Shard:
    """A chunk's tar, its key in the store, and the records of all its samples in order, failed ones included."""

    job: str
    chunk: int
    data: bytes
    sha256: str
    items: tuple[SampleRecord, ...]
    key: str

    @property
    def recorded(self) -> ShardObject:
        """The shard's entry in the chunk's record."""
        return ShardObject(key=self.key, sha256=self.sha256, bytes=len(self.data))

    @property
    def is_alternative(self) -> bool:
        """Whether the shard has a name with its sha256, as another attempt's shard has the usual name."""
        return self.key != keys.job_shard(self.job, self.chunk)

    def with_alternative_key(self) -> Shard:
        """The same shard under a name with its sha256."""
        key = keys.job_shard_beside(self.job, self.chunk, self.sha256)
        return replace(self, key=key, items=tuple(_with_key(item, key) for item in self.items))


def pack_shard(spec: JobSpec, chunk: int, samples: Sequence[SampleRecord | MadeTwin]) -> Shard | None:
    """The shard of a chunk's samples; failed ones are given as their records. None if no twin was made."""
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
    """Stores a shard, unless an earlier delivery stored the same bytes; the shard with the key that it has.

    Raises the store's error; the call may then be repeated.
    """
    try:
        store.put(shard.key, shard.data, if_absent=True)
        return shard
    except ObjectExists:
        pass
    if _is_stored(store, shard):
        return shard
    beside = shard.with_alternative_key()
    store.put(beside.key, beside.data)
    return beside


def drop_uncounted(repository: JobRepository, shard: Shard) -> None:
    """Removes the shard of a recorded chunk that the record does not name, if there are two.

    If that fails, the shard is removed with the job.
    """
    if not shard.is_alternative:
        return
    with suppress(StoreError):
        record = repository.read_chunk(shard.job, shard.chunk)
        if record is None:
            return
        for key in (keys.job_shard(shard.job, shard.chunk), shard.key):
            if record.shard is None or key != record.shard.key:
                repository.store.delete(key)


def _is_stored(store: ObjectStore, shard: Shard) -> bool:
    found = hashlib.sha256()
    try:
        for piece in store.stream(shard.key):
            found.update(piece)
    except (ObjectDamaged, ObjectNotFound):
        return False
    return found.hexdigest() == shard.sha256


def _with_key(item: SampleRecord, key: str) -> SampleRecord:
    if item.error is not None:
        return item
    return item.model_copy(update={"image_key": key, "mask_key": None if item.mask_key is None else key})
