"""A dataset in the object store, read one item at a time."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from pydantic import ValidationError

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.layout import DatasetAbout, ShardFile, StoredItem
from service.errors import ObjectDamaged, ObjectNotFound, StoreError, UnknownDataset
from service.kit.frozen import parse_stored
from service.kit.prefetch import prefetch
from service.store.base import ObjectStore
from service.store.checked import read_checked


@dataclass(frozen=True)
class StoredDataset:
    """The dataset of run ``run``. Positions of items are 0, 1, ... in the order in which they were read."""

    store: ObjectStore
    run: str
    about: DatasetAbout
    format = "dataset"

    @classmethod
    def open(cls, store: ObjectStore, run: str) -> StoredDataset:
        """The dataset of a run. Raises :class:`UnknownDataset` if it was not read to its end, or was deleted."""
        try:
            text = store.get(layout.about(run))
        except ObjectNotFound:
            raise UnknownDataset(
                f"dataset {run} has not been imported, or was deleted; GET /datasets lists the datasets"
            ) from None
        return cls(store, run, parse_stored(DatasetAbout, text, layout.about(run)))

    @property
    def label(self) -> str:
        """The prefix of the names of its items in a mix."""
        return self.about.name

    @property
    def classes(self) -> ClassList:
        return self.about.classes

    def count(self) -> int:
        """The number of items."""
        return self.about.items

    def records(self, start_after: int | None = None) -> Iterator[tuple[int, StoredItem]]:
        """The index entries after position ``start_after``, the index of one shard in memory at a time."""
        first = 0 if start_after is None else start_after + 1
        for number in range(self._shard_of(first), len(self.about.shards)):
            position = self._begins[number]
            for record in self._index(number):
                if position >= first:
                    yield position, record
                position += 1

    def record(self, position: int) -> StoredItem:
        """The index entry of one item. Raises IndexError."""
        found = next(self.records(position - 1 if position else None), None)
        if found is None or found[0] != position:
            raise IndexError(f"dataset {self.about.id} has items 0 to {self.about.items - 1}, not {position}")
        return found[1]

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
        """The items after position ``start_after``, read ahead.

        An item whose files are damaged or missing is an :class:`UnavailableItem`.
        """
        read_ahead = prefetch(self._item_or_absent, self.records(start_after))
        with closing(read_ahead):
            for (position, _), found in read_ahead:
                yield position, found

    def _item_or_absent(self, entry: tuple[int, StoredItem]) -> DatasetItem | UnavailableItem:
        position, record = entry
        try:
            return self.item(position, record)
        except ObjectNotFound as error:
            return UnavailableItem(record.identity, "missing", error.detail)
        except ObjectDamaged as error:
            return UnavailableItem(record.identity, "damaged", error.detail)

    def item(self, position: int, record: StoredItem) -> DatasetItem:
        """The item of an index entry."""
        item = DatasetItem(
            name=record.name,
            image=self.read(position, record.image),
            mask=self.read(position, record.mask),
            instances=self.instances(position, record),
            split=record.split,
            source=record.source,
            caption=record.caption,
            source_mask=record.source_mask,
            metadata=record.metadata,
            path=record.path,
            captions=record.captions,
        )
        item.image_sha256 = record.image.sha256  # verified when it was read
        return item

    def labels(self, position: int, record: StoredItem) -> np.ndarray:
        """The class indices ``(H, W)`` uint8 of an item."""
        return self._read_image(position, record.mask).astype(np.uint8)

    def instances(self, position: int, record: StoredItem) -> np.ndarray | None:
        """The instance numbers ``(H, W)`` int32 of an item, 0 for none; None if it has no instance map."""
        return None if record.instances is None else self._read_image(position, record.instances).astype(np.int32)

    def read(self, position: int, file: ShardFile) -> bytes:
        """The bytes of an item's file, verified against its sha256."""
        number = self._shard_of(position)
        key = self.about.shards[number].key or layout.shard(self.run, number)
        return read_checked(self.store, key, file.sha256, start=file.offset, end=file.offset + file.bytes)

    @cached_property
    def _begins(self) -> list[int]:
        """The position of each shard's first item."""
        return [0, *accumulate(shard.items for shard in self.about.shards)]

    def _shard_of(self, position: int) -> int:
        return bisect_right(self._begins, position) - 1

    def _index(self, number: int) -> Iterator[StoredItem]:
        stored = self.about.shards[number].index
        key = layout.index(self.run, number) if stored is None else stored.key
        data = self.store.get(key) if stored is None else read_checked(self.store, key, stored.sha256)
        try:
            for line in data.splitlines():
                yield StoredItem.model_validate_json(line)
        except ValidationError as error:
            raise StoreError(
                f"{key} in the object store is not a valid index of a dataset: {error.errors()[0]['msg']}"
            ) from None

    def _read_image(self, position: int, file: ShardFile) -> np.ndarray:
        from service.kit.image_files import open_image_file

        with open_image_file(self.read(position, file)) as image:
            return np.array(image)


def read_splits(store: ObjectStore, run: str) -> set[str | None]:
    """The splits of a dataset's items, from its report."""
    report = json.loads(store.get(report_key(store, run)))
    return {split or None for split in report["splits"]}


def report_key(store: ObjectStore, run: str) -> str:
    """The key of the report of an imported dataset."""
    stored = StoredDataset.open(store, run).about.objects.get("report")
    return layout.report(run) if stored is None else stored.key


@dataclass(frozen=True)
class UnavailableItem:
    """An item that its source cannot read: the reason, one of ``writing.skipped.SKIP_REASONS``, and a sentence."""

    name: str
    reason: str
    detail: str
