"""Objects painted over one another into one mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.datasets.reading.entry import Annotation


@dataclass(frozen=True)
class Painted:
    """An object: its pixels ``(H, W)`` bool, its class index, and whether it is one object and not a crowd of them."""

    mask: np.ndarray
    label: int
    single: bool = True


def paint(painted: Iterable[Painted], height: int, width: int, ground: int) -> Annotation:
    """Objects as class indices on ``ground``, the larger ones first, so that a small one in front of a large one stays.

    The objects come one at a time; until all are there, of each only the box that it fills is kept.
    """
    kept = [box for one in painted if (box := _boxed(one)) is not None]
    labels = np.full((height, width), ground, dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.int32)
    taken = np.zeros((height, width), dtype=bool)
    overlap = 0
    for number, (_, place, mask, label, single) in enumerate(sorted(kept, key=lambda box: -box[0]), start=1):
        overlap += int(np.count_nonzero(mask & taken[place]))
        taken[place] |= mask
        labels[place][mask] = label
        instances[place][mask] = number if single else 0
    return Annotation(labels, instances, overlap)


def _boxed(one: Painted) -> tuple[int, tuple[slice, slice], np.ndarray, int, bool] | None:
    """Area, place and pixels of an object's box; None for an object without pixels."""
    rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
    if not rows.size:
        return None
    place = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return int(np.count_nonzero(one.mask)), place, one.mask[place].copy(), one.label, one.single
