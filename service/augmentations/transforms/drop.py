"""Drop: objects are removed, and their places filled with the labels around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import IGNORE, Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.filling import fill_nearest, spared_pixels
from service.augmentations.transforms.parameters import Drop
from service.augmentations.transforms.regions import choose_regions, footprint, footprints_at, objects_of


def draw_drop(
    parameters: Drop, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`drop` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    if not parameters.max_objects:
        return None
    regions = objects_of(segmentation, context.background)
    unwanted = 1 / np.maximum(context.class_weights, 1e-3)
    chosen = choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * segmentation.labels.size), unwanted, rng
    )
    # some pixels must be left to fill the places with
    left_px = int((segmentation.labels != IGNORE).sum())
    taken = []
    for number in chosen:
        what = footprint(regions, number)
        left_px -= len(what.rows)
        if left_px <= 0:
            break
        taken.append(list(what.first))
    return {"at": taken} if taken else None


def drop(segmentation: Segmentation, *, at: Sequence[Sequence[int]], spared: Sequence[int] = ()) -> Segmentation:
    """``(H, W)`` without the objects at the pixels ``at`` (row, column); their pixels take the nearest other label.

    Where instances are known, it is the nearest label that belongs to none, so that a neighbour does not grow into the
    hole; neither do ``spared`` labels. If there is nothing else, the nearest of them all fills it.
    """
    hole = np.zeros(segmentation.shape, dtype=bool)
    for what in footprints_at(segmentation, [(row, column) for row, column in at]):
        hole[what.rows, what.columns] = True
    return fill_nearest(segmentation, hole, spared=spared_pixels(segmentation, spared))
