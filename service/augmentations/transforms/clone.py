"""Clone: objects of the mask once more, at other places of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import Annotation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Clone
from service.augmentations.transforms.regions import (
    choose_regions,
    footprint,
    footprints_at,
    objects_of,
    paste,
    place_for,
)


def draw_clone(
    parameters: Clone, annotation: Annotation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`clone` should do with ``annotation`` ``(H, W)``; None for nothing."""
    if not parameters.max_objects:
        return None
    regions = objects_of(annotation, context.background)
    clones = []
    for number in choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * annotation.labels.size), context.class_weights, rng
    ):
        what = footprint(regions, number)
        move = place_for(what, annotation.labels, annotation.labels, rng, stay=False)
        if move is not None and move != (0, 0):
            clones.append([*what.first, *move])
    return {"clones": clones} if clones else None


def clone(annotation: Annotation, *, clones: Sequence[Sequence[int]]) -> Annotation:
    """``(H, W)`` with objects repeated: each the one at (row, column), moved by (down, across) pixels. 255 stays.

    Each is a new instance.
    """
    out = annotation.copy()
    sources = footprints_at(annotation, [(row, column) for row, column, _, _ in clones])
    for what, (_, _, down, across) in zip(sources, clones, strict=True):
        paste(out, what, down, across)
    return out
