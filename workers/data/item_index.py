"""The items of a stored dataset in arrays: 100,000 of them take a few tens of megabytes."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from service.datasets.classes import IGNORE
from service.datasets.components import connected
from service.datasets.items import as_rgb, instances_of_file
from service.datasets.reading.image_files import open_image
from service.datasets.stored.dataset import StoredDataset
from service.datasets.stored.layout import ShardFile
from service.kit.image_files import open_image_file
from workers.data.instance_keys import MAX_KEYED, with_instances
from workers.data.listings import DatasetInvalid

Texts = tuple[dict[str, Any], ...]


class TextColumn(Sequence[str]):
    """Texts in one block of bytes, a third of what as many strings take."""

    def __init__(self) -> None:
        self._block, self._ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        """Adds a text."""
        self._block += text.encode()
        self._ends.append(len(self._block))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        if not 0 <= place < len(self):
            raise IndexError(place)
        begin = self._ends[place - 1] if place else 0
        return self._block[begin : self._ends[place]].decode()


@dataclass(frozen=True)
class ItemIndex:
    """The items by position.

    ``places`` ``(N, 2, 2)`` int64 is offset and length in the item's shard, of image and mask; ``digests``
    ``(N, 2, 32)`` uint8 their sha256; ``sizes`` ``(N, 2)`` int32 width and height; ``counts`` ``(N, K)`` uint32 the
    mask's pixels by class. ``instances`` has the files of the instance maps, of the items that have one.
    """

    names: tuple[str, ...]
    paths: TextColumn
    splits: tuple[str | None, ...]
    texts: tuple[Texts, ...]
    places: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    instances: dict[int, ShardFile] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: StoredDataset) -> ItemIndex:
        """Reads the index of a dataset, a shard at a time."""
        total, classes = dataset.count(), len(dataset.classes)
        names, splits, texts, paths = [], [], [], TextColumn()
        places, digests = np.zeros((total, 2, 2), np.int64), np.zeros((total, 2, 32), np.uint8)
        sizes, counts = np.zeros((total, 2), np.int32), np.zeros((total, classes), np.uint32)
        same: dict[str | None, str | None] = {}
        instances: dict[int, ShardFile] = {}
        for row, record in dataset.records():
            names.append(record.name)
            paths.append(record.name if record.path is None else record.path)
            splits.append(same.setdefault(record.split, record.split))
            texts.append(record.texts)
            for which, file in enumerate((record.image, record.mask)):
                places[row, which] = file.offset, file.bytes
                digests[row, which] = np.frombuffer(bytes.fromhex(file.sha256), np.uint8)
            if record.instances is not None:
                instances[row] = record.instances
            sizes[row] = record.width, record.height
            for label, pixels in record.pixels.items():
                counts[row, label] = pixels
        return cls(tuple(names), paths, tuple(splits), tuple(texts), places, digests, sizes, counts, instances)

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int, which: int) -> ShardFile:
        """The place of an item's image (0) or mask (1)."""
        offset, length = self.places[row, which].tolist()
        return ShardFile.model_construct(offset=offset, bytes=length, sha256=self.digests[row, which].tobytes().hex())


@dataclass
class ItemFiles:
    """Decoded images and masks of a dataset's items. Every process opens the store for itself."""

    open_dataset: Callable[[], StoredDataset]
    index: ItemIndex
    background: int | None = None
    """The class whose regions are no objects."""
    _opened: tuple[int, StoredDataset] | None = field(default=None, repr=False)

    def image(self, row: int) -> np.ndarray:
        """``(H, W, 3)`` uint8."""
        return np.asarray(as_rgb(open_image(self._dataset().read(row, self.index.file(row, 0)))))

    def mask(self, row: int) -> np.ndarray:
        """Class indices ``(H, W)`` uint8, 255 for none."""
        with open_image_file(self._dataset().read(row, self.index.file(row, 1))) as file:
            return np.array(file)

    def keys(self, row: int) -> np.ndarray:
        """The mask with the instances of its map, as :mod:`workers.data.instance_keys` has them; 0 without a map."""
        found = self.index.instances.get(row)
        if found is None:
            return with_instances(self.mask(row), None)
        return with_instances(self.mask(row), instances_of_file(self._dataset().read(row, found)))

    def region_keys(self, row: int) -> np.ndarray:
        """The same with connected regions of one class as objects, whatever its map says.

        Raises :class:`DatasetInvalid` for a mask like noise, with more regions than keys can number.
        """
        mask = self.mask(row)
        regions = connected(mask, {IGNORE} if self.background is None else {IGNORE, self.background})
        if len(regions) > MAX_KEYED:
            raise DatasetInvalid(
                f"the mask of {self.index.names[row]!r} has {len(regions)} connected regions; the limit is "
                f"{MAX_KEYED}. Cut it into tiles, or give --instances none"
            )
        return with_instances(mask, regions.map)

    def _dataset(self) -> StoredDataset:
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:
            self._opened = process, self.open_dataset()
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}
