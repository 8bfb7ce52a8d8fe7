"""Merge: objects of another mask are pasted, at the same place or where they fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_store.masks.resize import majority_resize
from service.augmentations.transforms.base import TransformArguments, TransformContext
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


def draw_merge(
    parameters: Merge, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`merge` should do with ``labels`` ``(H, W)`` uint8; None for nothing."""
    if not parameters.max_objects or not context.others:
        return None
    number = int(rng.integers(len(context.others)))
    window = frame(context.others[number], context.class_weights)
    other = _prepared(context.others[number], window, context.fill, min(labels.shape))
    regions = objects_of(other, context.background)
    pasted = []
    for chosen in choose_regions(
        regions, parameters.max_objects, int(parameters.max_area * other.size), context.class_weights, rng
    ):
        what = footprint(regions, chosen)
        move = place_for(what, other, labels, rng, stay=True)
        if move is not None:
            pasted.append([*what.first, *move])
    return {"other": number, "window": window, "filled": context.fill, "objects": pasted} if pasted else None


def merge(
    labels: np.ndarray,
    others: Sequence[np.ndarray],
    *,
    other: int,
    window: TransformArguments,
    filled: bool,
    objects: Sequence[Sequence[int]],
) -> np.ndarray:
    """``(H, W)`` with regions of mask number ``other`` of ``others`` pasted in.

    That mask is first cropped to the square ``window`` and resized to the shorter side of ``labels``, and its 255 is
    filled if ``filled``. Each region is the one at (row, column) there, moved by (down, across) pixels. Pixels of 255
    in ``labels`` stay.
    """
    source = _prepared(others[other], window, filled, min(labels.shape))
    out = labels.copy()
    regions = footprints_at(source, [(row, column) for row, column, _, _ in objects])
    for what, (_, _, down, across) in zip(regions, objects, strict=True):
        paste(out, what, down, across)
    return out


def _prepared(other: np.ndarray, window: TransformArguments, filled: bool, side_px: int) -> np.ndarray:
    source = majority_resize(crop(other, **window), side_px)
    return fill_ignored(source) if filled else source
