"""Statistics of a dataset: how often each class occurs, with which others, how large, and where."""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from operator import itemgetter

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.object_counts import count_objects
from service.datasets.statistics_values import ClassStatistics, DatasetStatistics

HEAT_SIDE = 16
"""Cells per side of a heat map."""
SIZE_EDGES = (0.001, 0.01, 0.05, 0.2, 0.5)
"""The edges of the bins of class sizes, as shares of an image: up to 0.1 %, 1 %, 5 %, 20 %, 50 %, and above."""
_MAX_SIZES = 20
_BLOCK_PIXELS = 1 << 20
"""Pixels that are counted at a time; each takes 25 bytes meanwhile."""


class StatisticsCollector:
    """Collects the statistics of masks one at a time."""

    def __init__(self, classes: ClassList) -> None:
        count = len(classes)
        self._classes = classes
        self._images = 0
        self._pixels = np.zeros(256, dtype=np.int64)
        self._together = np.zeros((count, count), dtype=np.int64)
        self._sizes = np.zeros((count, len(SIZE_EDGES) + 1), dtype=np.int64)
        self._heat = np.zeros((count, HEAT_SIDE * HEAT_SIDE))
        self._heat_images = np.zeros((count, HEAT_SIDE * HEAT_SIDE), dtype=np.int64)
        self._objects = np.zeros(256, dtype=np.int64)
        self._instance_maps = 0
        self._image_sizes: Counter[tuple[int, int]] = Counter()

    def add(self, labels: np.ndarray, instances: np.ndarray | None = None) -> None:
        """Counts a mask ``(H, W)`` uint8 of class indices, 255 none, and its objects by its instance map ``(H, W)``.

        Without a map, connected regions are objects. Raises ValueError for other values.
        """
        if unknown := self._classes.unknown_labels(labels):
            raise ValueError(f"the mask holds {unknown[:5]}; the classes are 0 to {len(self._classes) - 1}, and 255")
        background = self._classes.background
        self._objects += count_objects(labels, instances, set() if background is None else {background.index})
        self._instance_maps += instances is not None
        height, width = labels.shape
        rows = np.arange(height) * HEAT_SIDE // height
        columns = np.arange(width) * HEAT_SIDE // width
        counts = np.zeros(256 * HEAT_SIDE**2, dtype=np.int64)
        step = max(1, _BLOCK_PIXELS // width)
        for top in range(0, height, step):
            block = slice(top, top + step)
            places = labels[block].astype(np.int64) * HEAT_SIDE**2 + (rows[block, None] * HEAT_SIDE + columns)
            counts += np.bincount(places.reshape(-1), minlength=256 * HEAT_SIDE**2)
        per_cell = counts.reshape(256, HEAT_SIDE**2)
        pixels, cell_pixels = per_cell.sum(axis=1), per_cell.sum(axis=0)
        present = np.flatnonzero(pixels[: len(self._classes)])
        self._images += 1
        self._image_sizes[width, height] += 1
        self._pixels += pixels
        self._together[np.ix_(present, present)] += 1
        self._sizes[present, np.searchsorted(SIZE_EDGES, pixels[present] / labels.size, side="left")] += 1
        self._heat[present] += per_cell[present] / np.maximum(cell_pixels, 1)
        self._heat_images[present] += cell_pixels > 0

    def result(self) -> DatasetStatistics:
        """The statistics of all masks so far."""
        labelled = max(1, int(self._pixels[:IGNORE].sum()))
        images = np.diag(self._together)
        heat = (self._heat / np.maximum(self._heat_images, 1)).reshape(-1, HEAT_SIDE, HEAT_SIDE)
        classes = tuple(
            ClassStatistics(
                entry=entry,
                pixels=int(self._pixels[entry.index]),
                pixel_share=float(self._pixels[entry.index] / labelled),
                images=int(images[entry.index]),
                image_share=float(images[entry.index] / max(1, self._images)),
                objects=int(self._objects[entry.index]),
                size_median=_median(self._sizes[entry.index]),
                sizes=tuple(self._sizes[entry.index].tolist()),
                heat=tuple(tuple(round(cell, 4) for cell in row) for row in heat[entry.index].tolist()),
            )
            for entry in self._classes.classes
        )
        return DatasetStatistics(
            images=self._images,
            instance_maps=self._instance_maps,
            ignored_share=float(self._pixels[IGNORE] / max(1, self._pixels.sum())),
            image_sizes=self._size_table(),
            classes=classes,
            cooccurrence=tuple(
                tuple(float(both / count) if count else None for both in row.tolist())
                for row, count in zip(self._together, images, strict=True)
            ),
        )

    def _size_table(self) -> dict[str, int]:
        common = nlargest(_MAX_SIZES, self._image_sizes.items(), key=itemgetter(1))
        table = {f"{width} x {height}": count for (width, height), count in common}
        if (rest := self._images - sum(table.values())) > 0:
            table["other"] = rest
        return table


def _median(sizes: np.ndarray) -> float:
    """The median of binned shares, assumed to be uniform within each bin; 0 for none."""
    total = int(sizes.sum())
    if not total:
        return 0.0
    edges = (0.0, *SIZE_EDGES, 1.0)
    reached = np.cumsum(sizes)
    bin_ = int(np.searchsorted(reached, total / 2))
    before = int(reached[bin_ - 1]) if bin_ else 0
    return float(edges[bin_] + (edges[bin_ + 1] - edges[bin_]) * (total / 2 - before) / sizes[bin_])
