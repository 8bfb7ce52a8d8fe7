"""Large datasets made on the spot: a few different pairs under many items, written as prepared copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, write_all
from service.kit.png import encode_image

CLASSES = ClassList.of(["background", "field", "pond"])
DIFFERENT = 64


def items(count: int, side: int) -> Iterator[DatasetItem]:
    """``count`` pairs of ``side`` px; no two images are the same, since copies would be left out."""
    rng = np.random.default_rng(0)
    kinds = []
    for number in range(DIFFERENT):
        labels = np.zeros((side, side), dtype=np.uint8)
        labels[: side // 2, : 1 + number * side // DIFFERENT] = 1
        labels[side // 2 :, : 1 + side // 3] = 2
        smooth = rng.integers(0, 256, (side // 4 + 1, side // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:side, :side]
        kinds.append((smooth.astype(np.uint8), labels))
    for number in range(count):
        image, labels = kinds[number % DIFFERENT]
        image[0, 0], image[0, 1] = divmod(number, 65536)[0], (number >> 8 & 255, number & 255, 0)
        yield DatasetItem(f"i{number:06d}", encode_image(image, {}), labels, split="train")


def write_prepared(scratch: Path, count: int, side: int) -> Path:
    """The dataset as a folder of WebDataset shards, for a training to prepare."""
    folder = scratch / f"made-{count}"
    options = ExportOptions.model_validate({"format": "webdataset"})
    write_all(export_files(items(count, side), CLASSES, options), FolderSink(folder))
    return folder
