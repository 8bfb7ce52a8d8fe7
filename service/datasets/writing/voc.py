"""The writer for Pascal VOC segmentation: images, palette masks of class indices, and lists of names by split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.writing.manifest import json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.cells import cell
from service.kit.output_file import ExportFile, Spool
from service.kit.png import encode_mask

MAX_OBJECTS = 254


class VocWriter:
    """Writer of ``JPEGImages/``, ``Segmentation{Class,Object}/``, ``ImageSets/Segmentation/`` and ``labelmap.txt``.

    Index 255 is void, as published; the classes keep their indices, so class 0 is VOC's background only if the dataset
    has its background there. An image's objects are numbered from 1; those beyond 254 do not fit, and are void in
    ``SegmentationObject``.
    """

    replaced: ClassVar[dict[str, str]] = {}
    per_split: ClassVar[bool] = False
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._splits: dict[str, Spool] = {}
        self._object_colours = _voc_colours(IGNORE)

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The image and both its masks."""
        image = f"JPEGImages/{prepared.stem}.{prepared.suffix}"
        mask, objects = f"SegmentationClass/{prepared.stem}.png", f"SegmentationObject/{prepared.stem}.png"
        for what, path, data in (
            ("image", image, prepared.image),
            ("mask", mask, prepared.mask_png),
            ("objects", objects, self._objects(prepared)),
        ):
            prepared.record_file(what, path, data)
            yield ExportFile.of(path, data)
        if prepared.split not in self._splits:
            self._splits[prepared.split] = Spool(self._scratch)
        self._splits[prepared.split].write(f"{prepared.stem}\n".encode())

    def _objects(self, prepared: PreparedItem) -> bytes:
        regions = prepared.objects
        numbers = np.minimum(regions.map, IGNORE).astype(np.uint8)
        numbers[prepared.labels == IGNORE] = IGNORE
        if len(regions) > MAX_OBJECTS:
            prepared.lost["objects_beyond_254"] = len(regions) - MAX_OBJECTS
        return encode_mask(numbers, self._object_colours, {})

    def finish(self) -> Iterator[ExportFile]:
        """The lists of names, ``dataset.json`` and ``labelmap.txt``."""
        for split, stems in sorted(self._splits.items()):
            yield stems.as_file(f"ImageSets/Segmentation/{split}.txt")
        if {"train", "val"} <= self._splits.keys():
            with Spool(self._scratch) as both:
                for split in ("train", "val"):
                    for piece in self._splits[split].pieces():
                        both.write(piece)
                yield both.as_file("ImageSets/Segmentation/trainval.txt")
        rows = ["# label:color_rgb:parts:actions"]
        rows += [
            f"{cell(' '.join(entry.name.split()))}:{','.join(map(str, entry.colour))}::"
            for entry in self._classes.classes
        ]
        yield ExportFile.of("dataset.json", json_page({"classes": self._classes.table()}))
        yield ExportFile.of("labelmap.txt", ("\n".join(rows) + "\n").encode("utf-8", "backslashreplace"))

    def state(self) -> WriterState:
        """The names of each split."""
        return WriterState(spools=dict(self._splits))

    def restore(self, state: WriterState) -> None:
        """Restores the names."""
        self._splits = dict(state.spools)

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`JPEGImages/`: the images",
            "`SegmentationClass/`: masks; palette indices are the class indices, 255 is void",
            "`SegmentationObject/`: the same with the objects of an image numbered from 1",
            "`ImageSets/Segmentation/`: the names of each split; `labelmap.txt` and `dataset.json`: the classes",
        ]

    def close(self) -> None:
        """Frees the disk."""
        for spool in self._splits.values():
            spool.close()


def _voc_colours(count: int) -> list[tuple[int, int, int]]:
    """VOC's colours of numbers 0..count - 1: three bits of the number at a time, spread over red, green and blue."""
    colours = []
    for number in range(count):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= (number >> 3 * place + channel & 1) << 7 - place
        colours.append((channels[0], channels[1], channels[2]))
    return colours
