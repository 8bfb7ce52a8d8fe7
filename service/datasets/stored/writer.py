"""Writing a dataset into the store: one shard at a time, each with its index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.instance_maps import encode_instances
from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.layout import ShardAbout, ShardFile, StoredItem
from service.datasets.writing.images import suffix_of
from service.kit import tar
from service.kit.png import encode_mask
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_attempt, put_immutable
from service.store.keys import with_attempt


class StoredDatasetWriter:
    """Writes the items of run ``run``, so that an import may start over: it shares no key with one of other bytes."""

    def __init__(self, store: ObjectStore, run: str, classes: ClassList, scratch: Path) -> None:
        self._store = store
        self._run = run
        self._colours = classes.colours
        self._path = scratch / "shard.tar"
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []
        self._count = 0
        self.shards: list[ShardAbout] = []

    def add(self, item: DatasetItem) -> None:
        """Adds an item. Raises what the store raises."""
        if self._file is None:
            self._file = open(self._path, "wb")  # noqa: SIM115
            self._digest = hashlib.sha256()
        labels, image = item.labels, item.image_bytes
        key, suffix = f"{self._count:08d}", suffix_of(image)
        self._count += 1
        counts = np.bincount(labels.reshape(-1), minlength=256)[: len(self._colours)]
        line = StoredItem(
            name=item.name,
            width=labels.shape[1],
            height=labels.shape[0],
            suffix=suffix,
            image=self._write(f"{key}.{suffix}", image),
            mask=self._write(f"{key}.mask.png", encode_mask(labels, self._colours, {})),
            instances=None
            if item.instances is None
            else self._write(f"{key}.instances.png", encode_instances(item.instances)),
            pixels={int(value): int(counts[value]) for value in np.flatnonzero(counts)},
            split=item.split,
            source=item.source,
            caption=item.caption,
            source_mask=item.mask_group,
            metadata=dict(item.metadata),
            path=item.path,
            captions=tuple(dict(line) for line in item.captions),
        )
        self._lines.append(line.model_dump_json(exclude_none=True, exclude_defaults=True).encode() + b"\n")
        if len(self._lines) >= layout.SHARD_ITEMS or self._file.tell() >= layout.SHARD_BYTES:
            self._put_shard()

    def finish(self) -> None:
        """Uploads the last shard, which is not full."""
        if self._lines:
            self._put_shard()

    def close(self) -> None:
        """Frees the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> ShardFile:
        assert self._file is not None
        member = tar.members((name, data))
        at = self._file.tell()
        self._file.write(member)
        self._digest.update(member)
        offset = at + len(member) - (len(data) + -len(data) % tar.BLOCK_BYTES)
        return ShardFile(offset=offset, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _put_shard(self) -> None:
        assert self._file is not None
        closing = tar.end(self._file.tell())
        self._file.write(closing)
        self._digest.update(closing)
        size, number = self._file.tell(), len(self.shards)
        self._file.close()
        self._file = None
        sha256 = self._digest.hexdigest()
        shard = StoredObject(key=with_attempt(layout.shard(self._run, number), sha256), sha256=sha256, bytes=size)
        put_immutable(self._store, shard, self._path)
        index = put_attempt(self._store, layout.index(self._run, number), b"".join(self._lines))
        self.shards.append(ShardAbout(items=len(self._lines), bytes=size, sha256=sha256, key=shard.key, index=index))
        self._lines.clear()
