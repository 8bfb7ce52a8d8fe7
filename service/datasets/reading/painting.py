"""Objects painted over one another into one mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.datasets.reading.entry import Annotation


@dataclass(frozen=True)
class PaintedObject:
    """An object: its pixels ``(H, W)`` bool, its class index, and whether it is a single object and not a crowd."""

    mask: np.ndarray
    label: int
    single: bool = True


def paint(painted: Iterable[PaintedObject], height: int, width: int, background: int) -> Annotation:
    """Objects painted as class indices on ``background``, the larger ones first, so that smaller ones stay on top.

    Objects are consumed one at a time; only the bounding box of each is stored until all are known.
    """
    objects = [boxed for one in painted if (boxed := _boxed(one)) is not None]
    labels = np.full((height, width), background, dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.int32)
    covered = np.zeros((height, width), dtype=bool)
    overlap = 0
    for number, (_, box, mask, label, single) in enumerate(sorted(objects, key=lambda entry: -entry[0]), start=1):
        overlap += int(np.count_nonzero(mask & covered[box]))
        covered[box] |= mask
        labels[box][mask] = label
        instances[box][mask] = number if single else 0
    return Annotation(labels, instances, overlap)


def _boxed(one: PaintedObject) -> tuple[int, tuple[slice, slice], np.ndarray, int, bool] | None:
    """The area, bounding box and pixels of an object, its label and ``single``; None for an object without pixels."""
    rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
    if not rows.size:
        return None
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return int(np.count_nonzero(one.mask)), box, one.mask[box].copy(), one.label, one.single
