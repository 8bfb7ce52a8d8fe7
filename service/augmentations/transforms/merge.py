"""Merge: objects of another mask are pasted, at the same place or where they fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.crop import crop, frame
from service.augmentations.transforms.filling import fill_ignored
from service.augmentations.transforms.parameters import Merge
from service.augmentations.transforms.regions import (
    choose_regions,
    footprint,
    footprints_at,
    objects_of,
    paste,
    place_for,
)
from service.augmentations.transforms.resize import resize


def draw_merge(
    parameters: Merge, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`merge` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    if not parameters.max_objects or not context.others:
        return None
    number = int(rng.integers(len(context.others)))
    window = window_of(context.others[number], context)
    other = prepared(context.others[number], window, context.fill, segmentation.shape)
    regions = objects_of(other, context.background)
    pasted = []
    for chosen in choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * other.labels.size), context.class_weights, rng
    ):
        what = footprint(regions, chosen)
        move = place_for(what, other.labels, segmentation.labels, rng, stay=True)
        if move is not None:
            pasted.append([*what.first, *move])
    return {"other": number, "window": window, "filled": context.fill, "objects": pasted} if pasted else None


def merge(
    segmentation: Segmentation,
    others: Sequence[Segmentation],
    *,
    other: int,
    window: TransformArguments | None,
    filled: bool,
    objects: Sequence[Sequence[int]],
) -> Segmentation:
    """``(H, W)`` with objects of segmentation number ``other`` of ``others`` pasted in.

    It is first cropped to the square ``window`` and resized to the shorter side of ``segmentation``, unless that is
    None, and its 255 is filled if ``filled``. Each object is the one at (row, column) there, moved by (down, across)
    pixels, and a new instance. Pixels of 255 stay.
    """
    source = prepared(others[other], window, filled, segmentation.shape)
    out = segmentation.copy()
    regions = footprints_at(source, [(row, column) for row, column, _, _ in objects])
    for what, (_, _, down, across) in zip(regions, objects, strict=True):
        paste(out, what, down, across)
    return out


def window_of(other: Segmentation, context: TransformContext) -> TransformArguments | None:
    """The square of another mask that objects are taken from; None for all of it, where masks keep their scale."""
    return None if context.framing.size is None else frame(other.labels, context.class_weights)


def prepared(
    other: Segmentation, window: TransformArguments | None, filled: bool, shape: tuple[int, int]
) -> Segmentation:
    """The square ``window`` of a segmentation, at the shorter side of ``shape``, or all of it as it is.

    Its 255 is filled if ``filled``.
    """
    source = other if window is None else resize(crop(other, **window), size_px=min(shape))
    return fill_ignored(source) if filled else source
