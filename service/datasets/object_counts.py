"""The number of a mask's objects by class, a band of rows at a time: all regions at once take too much memory."""

from __future__ import annotations

import numpy as np

from service.datasets.classes import IGNORE
from service.datasets.components import connected, join_groups

_BAND_PIXELS = 1 << 20


def count_objects(labels: np.ndarray, instances: np.ndarray | None, excluded: set[int]) -> np.ndarray:
    """The objects of each class, ``(256,)`` int64, as :func:`service.datasets.components.objects` finds them.

    ``labels`` ``(H, W)`` uint8 are class indices, ``instances`` ``(H, W)`` the numbers of objects, 0 for none. Pixels
    without a number are objects by connected regions; those whose class is in ``excluded`` are in no object.
    """
    excluded = {*excluded, IGNORE}
    counts = np.zeros(256, dtype=np.int64)
    numbered = np.zeros(0, dtype=np.int64)
    above = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // max(1, labels.shape[1]))
    for top in range(0, len(labels), rows):
        band = labels[top : top + rows]
        if instances is not None:
            numbers = instances[top : top + rows]
            keys = numbers[numbers > 0].astype(np.int64) << 8 | band[numbers > 0]
            numbered = np.union1d(numbered, keys)
            band = np.where(numbers > 0, IGNORE, band)
        found = connected(band, excluded)
        counts += np.bincount(found.values, minlength=256)
        above, joined = _joined(above, found.map, band)
        counts -= joined
    classes = numbered & 255
    return counts + np.bincount(classes[~np.isin(classes, list(excluded))], minlength=256)


def _joined(
    above: tuple[np.ndarray, np.ndarray], regions: np.ndarray, band: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The regions in a band's last row, joined by those above, and how many of each class were joined, ``(256,)``.

    ``above`` are the regions of the row before, from 1 on, with 0 for none, and their classes.
    """
    joined = np.zeros(256, dtype=np.int64)
    last = regions[-1].astype(np.int64)
    if len(above[0]):
        old, classes = above
        touching = (old > 0) & (regions[0] > 0) & (classes == band[0])
        first = int(old.max(initial=0)) + 1
        left, right = old[touching], regions[0][touching].astype(np.int64) + first
        root = join_groups(first + int(regions.max(initial=0)) + 1, left, right)
        # each region that is no longer its own root has been joined to another one
        ends = np.unique(np.concatenate([left, right]))
        class_of = np.zeros(len(root), dtype=np.uint8)
        class_of[left], class_of[right] = classes[touching], classes[touching]
        joined = np.bincount(class_of[ends[root[ends] != ends]], minlength=256)
        last = np.where(last > 0, root[last + first], 0)
    return (np.unique(last, return_inverse=True)[1].reshape(-1) + (last.min(initial=1) > 0), band[-1]), joined
