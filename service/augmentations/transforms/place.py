"""Place: objects of this mask or of another at sizes and places of their own, which rules on objects ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments
from service.augmentations.transforms.filling import fill_nearest, spared_pixels
from service.augmentations.transforms.merge import prepared
from service.augmentations.transforms.regions import footprints_at, paste
from service.augmentations.transforms.shapes import scaled

PlacedObject = Sequence[float]
"""[row, column, factor, top, left]: the object at (row, column), ``factor`` times as large, its box at (top, left)."""


def place(
    segmentation: Segmentation,
    others: Sequence[Segmentation],
    *,
    objects: Sequence[PlacedObject],
    other: int | None = None,
    window: TransformArguments | None = None,
    filled: bool = False,
) -> Segmentation:
    """``(H, W)`` with objects of its own, or of number ``other`` of ``others``, added as new instances.

    That one is prepared as for :func:`merge`: cropped to ``window``, resized, its 255 filled if ``filled``.
    """
    source = segmentation
    if other is not None:
        source = prepared(others[other], window, filled, segmentation.shape)
    out = segmentation.copy()
    shapes = footprints_at(source, [(int(row), int(column)) for row, column, *_ in objects])
    for what, (_, _, factor, top, left) in zip(shapes, objects, strict=True):
        paste(out, scaled(what, factor, whole=out.instances is None), int(top), int(left))
    return out


def resize_objects(
    segmentation: Segmentation, *, objects: Sequence[PlacedObject], spared: Sequence[int] = ()
) -> Segmentation:
    """``(H, W)`` with single objects larger or smaller, each at its new place; they keep their instance numbers.

    What they leave is filled as :func:`drop` does: no instance and no label that is ``spared`` grows into it.
    """
    shapes = footprints_at(segmentation, [(int(row), int(column)) for row, column, *_ in objects])
    hole = np.zeros(segmentation.shape, dtype=bool)
    for what in shapes:
        hole[what.rows, what.columns] = True
    out = fill_nearest(segmentation, hole, spared=spared_pixels(segmentation, spared))
    for what, (_, _, factor, top, left) in zip(shapes, objects, strict=True):
        # one without a number gets one, since it may touch others now
        number = 0 if segmentation.instances is None else int(segmentation.instances[what.first])
        paste(out, scaled(what, factor, whole=out.instances is None), int(top), int(left), number=number or None)
    return out
