"""Drop: objects are removed, and their places filled with the labels around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import IGNORE, Annotation, TransformArguments, TransformContext
from service.augmentations.transforms.filling import fill_nearest
from service.augmentations.transforms.parameters import Drop
from service.augmentations.transforms.regions import choose_regions, footprint, footprints_at, objects_of


def draw_drop(
    parameters: Drop, annotation: Annotation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`drop` should do with ``annotation`` ``(H, W)``; None for nothing."""
    if not parameters.max_objects:
        return None
    regions = objects_of(annotation, context.background)
    unwanted = 1 / np.maximum(context.class_weights, 1e-3)
    chosen = choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * annotation.labels.size), unwanted, rng
    )
    # some pixels must be left to fill the places with
    left_px = int((annotation.labels != IGNORE).sum())
    taken = []
    for number in chosen:
        what = footprint(regions, number)
        left_px -= len(what.rows)
        if left_px <= 0:
            break
        taken.append(list(what.first))
    return {"at": taken} if taken else None


def drop(annotation: Annotation, *, at: Sequence[Sequence[int]]) -> Annotation:
    """``(H, W)`` without the objects at the pixels ``at`` (row, column); their pixels take the nearest other label.

    Where instances are known, it is the nearest label that belongs to none, so that a neighbour does not grow into the
    hole; if every pixel belongs to one, the nearest of them all.
    """
    hole = np.zeros(annotation.shape, dtype=bool)
    for what in footprints_at(annotation, [(row, column) for row, column in at]):
        hole[what.rows, what.columns] = True
    return fill_nearest(annotation, hole, spared=annotation.instances)
