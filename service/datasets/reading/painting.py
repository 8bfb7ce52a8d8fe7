"""Objects painted over one another into one mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.datasets.patches import Patch
from service.datasets.reading.entry import Annotation


@dataclass(frozen=True)
class PaintedObject:
    """An object: its pixels, its class index, and whether it is a single object and not a crowd."""

    pixels: Patch
    label: int
    single: bool = True


@dataclass(frozen=True)
class _Packed:
    """An object with eight pixels in a byte, as all objects of an image are in memory at once."""

    area: int
    top: int
    left: int
    shape: tuple[int, int]
    bits: np.ndarray
    label: int
    single: bool

    def patch(self) -> Patch:
        count = self.shape[0] * self.shape[1]
        mask = np.unpackbits(self.bits, count=count).reshape(self.shape).view(bool)
        return Patch(self.top, self.left, mask)


def paint(painted: Iterable[PaintedObject], height: int, width: int, background: int) -> Annotation:
    """Objects painted as class indices on ``background``, the larger ones first, so that smaller ones stay on top.

    Objects are consumed one at a time; only the bounding box of each is stored until all are known.
    """
    objects = [packed for one in painted if (packed := _packed(one)) is not None]
    labels = np.full((height, width), background, dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.int32)
    covered = np.zeros((height, width), dtype=bool)
    overlap = 0
    for number, one in enumerate(sorted(objects, key=lambda packed: -packed.area), start=1):
        patch = one.patch()
        box, mask = patch.box, patch.mask
        overlap += int(np.count_nonzero(mask & covered[box]))
        covered[box] |= mask
        labels[box][mask] = one.label
        instances[box][mask] = number if one.single else 0
    return Annotation(labels, instances, overlap)


def _packed(one: PaintedObject) -> _Packed | None:
    """The object as it is stored; None without pixels."""
    patch = one.pixels.trimmed()
    if patch is None:
        return None
    height, width = patch.mask.shape
    area = int(np.count_nonzero(patch.mask))
    return _Packed(area, patch.top, patch.left, (height, width), np.packbits(patch.mask), one.label, one.single)
