"""Resizing of instance maps along with their masks: an instance is never split in two, and none is made up."""

from __future__ import annotations

import numpy as np
from PIL import Image


def majority_instances(labels: np.ndarray, instances: np.ndarray, resized: np.ndarray) -> np.ndarray:
    """The instance numbers ``(H', W')`` int32 of a mask ``labels`` ``(H, W)`` that was ``resized`` by majority.

    Smaller: of the pixels that a new pixel covers, those of its class decide; it takes the instance, or 0 for none,
    that most of them have, the lowest of several. Larger: each takes the number of the nearest old one. An instance
    whose parts no longer touch keeps one number.
    """
    if labels.shape == resized.shape:
        return instances.astype(np.int32)
    shape = resized.shape
    nearest = tuple(_nearest(old, new) for old, new in zip(labels.shape, shape, strict=True))
    labels, instances = labels[np.ix_(*nearest)], instances[np.ix_(*nearest)]
    rows, columns = (_cells(old, new) for old, new in zip(labels.shape, shape, strict=True))
    cell = rows[:, None] * shape[1] + columns
    voting = labels == resized.reshape(-1)[cell]
    numbers, number = np.unique(instances[voting], return_inverse=True)
    pairs, votes = np.unique(cell[voting] * len(numbers) + number.reshape(-1), return_counts=True)
    # by cell, and in a cell from the fewest to the most votes, the lowest number last among equals
    order = np.lexsort((-(pairs % len(numbers)), votes, pairs // len(numbers)))
    out = np.zeros(resized.size, dtype=np.int32)
    out[pairs[order] // len(numbers)] = numbers[pairs[order] % len(numbers)]
    return out.reshape(shape)


def _nearest(old: int, new: int) -> np.ndarray:
    """The old pixel nearest to each of ``new`` pixels, where there are more of them; else the old ones."""
    places = np.arange(old)
    if new <= old:
        return places
    # as Pillow resizes the labels, whose rounding of halves is its own
    line = Image.fromarray(places[None].astype(np.float32))
    nearest: np.ndarray = np.asarray(line.resize((new, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    return nearest


def _cells(old: int, new: int) -> np.ndarray:
    """The new pixel that covers the centre of each old one; on a border, the one before, as Pillow's box filter."""
    return -(-(2 * np.arange(old) + 1) * new // (2 * old)) - 1 if new < old else np.arange(old)
