"""Clone: objects of the mask once more, at other places of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
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
    parameters: Clone, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`clone` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    if not parameters.max_objects:
        return None
    regions = objects_of(segmentation, context.background)
    clones = []
    for number in choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * segmentation.labels.size), context.class_weights, rng
    ):
        what = footprint(regions, number)
        move = place_for(what, segmentation.labels, segmentation.labels, rng, stay=False)
        if move is not None and move != (0, 0):
            clones.append([*what.first, *move])
    return {"clones": clones} if clones else None


def clone(segmentation: Segmentation, *, clones: Sequence[Sequence[int]]) -> Segmentation:
    """``(H, W)`` with objects repeated: each the one at (row, column), moved by (down, across) pixels. 255 stays.

    Each is a new instance.
    """
    out = segmentation.copy()
    sources = footprints_at(segmentation, [(row, column) for row, column, _, _ in clones])
    for what, (_, _, down, across) in zip(sources, clones, strict=True):
        paste(out, what, down, across)
    return out
