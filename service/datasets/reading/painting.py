"""Objects painted over one another into one mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.datasets.patches import Patch
from service.datasets.reading.entry import Annotation
from service.datasets.reading.report import EntryFault


@dataclass(frozen=True)
class PaintedObject:
    """An object: its pixels, its class index, and whether it is a single object and not a crowd.

    Objects of a higher ``z_order`` cover those of a lower one.
    """

    pixels: Patch
    label: int
    single: bool = True
    z_order: float = 0


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
    z_order: float

    def patch(self) -> Patch:
        count = self.shape[0] * self.shape[1]
        mask = np.unpackbits(self.bits, count=count).reshape(self.shape).view(bool)
        return Patch(self.top, self.left, mask)


def paint(painted: Iterable[PaintedObject], height: int, width: int, background: int) -> Annotation:
    """Objects painted as class indices on ``background``, by their ``z_order``, and the larger ones of it first.

    Objects are consumed one at a time; only the bounding box of each is stored until all are known. Raises EntryFault
    if there are objects, but none of them has a pixel.
    """
    found = [_packed(one) for one in painted]
    objects = [packed for packed in found if packed is not None]
    if found and not objects:
        raise EntryFault(
            "bad_annotation",
            f"none of its objects ({len(found)}) covers a pixel; correct them, or take them out if nothing is in the "
            "image",
        )
    labels = np.full((height, width), background, dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.int32)
    covered = np.zeros((height, width), dtype=bool)
    overlap = 0
    for number, one in enumerate(sorted(objects, key=lambda packed: (packed.z_order, -packed.area)), start=1):
        patch = one.patch()
        box, mask = patch.box, patch.mask
        overlap += int(np.count_nonzero(mask & covered[box]))
        covered[box] |= mask
        labels[box][mask] = one.label
        instances[box][mask] = number if one.single else 0
    lost = len(found) - len(objects)
    assumed = (f"{lost} of its {len(found)} objects cover no pixel, and are not read",) if lost else ()
    return Annotation(labels, instances, overlap, assumed)


def _packed(one: PaintedObject) -> _Packed | None:
    """The object as it is stored; None without pixels."""
    patch = one.pixels.trimmed()
    if patch is None:
        return None
    height, width = patch.mask.shape
    area, bits = int(np.count_nonzero(patch.mask)), np.packbits(patch.mask)
    return _Packed(area, patch.top, patch.left, (height, width), bits, one.label, one.single, one.z_order)
