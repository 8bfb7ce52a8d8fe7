"""Drop: objects are removed, and their places filled with the labels around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import IGNORE, TransformArguments, TransformContext
from service.augmentations.transforms.filling import fill_nearest
from service.augmentations.transforms.parameters import Drop
from service.augmentations.transforms.regions import choose_regions, footprint, footprints_at, objects_of


def draw_drop(
    parameters: Drop, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`drop` should do with ``labels`` ``(H, W)`` uint8; None for nothing."""
    if not parameters.max_objects:
        return None
    regions = objects_of(labels, context.background)
    unwanted = 1 / np.maximum(context.class_weights, 1e-3)
    chosen = choose_regions(regions, parameters.max_objects, int(parameters.max_area * labels.size), unwanted, rng)
    # some pixels must be left to fill the places with
    left_px = int((labels != IGNORE).sum())
    taken = []
    for number in chosen:
        what = footprint(regions, number)
        left_px -= len(what.rows)
        if left_px <= 0:
            break
        taken.append(list(what.first))
    return {"at": taken} if taken else None


def drop(labels: np.ndarray, *, at: Sequence[Sequence[int]]) -> np.ndarray:
    """``(H, W)`` without the regions at the pixels ``at`` (row, column); their pixels take the nearest other label."""
    hole = np.zeros(labels.shape, dtype=bool)
    for what in footprints_at(labels, [(row, column) for row, column in at]):
        hole[what.rows, what.columns] = True
    return fill_nearest(labels, hole)
